"""Verdicts on long-run averages: values up to a constant, losses per unit of time.

Kind: exact (densities in closed form, Mathieu's equation, values by construction),
agreement of a solution with itself on problems drawn at random, contract.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import mathieu_a

import hjbpde as hjb
from verification import Candidate, cross_check

TRUST = 1.5
"""Bars within which a first-order regret must be right."""


@cache
def follower() -> Any:
    return hjb.solve(hjb.catalogue.get("bounded-follower"), 401)


def average_of(gain: float, bound: float = 1.0) -> float:
    """The follower's average under a = -clip(gain x, +-bound), on [-3, 3].

    The density is exp(2/sigma^2 int a), cut by the faces, where the state is sent back
    at the rate sigma^2/2 of the density and pays the slope of V each time.
    """
    s2, end = 0.36, 3.0
    slope = end**2 + s2 * end

    def weight(x: float) -> float:
        edge = min(x, bound / gain)
        return np.exp(-2 / s2 * (gain * edge**2 / 2 + bound * (x - edge)))

    bend = [bound / gain] if bound / gain < end else None
    mass = quad(weight, 0, end, points=bend)[0]
    inside = quad(lambda x: x * x * weight(x), 0, end, points=bend)[0]
    return (inside + 0.5 * s2 * weight(end) * slope) / mass


def test_the_exact_value_agrees_whatever_its_constant() -> None:
    exact = follower().problem.exact
    numbers = []
    for constant in (0.0, 7.0, -1e4):
        own = Candidate(lambda x, c=constant: exact.value(x) + c, average=exact.average)
        verdict = cross_check(own, follower())
        assert verdict.status == "agree", verdict
        numbers.append((verdict.value_error, verdict.regret))
    np.testing.assert_allclose(numbers, [numbers[0]] * 3, atol=1e-9)
    assert verdict.residual is not None and verdict.residual < 2e-3
    assert verdict.details["average"]["policy"][0] == pytest.approx(
        verdict.details["average"]["policy"][1]
    )


def test_a_wrong_value_and_a_wrong_claim_differ() -> None:
    exact = follower().problem.exact
    steep = cross_check(Candidate(lambda x: 1.05 * exact.value(x)), follower())
    assert steep.status == "differ" and "value off" in steep.reasons[0]
    # |.05 (V - mean V)| over half the range of V, V a cubic on either side.
    x = follower().grid.axes[0]
    V = exact.value(x[:, None])
    wanted = 0.05 * np.abs(V - V.mean()).max() / (V.max() / 2)
    assert steep.value_error == pytest.approx(wanted, rel=1e-2)
    claim = cross_check(Candidate(exact.value, average=0.07), follower())
    assert claim.status == "differ" and "average 0.07 is off" in claim.reasons[0]
    assert claim.value_error is not None and claim.value_error < 1e-3


def test_losses_are_relative_to_the_payoffs_deviation_where_it_is_larger() -> None:
    """Var x^2 = 20 / rate^4 for a Laplace density, whose average is 2 / rate^2."""
    rate = 2 / 0.36
    verdict = cross_check(follower(), follower())
    scale = verdict.details["average"]["scale"]
    assert scale == pytest.approx(np.sqrt(20) / rate**2, rel=2e-3)
    assert verdict.loss_scale == scale and verdict.status == "agree"
    assert "long-run average per unit time" in str(verdict)


@pytest.mark.parametrize(("gain", "bound"), [(100.0, 0.5), (3.0, 1.0), (1.0, 0.7)])
def test_the_regret_is_the_loss_of_the_policys_own_density(
    gain: float, bound: float
) -> None:
    policy = Candidate(control=lambda x: -np.clip(gain * x, -bound, bound))
    verdict = cross_check(policy, follower())
    assert verdict.status == "differ" and "per unit time" in verdict.reasons[0]
    wanted = average_of(gain, bound) - average_of(1e6)
    bar = verdict.details["regret_bar"] * verdict.loss_scale
    assert verdict.regret is not None
    assert abs(verdict.regret * verdict.loss_scale - wanted) <= TRUST * bar
    assert bar < 0.2 * wanted


@pytest.mark.parametrize("n", [101, 201])
def test_losses_of_policies_drawn_at_random_are_within_their_bars(n: int) -> None:
    """Where ramps are hardly resolved the errors of two averages nearly cancel."""
    reference, rng = hjb.solve(follower().problem, n), np.random.default_rng(3)
    for _ in range(12):
        gain, bound = np.exp(rng.uniform(-1.0, 3.4)), rng.uniform(0.3, 1.0)
        policy = Candidate(control=lambda x, g=gain, b=bound: -np.clip(g * x, -b, b))
        verdict = cross_check(policy, reference)
        wanted = average_of(gain, bound) - average_of(1e6)
        assert verdict.regret is not None
        off = abs(verdict.regret * verdict.loss_scale - wanted)
        assert off <= TRUST * verdict.details["regret_bar"] * verdict.loss_scale


def circle(cost: float = 0.5, noise: float = 1.0, constant: float = 0.0) -> Any:
    """Reward cos x - cost a^2 / 2 + constant, dX = a dt + noise dW on the circle."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=noise,
        reward=lambda x, a: (np.cos(x) - 0.5 * cost * a**2)[..., 0] + constant,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(0.0, 2 * np.pi, periodic=True),
        average=True,
        name="circle",
    )


def test_the_best_average_on_a_circle_is_a_mathieu_number() -> None:
    """V = c s^2 log phi turns the equation into Mathieu's, x = 2 z.

    (c s^4 / 2) phi'' + cos x phi = average phi, so average = -(c s^4 / 8) a_0(q) with
    q = 4 / (c s^4).
    """
    cost, noise = 0.5, 1.2
    half = cost * noise**4
    wanted = -half / 8 * float(mathieu_a(0, 4 / half))
    solution = hjb.solve(circle(cost, noise), 160)
    average = solution.average
    assert average is not None
    error = solution.report.details["average_error"]
    assert abs(average - wanted) <= error < 1e-2
    best = Candidate(solution.value_at, solution.control_at, average=wanted)
    assert cross_check(best, solution).status == "agree"
    for drift in (0.0, 0.3):
        policy = Candidate(control=lambda x, v=drift: v + 0 * x)
        verdict = cross_check(policy, solution)
        assert verdict.status == "differ" and verdict.regret is not None
        # The density is uniform: only the drift's cost is left of the reward.
        loss = wanted + 0.5 * cost * drift**2
        bar = verdict.details["regret_bar"] * verdict.loss_scale
        assert abs(verdict.regret * verdict.loss_scale - loss) <= TRUST * bar


def test_a_constant_added_to_the_reward_changes_nothing_of_the_verdict() -> None:
    policy = Candidate(control=lambda x: -0.9 * np.sin(x))
    one, other = (
        cross_check(policy, hjb.solve(circle(constant=c), 80)) for c in (0, -1)
    )
    assert one.status == other.status
    for name in ("reference_error", "regret"):
        mine, theirs = getattr(one, name), getattr(other, name)
        unit = one.loss_scale / other.loss_scale if name == "regret" else 1.0
        assert theirs == pytest.approx(mine * unit, rel=1e-3)


@pytest.mark.parametrize(("d", "shape"), [(1, 201), (2, (41, 41))])
def test_ergodic_regulators_lose_what_their_gain_costs(d: int, shape: Any) -> None:
    """a = -g x: (1 + g^2) sigma^2 / (2 g) a state, sigma^2 at g = 1."""
    sigma = 0.5
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=lambda x, a: (x * x + a * a).sum(-1),
        controls=hjb.Box([-np.inf] * d, [np.inf] * d),
        domain=hjb.Box([-2.0] * d, [2.0] * d),
        average=True,
    )
    solution = hjb.solve(problem, shape)
    exact = Candidate(lambda x: (x**2).sum(-1), lambda x: -x, average=d * sigma**2)
    # On 41 nodes the reference does not know V to 1e-2.
    agreed = cross_check(exact, solution, tolerance=1e-2 if d == 1 else 0.1)
    assert agreed.status == "agree", agreed
    for gain in (0.7, 2.0):
        # Judged everywhere, as outside its region a policy is the reference's.
        policy = Candidate(control=lambda x, g=gain: -g * x)
        verdict = cross_check(policy, solution, region=problem.domain)
        wanted = d * sigma**2 * ((1 + gain**2) / (2 * gain) - 1)
        bar = verdict.details["regret_bar"] * verdict.loss_scale
        assert verdict.status == "differ" and verdict.regret is not None
        assert abs(verdict.regret * verdict.loss_scale - wanted) <= TRUST * bar


def resting(**fields: Any) -> Any:
    """Cost (x - .3)^2 for a state that goes where it likes, without noise."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: (x[..., 0] - 0.3) ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        average=True,
        **fields,
    )


def test_a_policy_that_rests_pays_for_ever_what_it_pays_where_it_starts() -> None:
    solution = hjb.solve(resting(), 41, hjb.PolicyIteration(hjb.Upwind(), order=1))
    verdict = cross_check(Candidate(control=lambda x: 0 * x), solution)
    assert verdict.status == "differ"
    assert "41 parts that never meet" in " ".join(verdict.reasons)
    assert verdict.details["average"]["policy"] == pytest.approx([0.0, 1.69])
    assert verdict.evidence is not None
    lost = verdict.evidence.slices[0].regret
    assert lost is not None
    wanted = (verdict.evidence.axes[0] - 0.3) ** 2
    np.testing.assert_allclose(lost, wanted, atol=1e-8)
    np.testing.assert_allclose(verdict.where, [-1.0])


def test_a_policy_that_drives_into_a_corner_pays_what_is_paid_there() -> None:
    noisy = hjb.solve(replace(resting(), diffusion=0.3), 81)
    verdict = cross_check(Candidate(control=lambda x: 0 * x + 1.0), noisy)
    assert verdict.status == "differ" and verdict.regret is not None
    rate = 2 / 0.3**2

    def weight(x: float) -> float:
        return np.exp(rate * (x - 1))

    mass = quad(weight, -1, 1)[0]
    own = quad(lambda x: (x - 0.3) ** 2 * weight(x), -1, 1)[0] / mass
    average = noisy.average
    assert average is not None
    bar = verdict.details["regret_bar"] * verdict.loss_scale
    loss = verdict.regret * verdict.loss_scale
    assert abs(loss - (own - average)) <= TRUST * bar


def test_a_state_that_hardly_passes_between_two_wells_is_not_judged() -> None:
    """It stays for exp(67) units of time: 16 digits do not find the average."""
    problem = replace(
        resting(), drift=lambda x, a: 3 * x * (1 - x * x) + 2 * a, diffusion=0.15,
        domain=hjb.Box(-2.0, 2.0),
    )  # fmt: skip
    solution = hjb.solve(problem, 201)
    verdict = cross_check(Candidate(control=lambda x: 0 * x), solution)
    assert verdict.status == "inconclusive"
    assert "hardly ever passes" in verdict.reasons[0]


def test_a_candidate_that_is_not_finite_differs() -> None:
    for bad in (
        Candidate(lambda x: np.nan * x[..., 0]),
        Candidate(control=lambda x: np.nan * x),
    ):
        verdict = cross_check(bad, follower())
        assert verdict.status == "differ" and "not finite" in verdict.reasons[0]


def built(seed: int) -> tuple[Any, Any, float]:
    """A circle's problem around a value and an average drawn at random.

    r = average + a^2 terms aside: with the cost (a - h)^2 / 2 + q and the drift
    a + f, q = average - f V' - s^2 V'' / 2 - h V' + V'^2 / 2 and a = h - V'.
    """
    rng = np.random.default_rng(seed)
    waves = [(k, *rng.normal(size=2) / k**2) for k in (1, 2, 3)]
    noise, average = rng.uniform(0.8, 1.4), rng.normal()
    tilt, push = rng.normal(size=2)

    def bent(x: Any, order: int) -> Any:
        quarter = np.pi / 2 * order
        return sum(
            k**order * (b * np.sin(k * x + quarter) + c * np.cos(k * x + quarter))
            for k, b, c in waves
        )

    def own(x: Any) -> Any:
        return tilt + 0.5 * np.sin(x)

    def cost(x: Any, a: Any) -> Any:
        p, f = bent(x, 1), push * np.cos(x)
        q = average - (f + own(x)) * p - 0.5 * noise**2 * bent(x, 2) + 0.5 * p**2
        return (0.5 * (a - own(x)) ** 2 + q)[..., 0]

    problem = hjb.ControlProblem(
        drift=lambda x, a: a + push * np.cos(x),
        diffusion=noise,
        cost=cost,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(0.0, 2 * np.pi, periodic=True),
        average=True,
    )
    exact = Candidate(
        lambda x: bent(x[..., 0], 0), lambda x: own(x) - bent(x, 1), average=average
    )
    return problem, exact, average


@pytest.mark.parametrize("seed", range(6))
def test_values_built_at_random_agree_and_others_do_not(seed: int) -> None:
    problem, exact, average = built(seed)
    solution = hjb.solve(problem, 640)
    verdict = cross_check(exact, solution)
    assert verdict.status == "agree", verdict
    assert solution.average is not None
    assert abs(solution.average - average) <= solution.report.details["average_error"]
    assert cross_check(solution, solution).status == "agree"
    other = cross_check(built(seed + 100)[1], solution)
    assert other.status == "differ"


def test_the_page_tells_averages_per_unit_time(tmp_path: Path) -> None:
    exact = follower().problem.exact
    own = Candidate(exact.value, lambda x: -np.clip(x, -1, 1), average=0.065)
    verdict = cross_check(own, follower())
    text = verdict.to_html(tmp_path / "page.html").read_text("utf-8")
    for words in ("per unit time", "Long-run average", "mean difference is removed"):
        assert words in text
    content = verdict.to_dict()["details"]["average"]
    assert content["claimed"] == 0.065 and content["parts"] == 1


def test_an_average_is_claimed_of_long_runs_only() -> None:
    discounted = hjb.catalogue.get("lqr")
    own = Candidate(discounted.exact.value, average=1.0)
    with pytest.raises(hjb.ProblemError, match="no long-run average"):
        cross_check(own, discounted)
    with pytest.raises(hjb.ProblemError, match="finite"):
        Candidate(discounted.exact.value, average=np.inf)
