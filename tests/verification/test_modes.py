"""Verdicts on problems with modes: every mode judged, the worst one named.

Kind: exact (coupled Riccati and linear equations), agreement of a solution with itself
on problems drawn at random, contract.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import fsolve

import hjbpde as hjb
from verification import Candidate, cross_check

ALPHA, WEIGHT, SIGMA, RHO = (0.2, -0.6), (1.0, 3.0), (0.4, 0.6), 0.3
RATES = np.array([[-0.5, 0.5], [1.0, -1.0]])


@cache
def regulator() -> Any:
    """dX = (alpha_k X + a) dt + sigma_k dW at cost (w_k x^2 + a^2)/2 in modes k."""
    free = hjb.Box(-np.inf, np.inf)
    problem = hjb.ControlProblem(
        drift=lambda x, a, mode: ALPHA[mode] * x + a,
        diffusion=lambda x, a, mode: SIGMA[mode] + 0.0 * x[..., None],
        cost=lambda x, a, mode: 0.5 * (WEIGHT[mode] * x**2 + a**2)[..., 0],
        controls=free,
        modes=hjb.Modes(RATES),
        domain=hjb.Box(-2.0, 2.0),
        discount=RHO,
    )
    return hjb.solve(problem, 201)


def quadratics(P: Any) -> Any:
    """V_k = P_k x^2/2 + c_k with rho c_k = sigma_k^2 P_k/2 + sum_j q_kj (c_j - c_k)."""
    half = 0.5 * np.array(SIGMA) ** 2 * P
    c = np.linalg.solve(RHO * np.eye(2) - RATES, half)
    return lambda x, mode: 0.5 * P[mode] * x[..., 0] ** 2 + c[mode]


def best() -> Any:
    """rho P_k = w_k + 2 alpha_k P_k - P_k^2 + sum_j q_kj (P_j - P_k)."""

    def left(P: Any) -> Any:
        own = np.array(WEIGHT) + 2 * np.array(ALPHA) * P - P**2
        return own + RATES @ P - RHO * P

    P, _, found, _ = fsolve(left, [1.0, 1.0], xtol=1e-13, full_output=True)
    assert found == 1 and (P > 0).all()
    return P


def of_policy(gain: Any) -> Any:
    """P of a = -gain_k x: the same with w_k + gain_k^2 - 2 gain_k P_k, linear in P."""
    matrix = np.diag(RHO - 2 * np.array(ALPHA) + 2 * gain) - RATES
    return np.linalg.solve(matrix, np.array(WEIGHT) + gain**2)


def steering(gain: Any) -> Any:
    return lambda x, mode: -gain[mode] * x


def test_the_exact_values_of_coupled_riccati_equations_agree() -> None:
    P = best()
    for control in (None, steering(P)):
        verdict = cross_check(Candidate(quadratics(P), control), regulator())
        assert verdict.status == "agree", verdict
        assert verdict.residual is not None and verdict.residual < 1e-6
        assert [piece["mode"] for piece in verdict.details["slices"]] == [0, 1]


@pytest.mark.parametrize("mode", [0, 1])
def test_a_value_wrong_in_one_mode_differs_there(mode: int) -> None:
    value = quadratics(best())

    def wrong(x: Any, mode: int, bad: int = mode) -> Any:
        return value(x, mode) * (1.05 if mode == bad else 1.0)

    verdict = cross_check(Candidate(wrong, steering(best())), regulator())
    assert verdict.status == "differ" and verdict.mode == mode, verdict
    assert f"mode {mode}" in verdict.reasons[0]
    errors = [piece["value_error"] for piece in verdict.details["slices"]]
    assert errors[mode] > 1e-2 > 1e-6 > errors[1 - mode]


def test_values_that_forget_the_switching_differ_by_their_residual() -> None:
    alone = [0.5 * (2 * a - RHO) for a in ALPHA]
    P = np.array([a + np.sqrt(a**2 + w) for a, w in zip(alone, WEIGHT, strict=True)])
    verdict = cross_check(Candidate(quadratics(P)), regulator())
    assert verdict.status == "differ"
    assert verdict.residual is not None and verdict.residual > 1e-2


@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 1.0), (1.0, 1.6), (1.4, 0.4)])
def test_the_regret_of_every_mode_is_that_of_its_linear_equations(
    factors: tuple[float, float],
) -> None:
    P = best()
    gain = np.array(factors) * P
    candidate = Candidate(quadratics(P), steering(gain))
    reference = regulator()
    verdict = cross_check(candidate, reference, region=reference.problem.domain)
    own, right = quadratics(of_policy(gain)), quadratics(P)
    assert verdict.evidence is not None
    x = verdict.evidence.axes[0][:, None]
    worst = []
    pieces = zip(verdict.evidence.slices, verdict.details["slices"], strict=True)
    for piece, numbers in pieces:
        bar = numbers["regret_bar"] * verdict.scale
        assert piece.mode is not None and piece.regret is not None
        wanted = own(x, piece.mode) - right(x, piece.mode)
        worst.append(wanted.max())
        assert np.abs(piece.regret - wanted).max() <= 1.5 * bar + 1e-3
    if max(worst) > 2e-2 * verdict.scale:
        assert verdict.status == "differ" and verdict.mode == int(np.argmax(worst))
        assert "the policy loses" in verdict.reasons[0]
    else:
        assert verdict.status == "agree", verdict


def drawn(seed: int, dimension: int) -> hjb.ControlProblem:
    """Two or three modes with drifts, payoffs and rates (of x) drawn at random."""
    rng, d = np.random.default_rng([seed, dimension]), dimension
    K = int(rng.integers(2, 4))
    pull, gain = rng.uniform(0.1, 0.6, K), rng.uniform(0.4, 1.2, (K, d))
    wave, phase = rng.uniform(0.5, 2.0, (K, d)), rng.uniform(0, 6, K)
    sign, base = 1.0 - 2.0 * (seed % 2), rng.uniform(0.1, 1.0, (K, K))

    def rates(x: Any) -> Any:
        q = base * (1.0 + 0.5 * np.sin(x[..., :1, None]))
        q = q * (1.0 - np.eye(K))
        return q - np.eye(K) * q.sum(-1, keepdims=True)

    def payoff(x: Any, a: Any, mode: int) -> Any:
        return sign * (np.sin(x @ wave[mode] + phase[mode]) - 0.4 * (a * a).sum(-1))

    return hjb.ControlProblem(
        drift=lambda x, a, mode: -pull[mode] * x + gain[mode] * a,
        diffusion=np.diag(rng.uniform(0.3, 0.6, d)),
        **{"reward" if sign > 0 else "cost": payoff},
        controls=hjb.Box([-1.0] * d, [1.0] * d),
        modes=hjb.Modes(rates, count=K),
        domain=hjb.Box([-1.5] * d, [1.5] * d),
        discount=rng.uniform(0.3, 1.0),
        boundary=hjb.Reflecting(),
    )


@pytest.mark.parametrize(
    ("seed", "dimension"),
    [(0, 1), (1, 1), (2, 1), (3, 1), pytest.param(0, 2, marks=pytest.mark.slow)],
)
def test_a_solution_agrees_with_itself_in_every_mode(seed: int, dimension: int) -> None:
    problem, flat = drawn(seed, dimension), dimension == 1
    solution: Any = hjb.solve(problem, (65,) if flat else (33, 33))
    tolerance = 3e-2 if flat else 5e-2
    verdict = cross_check(solution, solution, tolerance=tolerance)
    assert verdict.status == "agree", verdict
    assert verdict.regret is not None
    assert verdict.regret <= verdict.details["regret_bar"] + 1e-3
    # The policy of one mode, turned round and used in all of them.
    mixed = Candidate(solution.value_at, lambda x, mode: -solution.control_at(x, 1))
    other = cross_check(mixed, solution, tolerance=tolerance)
    assert other.regret is not None and other.regret > 10 * verdict.regret


# --- with a horizon ------------------------------------------------------------------

T = 0.5


def flow(gain: Any = None) -> Any:
    """P_k and c_k back from V_k(T) = x^2/2, of the best policy or of a = -gain_k x."""
    alpha, weight, noise = np.array(ALPHA), np.array(WEIGHT), np.array(SIGMA) ** 2

    def back(_: float, y: Any) -> Any:
        P, c = y[:2], y[2:]
        own = weight + 2 * alpha * P
        own = own - P**2 if gain is None else own + gain**2 - 2 * gain * P
        return np.r_[own + RATES @ P - RHO * P, 0.5 * noise * P + RATES @ c - RHO * c]

    found = solve_ivp(
        back, (0, T), [1.0, 1.0, 0.0, 0.0], rtol=1e-11, atol=1e-13, dense_output=True
    )
    assert found.sol is not None
    return found.sol


def moving(solved: Any) -> Any:
    def value(x: Any, t: float, mode: int) -> Any:
        y = solved(T - t)
        return 0.5 * y[mode] * x[..., 0] ** 2 + y[2 + mode]

    return value


@cache
def timed_regulator() -> Any:
    problem = replace(
        regulator().problem, horizon=T, terminal=lambda x: 0.5 * x[..., 0] ** 2
    )
    return hjb.solve(problem, 65, times=np.linspace(0, T, 5))


def test_modes_in_time_follow_their_riccati_flow() -> None:
    sol = flow()
    right = Candidate(moving(sol), lambda x, t, mode: -sol(T - t)[mode] * x)
    verdict = cross_check(right, timed_regulator(), times=[0.0, 0.25], tolerance=2e-2)
    assert verdict.status == "agree", verdict
    assert verdict.residual is not None and verdict.residual < 1e-6
    assert "at t = 0, 0.25 in 2 modes" in str(verdict)
    pieces = [(piece["time"], piece["mode"]) for piece in verdict.details["slices"]]
    assert pieces == [(0.0, 0), (0.0, 1), (0.25, 0), (0.25, 1)]
    late = Candidate(
        lambda x, t, mode: moving(sol)(x, t, mode) + 0.1 * (mode == 1 and t > 0.2)
    )
    wrong = cross_check(late, timed_regulator(), times=[0.0, 0.25], tolerance=2e-2)
    assert (wrong.status, wrong.time, wrong.mode) == ("differ", 0.25, 1)
    assert "t = 0.25, mode 1" in wrong.reasons[0]


def test_policies_of_time_and_mode_are_charged_what_they_lose() -> None:
    gain, reference = np.array([0.3, 2.0]), timed_regulator()
    candidate = Candidate(moving(flow()), steering(gain))
    domain = reference.problem.domain
    verdict = cross_check(candidate, reference, times=[0.0, 0.25], region=domain)
    assert verdict.status == "differ" and verdict.mode == 0, verdict
    own, best_one = moving(flow(gain)), moving(flow())
    assert verdict.evidence is not None
    x = verdict.evidence.axes[0][:, None]
    # The faces, closed with the slopes of the best value, are far from the middle.
    inner = np.abs(x[:, 0]) <= 1.0
    pieces = zip(verdict.evidence.slices, verdict.details["slices"], strict=True)
    for piece, numbers in pieces:
        at = piece.time, piece.mode
        wanted = own(x, *at) - best_one(x, *at)
        assert piece.regret is not None and (piece.regret >= 0).all()
        bar = numbers["regret_bar"] * verdict.scale
        assert np.abs(piece.regret - wanted)[inner].max() <= 1.5 * bar


def test_an_option_in_two_regimes_is_judged() -> None:
    call: Any = hjb.solve(hjb.catalogue.get("regime-switching-call"), 81)
    kept = float(call.times[0])
    verdict = cross_check(call, call, times=[kept], tolerance=5e-2)
    assert verdict.status == "agree" and verdict.regret is None, verdict
    off = Candidate(
        lambda x, t, mode: call.value_at(x, t, mode) * (1.1 if mode == 1 else 1.0)
    )
    wrong = cross_check(off, call, times=[kept], tolerance=5e-2)
    assert wrong.status == "differ" and wrong.mode == 1, wrong


# --- the catalogue, pages and refusals -----------------------------------------------


@cache
def saving() -> Any:
    return hjb.solve(hjb.catalogue.get("consumption-saving"), 501)


def test_consumption_and_saving_is_judged_up_to_the_borrowing_limit() -> None:
    right = cross_check(saving(), saving())
    assert right.status == "agree", right
    assert right.regret is not None and right.regret < 1e-4
    spent = saving().control_at

    def meagre(x: Any, mode: int) -> Any:
        return spent(x, mode) * (0.7 if mode == 0 else 1.0)

    verdict = cross_check(Candidate(saving().value_at, meagre), saving())
    assert verdict.status == "differ" and verdict.mode == 0, verdict
    pieces = verdict.details["slices"]
    # Who earns more today earns less some day.
    assert pieces[0]["regret"] > pieces[1]["regret"] > 1e-2
    assert pieces[1]["control_error"] == 0.0


def test_the_page_shows_every_mode(tmp_path: Path) -> None:
    verdict = cross_check(Candidate(quadratics(best())), regulator())
    page = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "Mode by mode" in page and "<td>mode 1</td>" in page
    assert "mode 0: value" in str(verdict) and "in 2 modes" in str(verdict)
    assert verdict.to_dict()["details"]["slices"][1]["mode"] == 1
    assert len(verdict.plot().axes) >= 6


def test_what_goes_beyond_modes_alone_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(hjb.ProblemError, match="knows no mode"):
        cross_check(torch.nn.Linear(1, 1), regulator())
    stopped = replace(regulator().problem, stop=lambda x: 2.0 + 0.0 * x[..., 0])
    with pytest.raises(hjb.MethodMismatch, match="'stop' together with 'modes'"):
        cross_check(Candidate(lambda x, mode: x[..., 0]), stopped)
