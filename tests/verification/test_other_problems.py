"""Verdicts on other kinds of problems: kinks, finite sets, periodic axes, 3-D.

Kind: exact where a formula is at hand, agreement with a finer grid elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from verification import Candidate, cross_check


def distance() -> hjb.ControlProblem:
    """Exit time from (-1, 1) at unit speed: V = (1 - exp(-rho (1 - |x|))) / rho."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        discount=0.1,
        boundary=hjb.Dirichlet(0.0),
        name="distance",
    )


def exit_cost(x: Any) -> Any:
    return (1 - np.exp(-0.1 * (1 - np.abs(x[..., 0])))) / 0.1


def test_the_viscosity_solution_agrees_across_its_kink() -> None:
    verdict = cross_check(Candidate(exit_cost), hjb.solve(distance(), 401))
    assert verdict.status == "agree", verdict
    assert verdict.details["kinks"] == 1


def test_a_solution_with_a_kink_of_the_wrong_sign_differs() -> None:
    def value(x: Any) -> Any:
        # Zero residual almost everywhere: the cost to reach 0 near the kink.
        inner = (1 - np.exp(-0.1 * np.abs(x[..., 0]))) / 0.1
        return np.where(np.abs(x[..., 0]) < 0.5, inner, exit_cost(x))

    verdict = cross_check(Candidate(value), hjb.solve(distance(), 401))
    assert verdict.status == "differ", verdict
    assert any("bends the wrong way" in reason for reason in verdict.reasons)


def bang_bang() -> hjb.ControlProblem:
    """Three thrusts, a cost of fuel, noise and artificial faces."""
    return hjb.ControlProblem(
        drift=lambda x, a: -0.5 * x + a,
        diffusion=0.3,
        cost=lambda x, a: x[..., 0] ** 2 + 0.05 * abs(a[..., 0]),
        controls=hjb.Finite([-1.0, 0.0, 1.0]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=0.5,
        name="bang-bang",
    )


def test_a_finite_control_set_with_a_cost_is_judged() -> None:
    reference, finer = (hjb.solve(bang_bang(), n) for n in (201, 801))
    assert cross_check(finer, reference).status == "agree"
    pushed = Candidate(control=lambda x: np.sign(x))
    verdict = cross_check(pushed, reference)
    assert verdict.status == "differ" and verdict.regret is not None
    assert verdict.regret > 1.0
    idle = cross_check(Candidate(control=lambda x: 0.0 * x), reference)
    assert idle.status == "differ" and idle.regret is not None
    assert 0.0 < idle.regret < verdict.regret


def test_a_periodic_axis_is_judged() -> None:
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.6,
        reward=lambda x, a: hjb.namespace(x).cos(x[..., 0]) - 0.25 * a[..., 0] ** 2,
        controls=hjb.Box([-3.0], [3.0]),
        domain=hjb.Box([0.0], [2 * np.pi], periodic=(True,)),
        discount=0.3,
    )
    reference, finer = hjb.solve(problem, 256), hjb.solve(problem, 512)
    assert cross_check(Candidate(finer.value_at), reference).status == "agree"
    flipped = Candidate(finer.value_at, lambda x: -finer.control_at(x))
    assert cross_check(flipped, reference).status == "differ"


def test_a_problem_without_controls_is_judged() -> None:
    free = hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=0.3,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box([-2.0], [2.0]),
        discount=0.5,
    )
    # rho V = x - x V' has the solution V = x / (rho + 1).
    verdict = cross_check(Candidate(lambda x: x[..., 0] / 1.5), hjb.solve(free, 101))
    assert verdict.status == "agree" and verdict.regret is None


def test_a_value_of_zero_agrees_with_zero() -> None:
    nothing = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.3,
        cost=lambda x, a: a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=0.5,
    )
    zero = cross_check(Candidate(lambda x: 0.0 * x[..., 0]), hjb.solve(nothing, 101))
    assert zero.status == "agree", zero


@pytest.mark.slow
def test_three_dimensions_are_judged() -> None:
    problem = hjb.catalogue.get("manufactured", dimension=3)
    exact = problem.exact
    assert exact is not None and exact.control is not None
    control, reference = exact.control, hjb.solve(problem, (49, 49, 49))
    good = cross_check(Candidate(exact.value, control), reference, tolerance=2e-2)
    assert good.status == "agree", good
    flipped = Candidate(exact.value, lambda x: -control(x))
    assert cross_check(flipped, reference).status == "differ"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "shape"),
    [
        ("lqr", {"dimension": 2}, (61, 61)),
        ("lqr", {"alpha": 0.5}, None),
        ("manufactured", {"dimension": 2, "boundary": None}, (61, 61)),
        ("manufactured", {"sigma": 0.1}, None),
        ("merton", {}, None),
        ("merton", {"axis": "wealth"}, None),
        ("merton", {"boundary": None}, None),
    ],
)
def test_every_catalogue_problem_gets_its_verdicts(
    name: str, parameters: dict[str, Any], shape: tuple[int, ...] | None
) -> None:
    problem = hjb.catalogue.get(name, **parameters)
    exact, reference = problem.exact, hjb.solve(problem, shape)
    assert exact is not None and exact.control is not None
    V, control, width = exact.value, exact.control, reference.region.width
    right = cross_check(Candidate(V, control, exact.gradient), reference)
    assert right.status == "agree", right
    e = 1e-2 * right.scale
    rng = np.random.default_rng(0)
    for _ in range(4):
        wave = rng.normal(size=problem.dimension)
        wave *= 2 * np.pi / np.linalg.norm(wave) / width
        phase = rng.uniform(0, 2 * np.pi)

        def smooth(x: Any, wave: Any = wave, phase: float = phase) -> Any:
            return V(x) + 0.5 * e * np.sin(x @ wave + phase)

        verdict = cross_check(Candidate(smooth), reference)
        assert verdict.status == "agree", verdict
    fast = 24 * np.pi / width[0]
    for wrong in (
        Candidate(lambda x: V(x) - 3 * e, control),
        Candidate(lambda x: V(x) + 0.3 * e * np.sin(fast * x[..., 0]), control),
        Candidate(V, lambda x: -control(x)),
        Candidate(V, lambda x: 1.5 * control(x)),
        Candidate(lambda x: 1.05 * V(x)),
    ):
        verdict = cross_check(wrong, reference)
        assert verdict.status == "differ", verdict
