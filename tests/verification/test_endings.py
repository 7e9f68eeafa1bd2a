"""Verdicts where the process ends: at an exit, at a horizon, or by being stopped.

Kind: exact (closed forms as candidates), law, contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from verification import Candidate, Verdict, cross_check

TOLERANCE = 1e-2
RATE, SIGMA, STRIKE = 0.05, 0.3, 1.0


def between(**fields: Any) -> hjb.ControlProblem:
    """Brownian motion with a push on [-1, 1] that ends at both ends, no discount.

    ``min_a { 1 + a^2 / 2 + a V' + V'' / 2 } = 0`` and V(+-1) = 0: ``u = exp(-V)``
    solves ``u'' = 2 u`` with u(+-1) = 1 (Hopf and Cole), and ``a = -V'``.
    """
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=1.0,
        cost=lambda x, a: 1.0 + 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-5.0], [5.0]),
        domain=hjb.Box([-1.2], [1.2]),
        exit=hjb.Exit(lambda x: 1.0 - abs(x[..., 0])),
        boundary=hjb.Reflecting(),
        name="between",
        **fields,
    )


ROOT = np.sqrt(2.0)


def cost_to_leave(x: Any) -> Any:
    return np.log(np.cosh(ROOT)) - np.log(np.cosh(ROOT * x[..., 0]))


def push(x: Any) -> Any:
    return ROOT * np.tanh(ROOT * x)


def perpetual(x: Any) -> Any:
    """McKean (1965): K - S below S*, (K - S*) (S / S*)^(-gamma) above."""
    gamma = 2 * RATE / SIGMA**2
    edge = STRIKE * gamma / (1 + gamma)
    S = np.exp(x[..., 0])
    return np.where(S <= edge, STRIKE - S, (STRIKE - edge) * (S / edge) ** -gamma)


def stop_below(edge: float) -> Callable[[Any], Any]:
    return lambda x: x[..., 0] <= edge


EDGE = float(np.log(2 * RATE / SIGMA**2 / (1 + 2 * RATE / SIGMA**2)))


def perpetual_put() -> hjb.ControlProblem:
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + (RATE - 0.5 * SIGMA**2),
        diffusion=SIGMA,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([-2.0], [2.0]),
        discount=RATE,
        stop=lambda x: STRIKE - np.exp(x[..., 0]),
        boundary=hjb.Dirichlet(perpetual),
        name="perpetual put",
    )


@dataclass(frozen=True)
class Known:
    """A reference and the exact functions; `early` are points close to its end."""

    reference: hjb.GridSolution
    exact: Candidate
    near_the_end: Callable[..., Any]


@cache
def known(case: str) -> Known:
    if case == "exit":
        solution = hjb.solve(between(), 481)
        exact = Candidate(cost_to_leave, push)
        return Known(solution, exact, lambda x: abs(x[..., 0]) > 0.9)
    if case == "ball":
        problem = hjb.catalogue.get("unit-ball")
        shown = problem.exact
        assert shown is not None
        exact = Candidate(shown.value, shown.control, shown.gradient)
        solution = hjb.solve(replace(problem, exact=None))
        return Known(solution, exact, lambda x: (x**2).sum(-1) > 0.8)
    if case == "horizon":
        problem = hjb.catalogue.get("liquidation")
        shown, end = problem.exact, problem.horizon
        assert shown is not None and end is not None
        exact = Candidate(shown.value, shown.control, shown.gradient)
        solution = hjb.solve(replace(problem, exact=None), 801)
        late = 0.7 * end
        return Known(solution, exact, lambda x, t: (x[..., 0] > 0.5) & (t > late))
    solution = hjb.solve(perpetual_put(), 801)
    exact = Candidate(perpetual, stop=stop_below(EDGE))
    return Known(solution, exact, lambda x: abs(x[..., 0] - EDGE) < 0.1)


def check(case: str, **changes: Any) -> Verdict:
    k = known(case)
    return cross_check(replace(k.exact, **changes), k.reference)


CASES = ("exit", "ball", "horizon", "stop")
every_case = pytest.mark.parametrize("case", CASES)


def scaled(function: Callable[..., Any], by: float) -> Callable[..., Any]:
    """`by` times a function of x or of (x, t)."""
    return in_terms_of(function, lambda found, *_: by * found)


def in_terms_of(
    function: Callable[..., Any], change: Callable[..., Any]
) -> Callable[..., Any]:
    """``change(function(x, t), x, t)``, naming t where the function does."""
    if "t" in function.__code__.co_varnames:
        return lambda x, t: change(function(x, t=t), x, t)
    return lambda x: change(function(x), x)


@every_case
def test_the_exact_answer_agrees(case: str) -> None:
    verdict = check(case)
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and 0.0 <= verdict.regret < TOLERANCE
    assert verdict.details["residual_rms"] < TOLERANCE


@every_case
def test_a_value_off_by_three_percent_differs(case: str) -> None:
    value = known(case).exact.value
    assert value is not None
    verdict = check(case, value=scaled(value, 1.03), gradient=None)
    assert verdict.status == "differ", verdict
    assert verdict.value_error == pytest.approx(0.03, rel=0.3)


@pytest.mark.parametrize("case", ["exit", "ball", "horizon"])
@pytest.mark.parametrize("by", [-1.0, 0.0, 1.6])
def test_a_wrong_policy_with_the_right_value_differs(case: str, by: float) -> None:
    control = known(case).exact.control
    assert control is not None
    verdict = check(case, control=scaled(control, by))
    assert verdict.status == "differ", verdict
    assert verdict.regret is not None and verdict.regret > 2 * TOLERANCE
    assert verdict.value_error is not None and verdict.value_error < TOLERANCE


@every_case
def test_a_value_wrong_only_near_its_end_differs(case: str) -> None:
    k = known(case)
    assert k.exact.value is not None

    def change(found: Any, *at: Any) -> Any:
        return np.where(k.near_the_end(*at), 1.15 * found, found)

    bumped = in_terms_of(k.exact.value, change)
    verdict = check(case, value=bumped)
    assert verdict.status == "differ", verdict
    assert verdict.where is not None
    at = () if verdict.time is None else (verdict.time,)
    assert k.near_the_end(verdict.where, *at)


@every_case
def test_a_nan_near_the_end_differs(case: str) -> None:
    k = known(case)
    assert k.exact.value is not None

    def change(found: Any, *at: Any) -> Any:
        return np.where(k.near_the_end(*at), np.nan, found)

    verdict = check(case, value=in_terms_of(k.exact.value, change))
    assert verdict.status == "differ" and "value is not finite" in verdict.reasons[0]


@every_case
@pytest.mark.parametrize("n", [13, 25])
def test_a_reference_too_coarse_is_inconclusive(case: str, n: int) -> None:
    k = known(case)
    problem = k.reference.problem
    assert problem is not None
    shape = (n,) * problem.dimension
    tolerance = 1e-13 if case == "ball" else 1e-3
    verdict = cross_check(k.exact, hjb.solve(problem, shape), tolerance=tolerance)
    assert verdict.status == "inconclusive", verdict


@pytest.mark.parametrize("shift", [-0.3, -0.15, 0.15, 0.3])
def test_stopping_too_early_or_too_late_differs(shift: float) -> None:
    verdict = check("stop", stop=stop_below(EDGE + shift))
    assert verdict.regret is not None and verdict.regret > TOLERANCE
    assert verdict.status == "differ", verdict


@pytest.mark.parametrize("seed", range(4))
@every_case
def test_no_policy_has_a_negative_regret(case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, by = known(case), rng.uniform(0.0, 2.0)
    if case == "stop":
        verdict = check(case, stop=stop_below(EDGE + rng.uniform(-0.5, 0.5)))
    else:
        assert k.exact.control is not None
        verdict = check(case, control=scaled(k.exact.control, by))
    assert verdict.regret is not None and verdict.regret >= 0.0
