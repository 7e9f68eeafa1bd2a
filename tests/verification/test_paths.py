"""Verdicts without noise and discount: regret along the policy's own paths (exact)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from verification import Candidate, Verdict, cross_check


def leaving() -> hjb.ControlProblem:
    """The time to leave [-1, 1] at unit speed: V = 1 - |x|."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.2], [1.2]),
        exit=hjb.Exit(lambda x: 1.0 - abs(x[..., 0])),
        name="leaving",
    )


@cache
def reference() -> hjb.GridSolution:
    solution = hjb.solve(leaving(), 241)
    assert "sweeping" in solution.report.method
    return solution


def time_left(x: Any) -> Any:
    return 1.0 - np.abs(x[..., 0])


def outwards(x: Any) -> Any:
    return np.where(x >= 0, 1.0, -1.0)


def check(value: Any = time_left, control: Any = outwards) -> Verdict:
    return cross_check(Candidate(value, control), reference(), tolerance=2e-2)


def test_the_time_to_leave_agrees_with_its_policy() -> None:
    verdict = check()
    assert verdict.status == "agree", verdict
    assert verdict.details["kinks"] == 1
    assert verdict.regret is not None and 0.0 <= verdict.regret < 1e-2
    assert check(control=None).status == "agree"


def test_a_policy_that_never_leaves_differs() -> None:
    verdict = check(control=lambda x: -outwards(x))
    assert verdict.status == "differ", verdict
    assert "does not end the process" in verdict.reasons[0]


def test_a_slow_policy_loses_what_it_takes_longer() -> None:
    """At speed 4/5 a quarter is lost, most from 0; beyond .9 the best takes over."""
    verdict = check(control=lambda x: 0.8 * outwards(x))
    assert verdict.status == "differ", verdict
    assert verdict.regret == pytest.approx(0.25 * 0.9, rel=0.05)


def test_a_policy_that_takes_the_longer_way_differs() -> None:
    """From x > 0 to -1: 1 + x instead of 1 - x."""
    verdict = check(control=lambda x: -1.0 + 0.0 * x)
    assert verdict.status == "differ", verdict
    assert verdict.regret is not None and verdict.regret > 0.4


def test_a_wrong_time_differs() -> None:
    verdict = check(lambda x: 1.03 * time_left(x))
    assert verdict.status == "differ" and "value off" in verdict.reasons[0]


def test_a_time_that_bends_the_wrong_way_differs() -> None:
    def value(x: Any) -> Any:
        # |V'| = 1 almost everywhere, and V(+-1) = 0.
        return np.where(np.abs(x[..., 0]) < 0.5, np.abs(x[..., 0]), time_left(x))

    assert check(value).status == "differ"


@pytest.mark.slow
def test_where_no_control_arrives_nothing_is_judged() -> None:
    solution = hjb.solve(hjb.catalogue.get("double-integrator"), (101, 101))
    assert np.isinf(solution.value).any()
    verdict = cross_check(solution, solution)
    assert verdict.status == "inconclusive", verdict
    flipped = Candidate(
        solution.value_at, lambda x: -solution.control_at(x), solution.gradient_at
    )
    assert cross_check(flipped, solution).status == "differ"


@pytest.mark.slow
def test_the_eikonal_equation_is_judged_whole() -> None:
    problem = hjb.catalogue.get("eikonal")
    assert problem.exact is not None
    verdict = cross_check(
        Candidate(problem.exact.value), hjb.solve(problem, (401, 401))
    )
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and verdict.regret < 1e-2
