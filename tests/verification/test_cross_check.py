"""Verdicts that must hold, on exact formulas as candidates (kind: exact, contract)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hjbpde as hjb
import verification
from verification import Candidate, Verdict, cross_check

TOLERANCE = 1e-2
CASES = {
    "lqr": ("lqr", {}, None),
    "manufactured": ("manufactured", {}, 401),
    "manufactured, artificial faces": ("manufactured", {"boundary": None}, 401),
    "manufactured 2-D": ("manufactured", {"dimension": 2}, (51, 51)),
    "merton": ("merton", {"boundary": "exact"}, None),
}
every_case = pytest.mark.parametrize("case", CASES)


@dataclass(frozen=True)
class Known:
    """A reference, the exact functions, and sup|V| and widths of the region."""

    reference: hjb.GridSolution
    value: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    control: Callable[[Any], Any]
    scale: float
    width: np.ndarray


@cache
def known(case: str) -> Known:
    name, parameters, shape = CASES[case]
    problem = hjb.catalogue.get(name, **parameters)
    exact = problem.exact
    assert exact is not None and exact.gradient and exact.control
    reference = hjb.solve(replace(problem, exact=None), shape)
    region = reference.region
    inside = region.contains(reference.grid.nodes(), 1e-9)
    scale = float(np.abs(reference.value[inside]).max())
    return Known(
        reference, exact.value, exact.gradient, exact.control, scale, region.width
    )


def check(case: str, candidate: Any, **options: Any) -> Verdict:
    return cross_check(candidate, known(case).reference, **options)


@every_case
def test_the_exact_answer_agrees(case: str) -> None:
    k = known(case)
    verdict = check(case, Candidate(k.value, k.control, k.gradient))
    assert verdict.status == "agree", verdict
    assert verdict.value_error is not None and verdict.value_error < 5e-4
    assert verdict.regret is not None and 0.0 <= verdict.regret < TOLERANCE


@every_case
def test_the_exact_policy_alone_agrees(case: str) -> None:
    verdict = check(case, Candidate(control=known(case).control))
    assert verdict.status == "agree", verdict
    assert verdict.value_error is None and verdict.regret is not None


@every_case
@pytest.mark.parametrize("axis", [0, -1])
def test_a_smooth_error_of_half_the_tolerance_agrees(case: str, axis: int) -> None:
    k = known(case)

    def value(x: Any) -> Any:
        wave = np.sin(2 * np.pi * x[..., axis] / k.width[axis] + 0.3)
        return k.value(x) + 0.5 * TOLERANCE * k.scale * wave

    verdict = check(case, Candidate(value))
    assert verdict.status == "agree", verdict
    assert verdict.reference_error <= TOLERANCE / 4
    assert verdict.value_error == pytest.approx(0.5 * TOLERANCE, rel=0.05)


@every_case
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_constant_shift_of_three_tolerances_differs(case: str, sign: float) -> None:
    k = known(case)
    shift = 3 * sign * TOLERANCE * k.scale
    verdict = check(case, Candidate(lambda x: k.value(x) + shift, k.control))
    assert verdict.status == "differ", verdict
    assert verdict.value_error == pytest.approx(3 * TOLERANCE, rel=2e-2)
    # What remains once the mean error is removed is the exact answer.
    assert verdict.mean_removed_error is not None
    assert verdict.mean_removed_error < TOLERANCE / 10


@every_case
def test_a_sign_flipped_policy_differs(case: str) -> None:
    k = known(case)
    verdict = check(case, Candidate(k.value, lambda x: -k.control(x), k.gradient))
    assert verdict.status == "differ", verdict
    assert verdict.regret is not None and verdict.regret > 10 * TOLERANCE


@every_case
def test_a_right_value_with_a_rippled_gradient_differs(case: str) -> None:
    k = known(case)

    def value(x: Any) -> Any:
        return k.value(x) + 0.3 * TOLERANCE * k.scale * np.sin(80 * x[..., 0])

    verdict = check(case, Candidate(value, k.control))
    assert verdict.status == "differ", verdict
    assert verdict.value_error is not None and verdict.value_error < TOLERANCE
    assert "gradient" in verdict.reasons[0]


@every_case
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_spike_narrower_than_a_cell_differs(case: str, seed: int) -> None:
    k = known(case)
    exact = Candidate(k.value, k.control, k.gradient)
    width = 1.05 * check(case, exact).resolution
    axes = k.reference.grid.axes
    cell = np.array([np.diff(axis).max() for axis in axes])
    assert (width < cell).all()
    rng = np.random.default_rng(seed)
    region = k.reference.region
    centre = np.asarray(region.low) + rng.uniform(0.1, 0.9, len(axes)) * region.width

    def value(x: Any) -> Any:
        inside = (np.abs(x - centre) <= 0.5 * width).all(axis=-1)
        return k.value(x) + 2 * TOLERANCE * k.scale * inside

    verdict = check(case, Candidate(value, k.control, k.gradient))
    assert verdict.status == "differ", verdict
    assert verdict.where is not None
    assert (np.abs(verdict.where - centre) <= 0.5 * width).all()


def wrong_riccati_root() -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The article's LQR: 10 P^2 + 1.1 P - 1 = 0 has the root P < 0 as well."""
    P = (-1.1 - np.sqrt(1.1**2 + 40)) / 20
    c = 0.3**2 * P / (2 * 0.1)
    return lambda x: -0.5 * P * x[..., 0] ** 2 - c, lambda x: -10 * P * x


def test_the_wrong_riccati_root_differs_though_its_residual_is_zero() -> None:
    value, _ = wrong_riccati_root()
    verdict = check("lqr", Candidate(value))
    assert verdict.status == "differ", verdict
    assert verdict.residual is not None and verdict.residual < 1e-6
    assert any("drives the state out" in reason for reason in verdict.reasons)


def test_the_policy_of_the_wrong_root_drives_the_state_out() -> None:
    verdict = check("lqr", Candidate(control=wrong_riccati_root()[1]))
    assert verdict.status == "differ", verdict
    assert verdict.details["paths_leaving"] > 0.9
    assert verdict.details["paths_leaving_reference"] < 0.1


@every_case
def test_nothing_agrees_when_the_bar_exceeds_the_tolerance(case: str) -> None:
    k = known(case)
    bar = check(case, Candidate(k.value, k.control, k.gradient)).reference_error
    for candidate in (
        Candidate(k.value, k.control, k.gradient),
        Candidate(control=k.control),
    ):
        verdict = check(case, candidate, tolerance=bar / 2)
        assert verdict.status != "agree", verdict


def test_a_coarse_reference_is_inconclusive_where_a_fine_one_agrees() -> None:
    problem = hjb.catalogue.get("manufactured")
    assert problem.exact is not None
    exact = Candidate(problem.exact.value, problem.exact.control)
    coarse = hjb.solve(problem, 17)
    assert cross_check(exact, coarse, tolerance=1e-4).status == "inconclusive"
    refined = cross_check(exact, problem, tolerance=1e-4)
    assert refined.status == "agree", refined
    assert refined.details["grid"][0] >= 801


def test_a_problem_without_its_exact_answer_gets_the_same_verdict() -> None:
    problem = hjb.catalogue.get("manufactured", boundary=None)
    assert problem.exact is not None
    candidate = Candidate(problem.exact.value)
    full = cross_check(candidate, problem)
    stripped = cross_check(candidate, replace(problem, exact=None))
    assert full.to_dict() == stripped.to_dict()


@pytest.mark.parametrize("broken", ["value", "control", "gradient"])
def test_a_nan_differs_and_is_located(broken: str) -> None:
    k = known("manufactured")
    functions = {"value": k.value, "control": k.control, "gradient": k.gradient}
    good = functions[broken]

    def bad(x: Any) -> Any:
        out = np.array(good(x))
        out[x[..., 0] > 1.0] = np.nan
        return out

    verdict = check("manufactured", Candidate(**{**functions, broken: bad}))
    assert verdict.status == "differ", verdict
    assert f"{broken} is not finite" in verdict.reasons[0]
    assert verdict.where is not None and verdict.where[0] > 1.0


def test_controls_are_projected_and_the_projection_is_shown() -> None:
    k = known("merton")
    verdict = check("merton", Candidate(k.value, lambda x: k.control(x) + [9.0, 0.0]))
    assert verdict.status == "differ", verdict
    assert verdict.details["projected_control"] > 7.0


def test_a_policy_is_projected_where_nothing_may_leave() -> None:
    # Only the lower wall forbids a = -1, where resting is best: nothing is lost.
    def rest(x: Any) -> Any:
        return -np.sign(x)

    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: -x[..., 0],
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([0.0], [1.0]),
        discount=1.0,
        boundary=hjb.StateConstraint(),
    )
    reference = hjb.solve(problem, 101)
    outward = cross_check(Candidate(control=lambda x: -1.0 + 0.0 * x), reference)
    resting = cross_check(Candidate(control=rest), reference)
    assert outward.status == resting.status == "agree", outward
    assert outward.details["projected_control"] == pytest.approx(1.0)
    assert resting.details["projected_control"] == 0.0
    assert outward.regret == pytest.approx(resting.regret, abs=1e-12)


def test_the_seed_fixes_the_verdict() -> None:
    k = known("manufactured")
    runs = [check("manufactured", Candidate(k.value), seed=3) for _ in range(2)]
    assert runs[0].to_dict() == runs[1].to_dict()


def test_a_solution_is_judged_on_its_own_region() -> None:
    problem = hjb.catalogue.get("lqr")
    verdict = cross_check(hjb.solve(problem, 101), known("lqr").reference)
    assert verdict.status == "agree", verdict
    assert np.allclose(verdict.region.high, 1.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda k: Candidate(), "nothing to judge"),
        (lambda k: Candidate(value=3.0), "must be a function"),  # type: ignore[arg-type]
        (lambda k: check("lqr", Candidate(k.value), tolerance=0.0), "tolerance"),
        (lambda k: check("lqr", Candidate(lambda x: x)), "value returned shape"),
        (lambda k: check("lqr", "no"), "candidate is a str"),
        (lambda k: cross_check(Candidate(k.value), "no"), "reference is a str"),
        (
            lambda k: check("lqr", Candidate(k.value), region=hjb.Box([-9.0], [9.0])),
            "outside the domain",
        ),
    ],
)
def test_bad_input_says_what_and_what_to_do(make: Any, message: str) -> None:
    with pytest.raises(hjb.ProblemError, match=message):
        make(known("lqr"))


def test_verification_imports_without_torch() -> None:
    code = (
        "import sys, verification\n"
        "assert not {'torch', 'neural', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "cross_check" in verification.__all__


@dataclass(frozen=True)
class WithoutBar:
    """The Solution protocol alone: a reference that knows no error of its own."""

    solution: hjb.GridSolution

    @property
    def problem(self) -> hjb.ControlProblem | None:
        return self.solution.problem

    @property
    def region(self) -> hjb.Box:
        return self.solution.region

    @property
    def report(self) -> hjb.Report:
        return self.solution.report

    def value_at(self, x: Any) -> Any:
        return self.solution.value_at(x)

    def gradient_at(self, x: Any) -> Any:
        return self.solution.gradient_at(x)

    def control_at(self, x: Any) -> Any:
        return self.solution.control_at(x)


def test_a_reference_without_a_bar_can_neither_confirm_nor_refute_a_value() -> None:
    k = known("lqr")
    reference = WithoutBar(k.reference)
    right = cross_check(Candidate(k.value, k.control), reference)
    assert right.status == "inconclusive" and "no error bar" in right.reasons[0]
    shifted = Candidate(lambda x: k.value(x) + k.scale, k.control)
    assert cross_check(shifted, reference).status == "inconclusive"
    flipped = cross_check(Candidate(k.value, lambda x: -k.control(x)), reference)
    assert flipped.status == "differ", flipped


@pytest.mark.parametrize("candidate", ["protocol", "solution"])
def test_a_solution_read_through_the_protocol_gets_the_same_verdict(
    candidate: str,
) -> None:
    solution = hjb.solve(hjb.catalogue.get("lqr"), 101)
    judged = solution if candidate == "solution" else WithoutBar(solution)
    verdict = check("lqr", judged)
    assert verdict.to_dict() == check("lqr", solution).to_dict()


@pytest.mark.slow
@settings(max_examples=15)
@given(share=st.floats(-3.0, 3.0).filter(lambda share: abs(abs(share) - 1) > 1e-3))
def test_a_shift_agrees_up_to_the_tolerance_and_differs_beyond(share: float) -> None:
    k = known("lqr")
    shift = share * TOLERANCE * k.scale
    verdict = check("lqr", Candidate(lambda x: k.value(x) + shift, k.control))
    assert verdict.status == ("agree" if abs(share) < 1 else "differ"), verdict
