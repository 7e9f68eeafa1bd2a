"""Verdicts with a horizon: times, stopping in time, other references (contract, exact).

The page of such a verdict shows every time judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from verification import Candidate, cross_check


@cache
def put() -> hjb.TimedSolution:
    solution = hjb.solve(hjb.catalogue.get("american-put"))
    assert isinstance(solution, hjb.TimedSolution)
    return solution


def liquidated() -> Candidate:
    exact = hjb.catalogue.get("liquidation").exact
    assert exact is not None
    return Candidate(exact.value, exact.control, exact.gradient)


def free_boundary(factor: float) -> Any:
    """The put's own stopping set, its edge moved by log(factor)."""

    def stop(x: Any, t: float) -> Any:
        at = put().at(t)
        assert at.stopping is not None
        edge = at.grid.axes[0][at.stopping & (at.grid.axes[0] < np.log(95))].max()
        return x[..., 0] <= edge + np.log(factor)

    return stop


@pytest.mark.parametrize(
    ("factor", "status"), [(1.0, "agree"), (1.35, "differ"), (0.5, "differ")]
)
def test_a_stopping_rule_in_time_is_judged_by_its_regret(
    factor: float, status: str
) -> None:
    candidate = Candidate(put().value_at, stop=free_boundary(factor))
    verdict = cross_check(candidate, put())
    assert verdict.status == status, verdict
    assert verdict.regret is not None and verdict.regret >= 0.0
    assert (verdict.regret > 1e-2) == (status == "differ")


def test_a_value_without_a_stopping_rule_stops_where_it_meets_the_payoff() -> None:
    verdict = cross_check(Candidate(put().value_at), put())
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and verdict.regret <= 0.6e-2


@pytest.mark.slow
def test_a_policy_kept_at_too_few_times_loses() -> None:
    """Between kept times the nearer policy holds; the switch moves as sqrt(T - t)."""
    problem = hjb.catalogue.get("uncertain-volatility")
    end, reference = problem.horizon, hjb.solve(problem, 321)
    assert end is not None
    regrets = []
    for n, status in ((33, "differ"), (129, "agree")):
        finer = hjb.solve(problem, 641, times=np.linspace(0, end, n))
        verdict = cross_check(finer, reference, tolerance=2e-2)
        assert verdict.status == status, verdict
        regrets.append(verdict.regret)
    assert regrets[1] < 0.2 * regrets[0]


@pytest.mark.slow
def test_the_lower_volatility_alone_differs() -> None:
    problem = hjb.catalogue.get("uncertain-volatility")
    reference = hjb.solve(problem, 321)
    lowest = Candidate(reference.value_at, lambda x: 0.0 * x + 0.15)
    verdict = cross_check(lowest, reference, tolerance=2e-2)
    assert verdict.status == "differ", verdict
    assert verdict.regret is not None and verdict.regret > 0.1


def test_the_times_can_be_chosen_and_are_named() -> None:
    reference = hjb.solve(hjb.catalogue.get("liquidation"), times=[1.0, 4.0])
    verdict = cross_check(liquidated(), reference, times=[1.0, 4.0], tolerance=2e-2)
    assert [piece["time"] for piece in verdict.details["slices"]] == [1.0, 4.0]
    assert "t = 1, 4" in str(verdict)
    exact = liquidated()
    assert exact.value is not None
    late = replace(
        exact, value=lambda x, t: exact.value(x, t=t) * (1.1 if t > 3 else 1.0)
    )
    verdict = cross_check(late, reference, times=[1.0, 4.0], tolerance=2e-2)
    assert verdict.status == "differ" and verdict.time == 4.0
    assert "t = 4" in verdict.reasons[0]
    assert cross_check(late, reference, times=[1.0], tolerance=2e-2).status == "agree"


def test_problems_without_noise_are_judged_against_explicit_marching() -> None:
    problem = hjb.catalogue.get("harmonic-oscillator")
    exact, reference = problem.exact, hjb.solve(problem)
    assert exact is not None
    assert "explicit" in reference.report.method
    right = cross_check(Candidate(exact.value), reference)
    assert right.status != "differ", right
    assert right.value_error is not None and right.value_error < 1e-3
    wrong = Candidate(lambda x, t: 1.03 * exact.value(x, t=t))
    assert cross_check(wrong, reference).status == "differ"


def heat(dimension: int = 2) -> hjb.ControlProblem:
    """Cosines that decay on a periodic square, ``V = exp(-2 (T - t)) sum cos x``."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + a,
        diffusion=2.0,
        reward=lambda x, a: -hjb.namespace(x).sum(a * a, axis=-1),
        controls=hjb.Box([-1e-9] * dimension, [1e-9] * dimension),
        domain=hjb.Box([0.0] * dimension, [2 * np.pi] * dimension, periodic=True),
        horizon=0.5,
        terminal=lambda x: hjb.namespace(x).sum(hjb.namespace(x).cos(x), axis=-1),
        name="heat",
    )


def decayed(x: Any, t: float) -> Any:
    return np.exp(-2.0 * (0.5 - t)) * np.cos(x).sum(-1)


@pytest.mark.slow
def test_two_dimensions_are_judged_and_drawn_at_every_time(tmp_path: Path) -> None:
    reference = hjb.solve(heat(), (32, 32))
    verdict = cross_check(Candidate(decayed), reference)
    assert verdict.status == "agree", verdict
    assert verdict.evidence is not None
    assert [piece.time for piece in verdict.evidence.slices] == list(
        0.5 * np.array([0.0, 0.25, 0.5, 0.75])
    )
    page = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "Time by time" in page
    assert len(verdict.plot().axes) >= 12
    wrong = Candidate(lambda x, t: decayed(x, t) + 0.1 * (t > 0.3))
    assert cross_check(wrong, reference).status == "differ"


@dataclass(frozen=True)
class OnlyTimed:
    """A solution that answers with t= and nothing more."""

    solution: hjb.GridSolution

    @property
    def problem(self) -> Any:
        return self.solution.problem

    @property
    def report(self) -> Any:
        return self.solution.report

    def value_at(self, x: Any, t: float = 0.0) -> Any:
        return hjb.TimedSolution.value_at(self.solution, x, t)  # type: ignore[arg-type]

    def gradient_at(self, x: Any, t: float = 0.0) -> Any:
        return hjb.TimedSolution.gradient_at(self.solution, x, t)  # type: ignore[arg-type]

    def control_at(self, x: Any, t: float = 0.0) -> Any:
        return hjb.TimedSolution.control_at(self.solution, x, t)  # type: ignore[arg-type]


def test_a_reference_in_time_without_a_bar_cannot_confirm() -> None:
    solution = hjb.solve(hjb.catalogue.get("liquidation"), 201)
    verdict = cross_check(liquidated(), OnlyTimed(solution))
    assert verdict.status == "inconclusive" and "no error bar" in verdict.reasons[0]


def test_a_nan_policy_late_differs_and_names_the_time() -> None:
    exact = liquidated()

    def control(x: Any, t: float) -> Any:
        assert exact.control is not None
        found = exact.control(x, t=t)
        return np.where(t > 3.0, np.nan, found)

    verdict = cross_check(
        replace(exact, control=control), hjb.solve(hjb.catalogue.get("liquidation"))
    )
    assert verdict.status == "differ", verdict
    assert "control is not finite" in verdict.reasons[0]
    assert verdict.time is not None and verdict.time > 3.0


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("lqr", {"times": [0.0]}, hjb.ProblemError, "needs a problem with a horizon"),
        ("liquidation", {"times": [5.0]}, hjb.ProblemError, "must lie in"),
        ("liquidation", {"times": []}, hjb.ProblemError, "must lie in"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_work(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    problem = hjb.catalogue.get(name)
    with pytest.raises(error, match=message):
        cross_check(Candidate(lambda x: x[..., 0]), problem, **options)


def test_a_stopping_rule_is_asked_for_only_where_there_is_a_right() -> None:
    stop = Candidate(lambda x: x[..., 0], stop=lambda x: x[..., 0] > 0)
    with pytest.raises(hjb.ProblemError, match="no right to stop"):
        cross_check(stop, hjb.catalogue.get("lqr"))
    with pytest.raises(hjb.ProblemError, match="says where it stops"):
        cross_check(Candidate(control=lambda x: x[..., :0]), put())
