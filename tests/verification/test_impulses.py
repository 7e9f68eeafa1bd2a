"""Verdicts on problems whose state may be moved at once, at a cost.

Kind: exact (bands whose values solve two linear equations, smooth fit), agreement of a
solution with itself on problems drawn at random, contract.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.fixed_moves import follow_moves
from verification import Candidate, cross_check
from verification.strategy import OPERATOR

RHO, SIGMA, FIXED, SLOPE = 0.5, 1.0, 1.0, 0.5
TRUST = 1.5
"""Bars within which a first-order regret must be right."""


@cache
def cash() -> Any:
    return hjb.solve(hjb.catalogue.get("cash-management"))


def exact() -> Any:
    return cash().problem.exact.value


def bands(d: float, D: float, U: float, u: float) -> tuple[Any, Any]:
    """Value and moves of: from d or below to D, from u or above to U, d < D, U < u.

    Between d and u the value is x^2/rho + sigma^2/rho^2 + A e^{lam x} + B e^{-lam x}
    with lam = sqrt(2 rho)/sigma; V(d) = V(D) + cost and V(u) = V(U) + cost are two
    linear equations for A and B. No smooth fit: the bands need not be good ones.
    """
    lam = np.sqrt(2 * RHO) / SIGMA

    def free(x: Any) -> Any:
        return x**2 / RHO + SIGMA**2 / RHO**2

    def waves(x: Any) -> Any:
        return np.stack([np.exp(lam * x), np.exp(-lam * x)], axis=-1)

    def paid(x: Any, y: Any) -> Any:
        return FIXED + SLOPE * np.abs(x - y)

    edges, ends = np.array([d, u]), np.array([D, U])
    right = free(ends) + paid(edges, ends) - free(edges)
    weights = np.linalg.solve(waves(edges) - waves(ends), right)

    def inner(x: Any) -> Any:
        return free(x) + waves(x) @ weights

    def value(x: Any) -> Any:
        y = x[..., 0]
        low, high = inner(np.array(D)) + paid(y, D), inner(np.array(U)) + paid(y, U)
        return np.where(y <= d, low, np.where(y >= u, high, inner(np.clip(y, d, u))))

    def move(x: Any) -> Any:
        return np.where(x <= d, D, np.where(x >= u, U, np.nan))

    return value, move


def test_the_smooth_fit_solution_agrees_with_the_moves_of_its_value() -> None:
    verdict = cross_check(Candidate(exact()), cash())
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and verdict.regret < 1e-9
    # It is a sum of squares and a cosh up to b, where V'' jumps: away from b nothing.
    assert verdict.residual is not None and verdict.residual < 0.05
    itself = cross_check(cash(), cash())
    assert itself.status == "agree" and itself.regret == pytest.approx(0, abs=1e-9)


def test_a_coarser_solution_agrees_with_its_own_moves() -> None:
    coarse = hjb.solve(cash().problem, 101)
    verdict = cross_check(coarse, cash())
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and 0 < verdict.regret < 1e-2


@pytest.mark.parametrize(
    ("d", "D", "U", "u"),
    [
        (-1.5, -0.5, 0.5, 1.5),
        (-2.5, 0.0, 0.0, 2.5),
        (-1.2, 0.3, 0.1, 2.2),
        (-2.04, -0.9, 1.5, 1.76),
    ],
)
def test_bands_lose_what_their_linear_equations_say(
    d: float, D: float, U: float, u: float
) -> None:
    value, move = bands(d, D, U, u)
    verdict = cross_check(Candidate(move=move), cash())
    assert verdict.status == "differ" and "policy loses" in verdict.reasons[0]
    assert verdict.evidence is not None and verdict.regret is not None
    x = verdict.evidence.axes[0][:, None]
    wanted = value(x) - exact()(x)
    lost = verdict.evidence.slices[0].regret
    bar = verdict.details["regret_bar"] * verdict.scale
    assert lost is not None and np.abs(lost - wanted).max() <= TRUST * bar
    assert verdict.regret * verdict.scale == pytest.approx(
        wanted.max(), abs=TRUST * bar
    )
    assert bar < 0.5 * wanted.max()


def test_the_value_of_wrong_bands_is_no_value_though_its_policys_own() -> None:
    """It is what its bands are worth, but neither the best nor a solution."""
    value, move = bands(-1.5, -0.5, 0.5, 1.5)
    verdict = cross_check(Candidate(value, move=move), cash())
    assert verdict.status == "differ" and "value off" in verdict.reasons[0]
    x = np.linspace(-3, 3, 2001)[:, None]
    wanted = np.abs(value(x) - exact()(x)).max() / verdict.scale
    assert verdict.value_error == pytest.approx(wanted, rel=1e-3)
    assert verdict.residual is not None and verdict.residual > 0.05


def drawn(seed: int) -> Any:
    """Cash management with parameters drawn at random."""
    rng = np.random.default_rng(seed)
    return hjb.catalogue.get(
        "cash-management",
        discount=rng.uniform(0.2, 1.0),
        sigma=rng.uniform(0.5, 1.5),
        fixed=np.exp(rng.uniform(-3.0, 0.7)),
        proportional=rng.uniform(0.0, 0.8),
        half_width=5.0,
    )


@pytest.mark.parametrize("seed", range(6))
def test_smooth_fit_solutions_drawn_at_random_agree(seed: int) -> None:
    """And the gradient is known to its bar, on coarse grids too."""
    problem = drawn(seed)
    value = problem.exact.value
    for n in (101, 401):
        reference = hjb.solve(problem, n)
        for own in (value, reference.value_at):
            verdict = cross_check(Candidate(own), reference)
            assert verdict.status in ("agree", "inconclusive")[: 2 if n == 101 else 1]
        x = reference.region.sample(np.random.default_rng(seed), 400)
        slope = (value(x + 1e-5) - value(x - 1e-5)) / 2e-5
        error = np.abs(reference.gradient_at(x)[:, 0] - slope)
        bar = reference.gradient_error_at(x)[:, 0]
        assert np.mean(error <= bar + 1e-9) >= 0.99


@pytest.mark.parametrize("seed", range(8))
def test_small_errors_of_the_value_cost_little(seed: int) -> None:
    """A wave of half the tolerance moves no greedy edge by much."""
    rng = np.random.default_rng(seed)
    wave, shift = rng.uniform(0.5, 6.0), rng.uniform(0, 2 * np.pi)
    value = exact()

    def rough(x: Any) -> Any:
        return value(x) + 0.02 * np.sin(wave * x[..., 0] + shift)

    verdict = cross_check(Candidate(rough), cash())
    assert verdict.value_error is not None and verdict.value_error < 6e-3
    assert verdict.regret is not None and verdict.regret < 1e-2


def test_wrong_values_differ() -> None:
    value = exact()
    steep = cross_check(Candidate(lambda x: 1.03 * value(x)), cash())
    assert steep.status == "differ"
    assert steep.value_error == pytest.approx(0.03, rel=1e-2)
    # Who never moves pays x^2 for ever.
    idle = cross_check(
        Candidate(lambda x: x[..., 0] ** 2 / RHO + SIGMA**2 / RHO**2), cash()
    )
    assert idle.status == "differ"
    lost = cross_check(Candidate(lambda x: np.nan * x[..., 0]), cash())
    assert lost.status == "differ" and "not finite" in lost.reasons[0]


def test_moves_in_a_circle_are_seen() -> None:
    verdict = cross_check(
        Candidate(move=lambda x: -np.sign(x) + 0.5 * (x == 0)), cash()
    )
    assert verdict.status == "differ" and "for ever" in verdict.reasons[0]


def one_way(sign: float = 1.0) -> Any:
    """Drift .4, moves to 0 from above only; a reward where `sign` is -1."""
    pay = "cost" if sign > 0 else "reward"
    payoff = {pay: lambda x, a: sign * x[..., 0] ** 2}
    return hjb.ControlProblem(
        drift=lambda x, a: 0.4 + 0 * x,
        diffusion=SIGMA,
        domain=hjb.Box(-4.0, 4.0),
        boundary=hjb.Reflecting(),
        discount=RHO,
        impulse=hjb.Impulse(
            [[0.0]], lambda x, y: np.where(x[..., 0] > y[..., 0], FIXED, np.inf)
        ),
        **payoff,
    )


def test_a_move_that_is_not_allowed_is_refused() -> None:
    reference = hjb.solve(one_way(), 201)
    policy = Candidate(move=lambda x: np.where(np.abs(x) > 1, 0.0, np.nan))
    with pytest.raises(hjb.ProblemError, match="does not allow that move"):
        cross_check(policy, reference)
    assert cross_check(reference, reference).status == "agree"


def test_rewards_mirror_costs() -> None:
    move = {"move": lambda x: np.where(x > 1.5, 0.0, np.nan)}
    cost = cross_check(Candidate(**move), hjb.solve(one_way(), 201))
    reward = cross_check(Candidate(**move), hjb.solve(one_way(-1.0), 201))
    assert cost.regret == reward.regret and cost.status == reward.status
    value = hjb.solve(one_way(-1.0), 201).value_at
    pair = [
        cross_check(Candidate(v), hjb.solve(one_way(s), 201))
        for s, v in ((1.0, lambda x: -value(x)), (-1.0, value))
    ]
    assert pair[0].residual == pytest.approx(pair[1].residual, rel=1e-9)


def plane(seed: int, ends: bool = False) -> Any:
    """Two states, drifts to choose from, moves drawn at random; an end in a corner."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(-1.0, 1.0, (3, 2))
    weights, pull = rng.uniform(0.5, 2.0, 2), rng.uniform(0.0, 0.4)
    fixed, slope = rng.uniform(0.2, 0.5, 2)
    return hjb.ControlProblem(
        drift=lambda x, a: a - pull * x,
        diffusion=np.diag(rng.uniform(0.5, 0.9, 2)),
        cost=lambda x, a: (weights * x**2).sum(-1) + 0.1 * (a**2).sum(-1),
        controls=hjb.Finite([[0.0, 0.0], [1.0, -1.0], [-1.0, 0.5]]),
        domain=hjb.Box([-2.0, -2.0], [2.0, 2.0]),
        boundary=hjb.Reflecting(),
        discount=0.6,
        exit=hjb.Exit(lambda x: np.abs(x - 2).max(-1) - 0.7, 1.0) if ends else None,
        impulse=hjb.Impulse(
            targets, lambda x, y: fixed + slope * np.abs(x - y).sum(-1)
        ),
    )


@pytest.mark.parametrize("seed", range(3))
def test_planes_drawn_at_random_agree_with_themselves(seed: int) -> None:
    """In two states bars of references with impulses are wide, and verdicts unsure."""
    reference = hjb.solve(plane(seed), (33, 33))
    for own in (reference, Candidate(reference.value_at)):
        verdict = cross_check(own, reference, tolerance=0.05)
        assert verdict.status != "differ", verdict
        assert verdict.regret is not None and verdict.regret < 0.05
    lazy = Candidate(control=lambda x: 0 * x, move=lambda x: np.nan * x)
    assert cross_check(lazy, reference, tolerance=0.05).status == "differ"


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_is_worth_more_than_the_best_on_its_grid(seed: int) -> None:
    problem = plane(seed, ends=True)
    grid = hjb.Grid(problem.domain, (17, 17))
    best = hjb.solve(problem, grid, OPERATOR)
    rng = np.random.default_rng(seed)
    targets = problem.impulse.targets
    for _ in range(5):
        control = problem.controls.points[rng.integers(3, size=grid.shape)]
        target = targets[rng.integers(3, size=grid.shape)]
        target[rng.random(grid.shape) < 0.8] = np.nan
        found = follow_moves(problem, grid, control, target, best.value)
        assert found.value is None or (found.value >= best.value - 1e-8).all()


def test_the_page_shows_the_moves(tmp_path: Path) -> None:
    _, move = bands(-1.5, -0.5, 0.5, 1.5)
    verdict = cross_check(Candidate(exact(), move=move), cash())
    text = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "left alone" in text
    assert verdict.evidence is not None
    piece = verdict.evidence.slices[0]
    assert piece.move is not None and piece.reference_move is not None
    x = verdict.evidence.axes[0]
    np.testing.assert_array_equal(np.isnan(piece.move[:, 0]), np.abs(x) < 1.5)


def test_what_a_candidate_must_and_must_not_say() -> None:
    lqr = hjb.catalogue.get("lqr")
    with pytest.raises(hjb.ProblemError, match="cannot be moved"):
        cross_check(Candidate(lqr.exact.value, move=lambda x: x), lqr)
    with pytest.raises(hjb.ProblemError, match="says where it moves"):
        cross_check(Candidate(control=lambda x: x[..., :0]), cash())
    reference = hjb.solve(plane(0), (17, 17))
    with pytest.raises(hjb.ProblemError, match="move= alone"):
        cross_check(Candidate(move=lambda x: np.nan * x), reference)
