"""Verdicts on games with a horizon: best replies in time, kinks, tubes, Air3D.

Kind: exact (Riccati flows of best replies, distances), agreement of a solution with
itself, contract.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hjbpde as hjb
from verification import Candidate, cross_check

T, RHO, SIGMA = 0.5, 0.3, 0.4


def flow(rate: Any) -> Any:
    """V = P x^2 + c with P' = rate(P) - rho P, c' = sigma^2 P - rho c back in time."""

    def back(_: float, y: Any) -> Any:
        return [rate(y[0]) - RHO * y[0], SIGMA**2 * y[0] - RHO * y[1]]

    found = solve_ivp(
        back, (0, T), [0.5, 0.0], rtol=1e-11, atol=1e-13, dense_output=True
    )
    assert found.sol is not None

    def value(x: Any, t: float) -> Any:
        P, c = found.sol(T - t)
        return P * x[..., 0] ** 2 + c

    return value


@cache
def quadratic() -> Any:
    """dX = (-X/5 + a + b) dt + sigma dW, cost x^2 + a^2 - 4 b^2, x^2/2 at the end."""
    free = hjb.Box(-np.inf, np.inf)
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: -0.2 * x + a + b,
        diffusion=SIGMA,
        cost=lambda x, a, b: (x**2 + a**2 - 4.0 * b**2)[..., 0],
        controls=free,
        adversary=free,
        domain=hjb.Box(-2.0, 2.0),
        discount=RHO,
        horizon=T,
        terminal=lambda x: 0.5 * x[..., 0] ** 2,
    )
    return hjb.solve(problem, 65, times=np.linspace(0, T, 9))


SADDLE = flow(lambda P: 1 - 0.4 * P - 0.75 * P**2)


def test_strategies_in_time_are_charged_what_best_replies_gain() -> None:
    """Against a = -k x the adversary plays b = P x/4, against b = m x a = -P x."""
    k, m = 1.4, 0.3
    own = flow(lambda P: 1 + k**2 - 2 * (0.2 + k) * P + P**2 / 4)
    other = flow(lambda P: 1 - 4 * m**2 + 2 * (m - 0.2) * P - P**2)
    reference = quadratic()
    candidate = Candidate(SADDLE, lambda x: -k * x, adversary=lambda x: m * x)
    verdict = cross_check(
        candidate, reference, region=reference.problem.domain, tolerance=2e-2
    )
    assert verdict.status == "differ", verdict
    assert verdict.evidence is not None
    x = verdict.evidence.axes[0][:, None]
    # The faces are 2.5 standard deviations off: what is cut there does not count.
    inner = np.abs(x[:, 0]) <= 1.0
    for piece in verdict.evidence.slices:
        t = piece.time
        wanted = own(x, t) - SADDLE(x, t), SADDLE(x, t) - other(x, t)
        for found, exact, name in (
            (piece.regret, wanted[0], "regret_bar"),
            (piece.adversary_regret, wanted[1], "adversary_regret_bar"),
        ):
            assert found is not None and (found >= 0).all()
            bar = verdict.details[name] * verdict.scale
            assert np.abs(found - exact)[inner].max() <= 1.5 * bar


def test_the_strategies_of_a_solution_in_time_lose_nothing(tmp_path: Path) -> None:
    verdict = cross_check(quadratic(), quadratic(), tolerance=3e-2)
    assert verdict.status == "agree", verdict
    page = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "Time by time" in page and "of the adversary</th>" in page
    for side in ("", "adversary_"):
        assert getattr(verdict, f"{side}regret") <= 1e-3


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))]
)
def test_replies_to_every_choice_in_time_lose_nothing(seed: int) -> None:
    """a'K(t) b couples the players, noise and payoff drawn at random."""
    rng = np.random.default_rng(seed)
    K, points, wave = rng.uniform(-1, 1), rng.uniform(-1, 1, (2, 3, 1)), rng.random()
    sense = "reward" if seed % 2 else "cost"

    def payoff(x: Any, a: Any, b: Any, t: float) -> Any:
        own = np.sin(x + wave) - 0.3 * a**2 + 0.3 * b**2 + K * (1 + t) * a * b
        return own[..., 0]

    problem = hjb.ControlProblem(
        drift=lambda x, a, b: -0.3 * x + 0.8 * a + 0.5 * b,
        diffusion=rng.uniform(0.3, 0.6),
        **{sense: payoff},
        controls=hjb.Finite(points[0]),
        adversary=hjb.Finite(points[1]),
        domain=hjb.Box(-1.5, 1.5),
        discount=0.3,
        horizon=0.5,
        terminal=lambda x: np.cos(x[..., 0]),
        boundary=hjb.Reflecting(),
    )
    reference = hjb.solve(problem, 33, times=np.linspace(0, 0.5, 5))
    verdict = cross_check(reference, reference, times=[0.0], tolerance=3e-2)
    assert verdict.details["adversary_answers"]
    assert verdict.status != "differ", verdict
    for side in ("", "adversary_"):
        bar = verdict.details[f"{side}regret_bar"]
        assert getattr(verdict, f"{side}regret") <= 2 * bar + 1e-3


# --- values with kinks and flat parts ------------------------------------------------


@cache
def approach(tube: bool) -> Any:
    """x' = 2 a - b towards 0 at cost |x(T)|, or the reverse with a tube around 0.

    Either way V = max(|x| - (T - t), 0): flat where the faster player is sure of 0.
    """
    box, drift = hjb.Box(-1.0, 1.0), lambda x, a, b: 2 * a - b
    more: dict[str, Any] = {"cost": lambda x, a, b: 0 * x[..., 0]}
    if tube:
        drift = lambda x, a, b: a - 2 * b  # noqa: E731
        more = {"reward": lambda x, a, b: 0 * x[..., 0]}
        more["stop"] = hjb.Stop(lambda x: np.abs(x[..., 0]), by="adversary")
    problem = hjb.ControlProblem(
        drift=drift,
        controls=box,
        adversary=box,
        domain=hjb.Box(-2.0, 2.0),
        horizon=T,
        terminal=lambda x: np.abs(x[..., 0]),
        **more,
    )
    return hjb.solve(problem, 161)


def distance(x: Any, t: float) -> Any:
    return np.maximum(np.abs(x[..., 0]) - (T - t), 0.0)


@pytest.mark.parametrize("tube", [False, True])
def test_ties_are_not_charged(tube: bool) -> None:
    """On the flat part every control is greedy; the right value must not pay for it."""
    verdict = cross_check(Candidate(distance), approach(tube), tolerance=5e-2)
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None and verdict.regret <= 1e-2
    assert verdict.adversary_regret is not None and verdict.adversary_regret <= 2e-2


@pytest.mark.parametrize("n", [40, 41, 80])
def test_kinks_that_a_coarse_grid_smears_do_not_accuse_the_right_value(n: int) -> None:
    """One player: x' = a towards 0, the same V; its kinks move through the cells."""
    alone = replace(
        approach(False).problem,
        drift=lambda x, a: a,
        cost=lambda x, a: 0.0 * x[..., 0],
        adversary=None,
    )
    reference = hjb.solve(alone, n)
    right = cross_check(Candidate(distance), reference, tolerance=2e-2)
    assert right.status != "differ", right
    # Where V is flat a candidate may not slope, nor bend the other way at the kinks.
    wrong = Candidate(lambda x, t: np.minimum(distance(x, t), 0.5 * np.abs(x[..., 0])))
    assert cross_check(wrong, reference, tolerance=2e-2).status == "differ"


@pytest.mark.parametrize("tube", [False, True])
def test_a_faster_player_who_rests_loses(tube: bool) -> None:
    """The other then moves alone for T; in the tube the least distance is today's."""
    rest = {"adversary" if tube else "control": lambda x: 0.0 * x}
    verdict = cross_check(Candidate(distance, **rest), approach(tube), tolerance=5e-2)
    assert verdict.status == "differ", verdict
    who = "adversary" if tube else "controller"
    assert f"the {who}'s strategy loses" in verdict.reasons[0]
    loss = verdict.adversary_regret if tube else verdict.regret
    # V + 2 T of costs where V is no longer flat, and T of the tube's distance.
    assert loss is not None
    wanted = T if tube else 2 * T
    assert loss * verdict.scale == pytest.approx(wanted, rel=0.05)


@pytest.mark.slow
def test_air3d_is_judged() -> None:
    problem = hjb.catalogue.get("air3d", horizon=0.6)
    reference = hjb.solve(problem, (26, 21, 20), times=[0.0, 0.3, 0.6])
    right = cross_check(reference, reference, times=[0.0], tolerance=0.1)
    # At its kinks the reference may not know itself so well: then it must say so.
    honest = "agree" if right.reference_error <= 0.1 else "inconclusive"
    assert right.status == honest, right
    assert right.value_error == 0.0
    assert right.regret is not None and right.regret < 0.1
    assert right.adversary_regret is not None and right.adversary_regret < 0.1
    # A pursuer who never turns lets the evader go.
    straight = Candidate(reference.value_at, adversary=lambda x: 0.0 * x[..., :1])
    wrong = cross_check(straight, reference, times=[0.0], tolerance=0.1)
    assert wrong.adversary_regret is not None
    assert wrong.adversary_regret > 2 * right.adversary_regret


def test_a_solution_of_a_game_in_time_answers_for_both_players() -> None:
    solution = quadratic()
    x = np.array([[0.3], [-0.7]])
    now = solution.at(0.25)
    assert isinstance(now, hjb.StationaryGameSolution)
    # b = V_x/8 and a = -V_x/2 at every time.
    for t in (0.25, 0.2):
        a, b = solution.control_at(x, t), solution.adversary_control_at(x, t)
        np.testing.assert_allclose(b, -a / 4.0, atol=1e-6)
    near = np.abs(solution.times - 0.2).argmin()
    np.testing.assert_array_equal(
        solution.at(0.2).adversary_control, solution.adversary_control[near]
    )
