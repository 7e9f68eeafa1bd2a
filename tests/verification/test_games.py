"""Verdicts on games: both strategies priced by the other side's best reply.

Kind: exact (Riccati equations of best replies, matched coins), agreement of a solution
with itself on games drawn at random, contract.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.players import is_coupled
from verification import Candidate, cross_check


@cache
def robust() -> Any:
    return hjb.solve(hjb.catalogue.get("robust-lqr"), 201)


def drawn(seed: int, finite: bool, dimension: int = 1) -> hjb.ControlProblem:
    """A random game of reward or cost; of finite sets a'K b couples the players."""
    rng, d = np.random.default_rng([seed, finite, dimension]), dimension
    wave, phase = rng.uniform(0.5, 2.0, d), rng.uniform(0, 6)
    gain, pull = rng.uniform(0.4, 1.2, (2, d))
    K = rng.uniform(-1, 1, (d, d)) * finite
    points = rng.uniform(-1, 1, (2, 3, d))
    sets = [hjb.Finite(p) if finite else hjb.Box([-1.0] * d, [1.0] * d) for p in points]
    sign = 1.0 - 2.0 * (seed % 2)

    def payoff(x: Any, a: Any, b: Any) -> Any:
        own = np.sin(x @ wave + phase) - 0.3 * (a * a).sum(-1)
        return sign * (own + 0.4 * (b * b).sum(-1) + ((a @ K) * b).sum(-1))

    return hjb.ControlProblem(
        drift=lambda x, a, b: -0.3 * x + gain * a + pull * b,
        diffusion=np.diag(rng.uniform(0.3, 0.6, d)),
        **{"reward" if sign > 0 else "cost": payoff},
        controls=sets[0],
        adversary=sets[1],
        domain=hjb.Box([-1.5] * d, [1.5] * d),
        discount=rng.uniform(0.3, 1.0),
        boundary=hjb.Reflecting(),
    )


def assert_nothing_lost(verdict: Any) -> None:
    """Both regrets are within their bars of 0."""
    for side in ("", "adversary_"):
        regret = getattr(verdict, f"{side}regret")
        assert 0.0 <= regret <= verdict.details[f"{side}regret_bar"] + 1e-3


@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_strategies_lose_nothing(seed: int, finite: bool) -> None:
    problem = drawn(seed, finite)
    assert is_coupled(problem) == finite
    solution = hjb.solve(problem, 65)
    verdict = cross_check(solution, solution, tolerance=3e-2)
    assert verdict.status == "agree", verdict
    assert_nothing_lost(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_best_strategies_of_two_states_lose_nothing(seed: int) -> None:
    solution = hjb.solve(drawn(seed, False, 2), (33, 33))
    # So few nodes know the value itself to 5 % of its scale in the corners only.
    verdict = cross_check(solution, solution, tolerance=1e-1)
    assert verdict.status == "agree", verdict
    assert_nothing_lost(verdict)


# --- the robust regulator, whose best replies are Riccati equations -----------------

Q, R, ALPHA, BETA, SIGMA, THETA, RHO = 1.0, 0.5, -0.5, 1.0, 0.5, 4.0, 0.1


def smaller_root(square: float, slope: float, rest: float) -> float:
    """The smaller root of ``square P^2 + slope P + rest = 0``."""
    return (-slope - np.sqrt(slope**2 - 4 * square * rest)) / (2 * square)


def against_control(k: float) -> float:
    """P of the adversary's best reply to a = -k x."""
    slope = 2 * (ALPHA - BETA * k) - RHO
    return smaller_root(SIGMA**2 / THETA, slope, Q + R * k**2)


def against_adversary(m: float) -> float:
    """P of the controller's best reply to b = m x."""
    slope = 2 * (ALPHA + SIGMA * m) - RHO
    return smaller_root(-(BETA**2) / R, slope, Q - THETA * m**2)


def saddle() -> float:
    slope = RHO - 2 * ALPHA
    gain = BETA**2 / R - SIGMA**2 / THETA
    return 2 * Q / (slope + np.sqrt(slope**2 + 4 * gain * Q))


def test_best_replies_to_the_saddle_point_are_worth_its_value() -> None:
    P = saddle()
    assert against_control(BETA * P / R) == pytest.approx(P)
    assert against_adversary(SIGMA * P / THETA) == pytest.approx(P)


@pytest.mark.parametrize(
    ("own", "other"), [(1.3, 1.0), (0.5, 0.5), (1.0, -2.0), (0.0, 1.5)]
)
def test_the_regret_is_that_of_the_best_reply(own: float, other: float) -> None:
    """V^a - V = (P_a - P) (x^2 / 2 + sigma^2 / (2 rho)), the same for V - V^b."""
    P, exact = saddle(), robust().problem.exact
    k, m = own * BETA * P / R, other * SIGMA * P / THETA
    candidate = Candidate(
        exact.value, lambda x: -k * x, exact.gradient, adversary=lambda x: m * x
    )
    verdict = cross_check(candidate, robust(), region=robust().problem.domain)
    size = 0.5 * 2.0**2 + SIGMA**2 / (2 * RHO)
    for who, side, wanted in (
        ("controller", "", size * (against_control(k) - P)),
        ("adversary", "adversary_", size * (P - against_adversary(m))),
    ):
        found = getattr(verdict, f"{side}regret") * verdict.scale
        bar = verdict.details[f"{side}regret_bar"] * verdict.scale
        assert abs(found - wanted) <= 1.5 * bar + 1e-3
        said = any(f"{who}'s strategy loses" in text for text in verdict.reasons)
        assert said == (wanted > 1e-2 * verdict.scale)


def test_a_controller_alone_is_answered_by_the_best_reply(tmp_path: Path) -> None:
    P, reference = saddle(), robust()
    k = 1.3 * BETA * P / R
    verdict = cross_check(
        Candidate(control=lambda x: -k * x), reference, region=reference.problem.domain
    )
    wanted = (0.5 * 2.0**2 + SIGMA**2 / (2 * RHO)) * (against_control(k) - P)
    assert verdict.regret is not None
    off = abs(verdict.regret * verdict.scale - wanted)
    assert off <= 1.5 * verdict.details["regret_bar"] * verdict.scale
    assert verdict.status == "differ" and "the policy loses" in verdict.reasons[0]
    assert verdict.adversary_regret is None
    page = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "Regret of the adversary" not in page
    # Where the reply depends on the choice, it is sought for every choice.
    assert cross_check(Candidate(control=heads), coins()).regret == 0.0


def test_a_policy_that_does_well_against_one_opponent_is_exploited() -> None:
    """The regulator that trusts its model, close to the breakdown of the robust one."""
    problem = hjb.catalogue.get("robust-lqr", theta=0.16)
    reference = hjb.solve(problem, 201)
    exact = problem.exact
    assert exact is not None and exact.value is not None
    trusting = (np.sqrt((RHO - 2 * ALPHA) ** 2 + 8 * Q) - (RHO - 2 * ALPHA)) / 4
    candidate = Candidate(exact.value, lambda x: -trusting / R * x, exact.gradient)
    verdict = cross_check(candidate, reference)
    assert verdict.status == "differ", verdict
    assert "controller's strategy loses" in verdict.reasons[0]
    assert verdict.value_error is not None and verdict.value_error < 1e-2
    assert verdict.adversary_regret is not None and verdict.adversary_regret < 1e-2
    # Against the equilibrium's adversary alone it would have lost less than half.
    assert verdict.regret is not None and verdict.regret > 2e-2


def test_values_that_are_wrong_differ() -> None:
    value = robust().problem.exact.value
    off = cross_check(Candidate(lambda x: 1.03 * value(x)), robust())
    assert off.status == "differ" and "value off" in off.reasons[0]
    # Ripples within the tolerance, as of a network; the strategies follow the slopes.
    rippled = cross_check(
        Candidate(lambda x: value(x) + 4e-3 * np.sin(40 * x[..., 0])), robust()
    )
    assert rippled.status == "differ", rippled
    assert rippled.value_error is not None and rippled.value_error < 1e-2
    assert "gradient off" in rippled.reasons[0]
    assert any("strategy loses" in reason for reason in rippled.reasons)
    assert rippled.residual is not None and rippled.residual > 0.1


# --- the order of play ---------------------------------------------------------------


@cache
def coins() -> Any:
    """One wins where both coins match and who sees the other's coin decides."""
    coin = hjb.Finite([[-1.0], [1.0]])
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: -0.5 * x,
        diffusion=0.4,
        reward=lambda x, a, b: a[..., 0] * b[..., 0],
        controls=coin,
        adversary=coin,
        domain=hjb.Box([-1.0], [1.0]),
        discount=0.5,
        boundary=hjb.Reflecting(),
        scale=2.0,
    )
    return hjb.solve(problem, 33)


def lost(x: Any) -> Any:
    """The adversary sees a and never matches: -1 for ever, discounted by 1/2."""
    return -2.0 + 0.0 * x[..., 0]


def heads(x: Any) -> Any:
    return 1.0 + 0.0 * x


@pytest.mark.parametrize(
    ("adversary", "regret"), [(None, 0.0), (lambda x, a: -a, 0.0), (heads, 2.0)]
)
def test_who_moves_second_may_answer(adversary: Any, regret: float) -> None:
    """b = 1 gives the controller 2 for -2, relative to a scale of 2."""
    verdict = cross_check(Candidate(lost, heads, adversary=adversary), coins())
    assert verdict.adversary_regret == pytest.approx(regret, abs=1e-9)
    assert verdict.regret == pytest.approx(0.0, abs=1e-9)
    assert verdict.status == ("agree" if regret == 0 else "differ"), verdict
    assert verdict.details["adversary_answers"] == (adversary is not heads)
    assert ("blind to" in verdict.reasons[0]) == (adversary is heads)


def test_a_solution_answers_every_choice_where_that_matters() -> None:
    verdict = cross_check(coins(), coins())
    assert verdict.status == "agree" and verdict.adversary_regret == 0.0


# --- endings -------------------------------------------------------------------------


def waiting(**more: Any) -> hjb.ControlProblem:
    """Waiting costs 1 a unit of time while both push; controls are paid for, too."""
    box = hjb.Box(-1.0, 1.0)
    fields: dict[str, Any] = {"boundary": hjb.Reflecting(), **more}
    return hjb.ControlProblem(
        drift=lambda x, a, b: a + 0.5 * b,
        diffusion=0.4,
        reward=lambda x, a, b: (-1.0 - 0.2 * a**2 + 0.2 * b**2)[..., 0],
        controls=box,
        adversary=box,
        domain=hjb.Box(-1.0, 1.0),
        discount=0.2,
        **fields,
    )


def settled(x: Any) -> Any:
    return -(x[..., 0] ** 2)


@pytest.mark.parametrize("horizon", [None, 0.5])
def test_a_stopping_rule_of_a_game_is_charged(horizon: float | None) -> None:
    """Who stops at once loses V - psi, whatever the adversary would have done."""
    ending = {} if horizon is None else {"horizon": horizon, "terminal": settled}
    reference = hjb.solve(waiting(stop=settled, **ending), 81)
    times = {} if horizon is None else {"times": [0.0]}
    right = cross_check(reference, reference, tolerance=5e-2, **times)
    assert right.status == "agree", right
    value = reference.value_at
    always = Candidate(value, stop=lambda x: np.abs(x[..., 0]) <= 1.0)
    verdict = cross_check(always, reference, tolerance=3e-2, **times)
    assert verdict.status == "differ" and verdict.regret is not None
    x = reference.grid.nodes()
    lost = float(np.max(value(x) - settled(x))) / verdict.scale
    assert abs(verdict.regret - lost) <= 2 * verdict.details["regret_bar"]
    assert verdict.adversary_regret == pytest.approx(0.0, abs=5e-3)


def test_a_game_until_an_exit_is_judged() -> None:
    edge = hjb.Exit(lambda x: 0.7 - np.abs(x[..., 0]), 0.0)
    reference = hjb.solve(waiting(exit=edge, boundary=None), 81)
    assert cross_check(reference, reference, tolerance=5e-2).status == "agree"
    idle = Candidate(reference.value_at, lambda x: 0.0 * x)
    verdict = cross_check(idle, reference, tolerance=5e-2)
    assert verdict.status == "differ", verdict
    assert "the controller's strategy loses" in verdict.reasons[0]


def test_paths_of_a_box_against_a_finite_set_use_controls_of_both() -> None:
    """Pairs of a box and a set are no set: between nodes the nearest node's hold."""
    box, pushes = hjb.Box(-1.0, 1.0), hjb.Finite([[-0.3], [0.0], [0.3]])
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: a + b,
        diffusion=0.3,
        cost=lambda x, a, b: (x**2 + a**2 - 0.1 * np.abs(b))[..., 0],
        controls=box,
        adversary=pushes,
        domain=hjb.Box(-1.0, 1.0),
        discount=0.5,
    )
    reference = hjb.solve(problem, 33)
    verdict = cross_check(reference, reference, tolerance=5e-2)
    assert verdict.status != "differ", verdict
    assert verdict.evidence is not None and verdict.evidence.excursion is not None
    a, b = np.moveaxis(verdict.evidence.excursion.shown.controls, -1, 0)
    assert len(np.unique(a)) > 3 and set(np.unique(b)) <= {-0.3, 0.0, 0.3}
    shares = (
        verdict.details["paths_leaving"],
        verdict.details["paths_leaving_reference"],
    )
    assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_a_problem_given_as_reference_is_solved_here() -> None:
    problem = hjb.catalogue.get("robust-lqr")
    assert problem.exact is not None
    assert cross_check(Candidate(problem.exact.value), problem).status == "agree"


# --- contract ------------------------------------------------------------------------


def test_a_torch_module_is_judged_by_both_greedy_strategies() -> None:
    torch = pytest.importorskip("torch")

    class Quadratic(torch.nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

        def forward(self, x: Any) -> Any:
            P = saddle()
            return self.factor * (0.5 * P * (x**2).sum(-1) + SIGMA**2 * P / (2 * RHO))

    assert cross_check(Quadratic(1.0), robust()).status == "agree"
    assert cross_check(Quadratic(1.1), robust()).status == "differ"


def test_the_page_shows_both_players(tmp_path: Path) -> None:
    verdict = cross_check(coins(), coins())
    page = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "Regret of the adversary" in page
    assert verdict.to_dict()["adversary_regret"] == 0.0
    assert "adversary's regret" in str(verdict)
    assert verdict.evidence is not None
    assert verdict.evidence.control_names == ("a_{1}", "b_{1}")
    assert verdict.plot().axes


def test_a_strategy_that_is_not_finite_differs() -> None:
    candidate = Candidate(lost, heads, adversary=lambda x: np.nan * x)
    verdict = cross_check(candidate, coins())
    assert verdict.status == "differ"
    assert "the adversary's control is not finite" in verdict.reasons[0]


def test_what_no_game_asks_for_is_refused() -> None:
    lqr = hjb.catalogue.get("lqr")
    with pytest.raises(hjb.ProblemError, match="one player"):
        cross_check(Candidate(lost, adversary=heads), lqr)
    wide = Candidate(lost, heads, adversary=lambda x: np.zeros((len(x), 2)))
    with pytest.raises(hjb.ProblemError, match="adversary returned shape"):
        cross_check(wide, coins())
