"""Rights to stop, against closed forms of smooth fit and against the grid."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import i0, i1

import hjbpde as hjb
import neural


def error(learned, exact, n=4000):
    """Sup error of V over sup|V|, on the whole region."""
    x = learned.region.sample(np.random.default_rng(7), n)
    value = exact(x)
    return np.abs(learned.value_at(x) - value).max() / np.abs(value).max()


def perpetual_put(strike=1.0, rate=0.05, sigma=0.3, sense="reward"):
    """McKean (1965); Merton, Bell J. Econ. 4 (1973) 141, section 8.

    With g = 2 r / sigma^2 one sells below S* = K g / (1 + g), and above it
    V = (K - S*) (S / S*)^-g. The states are log S.
    """
    power = 2 * rate / sigma**2
    edge = strike * power / (1 + power)
    sign = 1.0 if sense == "reward" else -1.0

    def value(x):
        S = np.exp(x[..., 0])
        going_on = (strike - edge) * (np.maximum(S, edge) / edge) ** -power
        return sign * np.where(S > edge, going_on, strike - S)

    payoff = {sense: lambda x, a: 0.0 * x[..., 0]}
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + rate - 0.5 * sigma**2,
        diffusion=sigma,
        domain=hjb.Box(-1.5, 1.5),
        boundary={(0, "high"): hjb.Dirichlet(value)},
        discount=rate,
        stop=lambda x: sign * np.maximum(strike - np.exp(x[..., 0]), 0.0),
        **payoff,
    )
    return problem, value, np.log(edge)


def radial(d, rho=0.5):
    """Brownian motion stopped at psi = |x|^2, in closed form.

    Inside |x| < R one goes on: rho V = lap V / 2, so that V = A phi(k |x|) with
    k = sqrt(2 rho) and phi = cosh z, I_0(z), sinh(z) / z in one, two and three
    dimensions. V = R^2 and V' = 2 R at R give z phi'(z) = 2 phi(z) at z = k R:
    z tanh z = 2, z I_1(z) = 2 I_0(z), z coth z = 3. Beyond R waiting loses
    rho R^2 - d > 0 a unit of time, since R^2 is 4.3, 6.7, 8.9 > d / rho.
    """
    k = np.sqrt(2 * rho)
    shape = {1: np.cosh, 2: i0, 3: lambda z: np.sinh(z) / np.maximum(z, 1e-300)}[d]
    fit = {
        1: lambda z: z * np.tanh(z) - 2,
        2: lambda z: z * i1(z) / i0(z) - 2,
        3: lambda z: z / np.tanh(z) - 3,
    }[d]
    R = brentq(fit, 0.5, 10) / k

    def payoff(x):
        return (x * x).sum(-1)

    def value(x):
        r = np.sqrt(payoff(x))
        inside = R**2 * shape(k * np.clip(r, 1e-9, R)) / shape(k * R)
        return np.where(r < R, inside, r * r)

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: 0.0 * x[..., 0],
        # Not centred: nothing may profit from the symmetry.
        domain=hjb.Box([-1.5 * R] * d, [1.65 * R] * d),
        boundary=hjb.Dirichlet(payoff),
        discount=rho,
        stop=payoff,
    )
    return problem, value, R


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("sense", ["reward", "cost"])
def test_perpetual_put_and_its_edge_are_learned(sense, seed):
    problem, value, edge = perpetual_put(sense=sense)
    learned = neural.solve(problem, seed=seed)
    assert learned.report.status == "converged"
    assert error(learned, value) < 1e-10
    near = np.array([[edge - 1e-6], [edge + 1e-6]])
    assert learned.stopping_at(near).tolist() == [True, False]


@pytest.mark.parametrize(
    ("d", "tolerance"),
    [(1, 1e-10), (2, 1e-6), pytest.param(3, 2e-5, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("seed", range(2))
def test_brownian_motion_is_stopped_on_its_sphere(d, tolerance, seed):
    problem, value, R = radial(d)
    learned = neural.solve(problem, seed=seed)
    assert learned.report.status == "converged"
    assert error(learned, value) < tolerance
    x = learned.region.sample(np.random.default_rng(1), 4000)
    r = np.linalg.norm(x, axis=1)
    clear = np.abs(r - R) > 1e-3 * R
    assert np.array_equal(learned.stopping_at(x)[clear], (r > R)[clear])


def test_gradient_fits_smoothly():
    problem, _, R = radial(2)
    learned = neural.solve(problem)
    angle = np.linspace(0.0, 2 * np.pi, 40)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    for share in (0.999, 1.001):
        x = share * R * circle
        # Across the surface only the second derivative jumps.
        assert np.abs(learned.gradient_at(x) - 2 * x).max() < 0.01 * R
    out = learned.hessian_at(1.2 * R * circle) - 2 * np.eye(2)
    assert np.abs(out).max() < 1e-4


def controlled(**sides):
    """Pushed and pulled on a line; stops in the middle or outside."""
    return hjb.ControlProblem(
        drift=lambda x, a: -0.2 * x + a,
        diffusion=0.6,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-2.5], [2.5]),
        discount=0.2,
        **sides,
    )


def within(problem, nodes, slack):
    """Learned within the grid's own bar and `slack`, the method's share."""
    learned, truth = neural.solve(problem), hjb.solve(problem, nodes)
    x = learned.region.sample(np.random.default_rng(3), 2000)
    gap = np.abs(learned.value_at(x) - truth.value_at(x))
    bar = truth.error_at(x) + slack * np.abs(truth.value_at(x)).max()
    assert (gap <= bar).all()
    return learned


def test_controlled_cost_with_stops_lies_within_the_bar_of_the_grid():
    def cost(x, a):
        return x[..., 0] ** 2 + 0.5 * a[..., 0] ** 2

    learned = within(
        controlled(cost=cost, stop=lambda x: 1.0 + 0.0 * x[..., 0]), (1601,), 1e-6
    )
    assert "67." in str(learned.report.checks)


def test_adversary_who_may_stop_mirrors_the_controller():
    """max and min, rewards and costs, all signs turned: the same surfaces."""

    def loss(x, a):
        return x[..., 0] ** 2 + 0.1

    base = dataclasses.replace(
        controlled(cost=loss, stop=lambda x: 1.0 + 0.0 * x[..., 0]), controls=None
    )
    base = dataclasses.replace(base, drift=lambda x, a: -0.2 * x)
    other = dataclasses.replace(
        base,
        cost=None,
        reward=loss,
        stop=hjb.Stop(lambda x: 1.0 + 0.0 * x[..., 0], by="adversary"),
    )
    one, two = neural.solve(base), neural.solve(other)
    x = one.region.sample(np.random.default_rng(0), 500)
    np.testing.assert_allclose(one.value_at(x), two.value_at(x), atol=1e-9)
    assert np.array_equal(one.stopping_at(x), two.stopping_at(x))


def game(upper=0.5):
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.5,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-3.0, 3.0),
        boundary=hjb.Reflecting(),
        discount=0.2,
        stop=(
            hjb.Stop(lambda x: -0.5 + 0.0 * x[..., 0], by="controller"),
            hjb.Stop(lambda x: upper + 0.0 * x[..., 0], by="adversary"),
        ),
    )


def test_two_rights_to_stop_lie_within_the_bar_and_are_odd():
    learned = within(game(), (1601,), 1e-6)
    x = np.linspace(-3.0, 3.0, 101)[:, None]
    value = learned.value_at(x)
    np.testing.assert_allclose(value, -value[::-1], atol=1e-8)
    assert value.min() == -0.5
    assert value.max() == 0.5


def test_capped_payoff_stops_at_its_kink_without_smooth_fit():
    """psi = min((S - 1)^+, 1): one waits for S = 2, where psi bends down.

    With x = log S the exponents m of e^(m x) solve sigma^2 m^2 / 2 + b m = rho; V =
    0 at the low face and 1 at log 2.
    """
    rho, b, sigma, low = 0.05, 0.02, 0.3, -2.0
    m = np.roots([0.5 * sigma**2, b, -rho])

    def going_on(z):
        up = np.exp(m[0] * (z - low)) - np.exp(m[1] * (z - low))
        cap = np.log(2.0) - low
        return up / (np.exp(m[0] * cap) - np.exp(m[1] * cap))

    def payoff(x):
        return np.minimum(np.maximum(np.exp(x[..., 0]) - 1.0, 0.0), 1.0)

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + b,
        diffusion=sigma,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(low, 2.0),
        boundary=hjb.Dirichlet(payoff),
        discount=rho,
        stop=payoff,
    )

    def value(x):
        return np.where(x[..., 0] < np.log(2.0), going_on(x[..., 0]), 1.0)

    assert error(neural.solve(problem), value) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "half_width"), [(0.2, 1.2), (0.5, 3.0)])
@pytest.mark.parametrize("seed", range(2))
def test_american_put_is_learned_to_half_a_percent(sigma, half_width, seed):
    """Seydel, Tools for Computational Finance, 6th ed.: the catalogue's numbers."""
    problem = hjb.catalogue.get("american-put", sigma=sigma, half_width=half_width)
    learned = neural.solve(problem, seed=seed)
    truth = hjb.solve(problem, (401,), times=[0.0, 1.0])
    x = learned.region.sample(np.random.default_rng(3), 300)
    gap = np.abs(learned.value_at(x) - truth.value_at(x, t=0.0))
    assert gap.max() < 0.005 * np.abs(truth.value_at(x, t=0.0)).max()
    price = learned.value_at(np.log([[100.0]]))[0]
    assert abs(price / {0.2: 6.0903, 0.5: 17.44876443}[sigma] - 1.0) < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 10])
def test_no_hole_opens_in_the_set_where_one_stops(seed):
    """The residual knows nothing of a hole: V was wrong by 14 and by 137 % of max V."""
    problem = hjb.catalogue.get("american-put", sigma=0.5, half_width=3.0)
    method = neural.PolicyIteration(neural.LeastSquares(features=600))
    learned = neural.solve(problem, method, seed=seed)
    truth = hjb.solve(problem, (401,), times=[0.0, 0.5, 0.9, 1.0])
    x = np.linspace(learned.region.low, learned.region.high, 2001)
    for t in (0.0, 0.5, 0.9):
        value = truth.value_at(x, t=t)
        assert np.abs(learned.value_at(x, t=t) - value).max() < 0.03 * value.max()


def test_report_says_why_it_stopped_and_what_share_stops():
    report = neural.solve(radial(1)[0]).report
    assert "stopped: V changed by less than the tolerance" in str(report)
    assert "% of the domain" in str(report)
    assert {"surface_move", "stopped", "residual"} <= set(report.details["history"][0])


def test_stopping_everywhere_and_nowhere_are_answers():
    base, x = radial(1)[0], np.linspace(-2.0, 2.0, 9)[:, None]
    dear = dataclasses.replace(base, stop=lambda x: 1.0 + 0.0 * x[..., 0])
    cheap = dataclasses.replace(
        dear,
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        boundary=hjb.Reflecting(),
    )
    at_once = neural.solve(
        dataclasses.replace(dear, boundary=hjb.Dirichlet(1.0)), seed=1
    )
    assert at_once.stopping_at(x).all()
    assert (at_once.value_at(x) == 1.0).all()
    never = neural.solve(cheap)
    assert not never.stopping_at(x).any()
    np.testing.assert_allclose(never.value_at(x), 2.0, atol=1e-9)


def test_stopped_paths_earn_the_value():
    """Euler's paths stop late by .58 sqrt(dt) (Gobet, Stoch. Proc. Appl. 87 (2000)).

    By smooth fit a surface wrong by s costs about ``V'' jump s^2 / 2``, here with
    the jump 2 (rho R^2 - 1) < 2.5: nothing to first order.
    """
    problem, value, _ = radial(1)
    learned = neural.solve(problem)
    start, dt = np.array([0.5]), 0.02
    paths = learned.simulate(start, 12.0, dt, 2000, seed=1)
    earned = paths.rewards[:, -1]
    noise = 3 * earned.std() / np.sqrt(len(earned))
    late = 0.5826**2 * dt
    left = (~np.isfinite(paths.ended)).mean() * value(start)
    assert abs(earned.mean() - value(start)) < noise + 1.25 * late + left
    assert np.isfinite(paths.ended).mean() > 0.95


def test_diagnosis_follows_the_rule_for_stopping():
    learned = neural.solve(perpetual_put()[0])
    assert not neural.diagnose(learned, show=False).findings


def test_solution_comes_back_bit_for_bit_with_its_problem(tmp_path):
    problem, _, _ = radial(2)
    small = neural.LeastSquares(features=80, scales=(1.0,))
    learned = neural.solve(problem, neural.PolicyIteration(small))
    path = learned.save(tmp_path / "stopped")
    again, bare = neural.load(path, problem), neural.load(path)
    x = learned.region.sample(np.random.default_rng(0), 100)
    for name in ("value_at", "gradient_at", "stopping_at"):
        assert np.array_equal(getattr(again, name)(x), getattr(learned, name)(x))
    assert np.array_equal(bare.stopping_at(x), learned.stopping_at(x))
    with pytest.raises(hjb.ProblemError, match="neural.load"):
        bare.value_at(x)


def test_timed_answer_comes_back_and_keeps_its_side_of_psi(tmp_path):
    problem = hjb.catalogue.get("american-put", sigma=0.2, half_width=1.2)
    small = neural.LeastSquares(features=60, scales=(1.0,), max_policies=3)
    learned = neural.solve(problem, neural.PolicyIteration(small))
    again = neural.load(learned.save(tmp_path / "put"), problem)
    x = learned.region.sample(np.random.default_rng(0), 100)
    for t in (0.0, 0.6):
        value = learned.value_at(x, t=t)
        assert np.array_equal(again.value_at(x, t=t), value)
        assert (value >= problem.stop(x)).all()
        assert learned.stopping_at(x, t=t).shape == (100,)
    with pytest.raises(hjb.MethodMismatch, match="moves in time"):
        learned.simulate(x[:1], 1.0, 0.1, 5, seed=0)


def test_same_seed_same_bits():
    problem, _, _ = radial(2)
    method = neural.PolicyIteration(neural.LeastSquares(features=80, scales=(1.0,)))
    x = problem.domain.sample(np.random.default_rng(0), 50)
    one, two, other = (neural.solve(problem, method, seed=k) for k in (3, 3, 4))
    assert np.array_equal(one.value_at(x), two.value_at(x))
    assert not np.array_equal(one.value_at(x), other.value_at(x))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"stop": lambda x: x}, hjb.ProblemError, "payoff has shape"),
        (
            {"stop": lambda x: x[..., 0] + np.nan},
            hjb.ProblemError,
            "payoff is not finite",
        ),
        ({"diffusion": None}, hjb.MethodMismatch, "needs noise"),
        (
            {"exit": hjb.Exit(lambda x: 1.0 - x[..., 0] ** 2, 0.0)},
            hjb.MethodMismatch,
            "'stop' or 'exit'",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(changes, kind, words):
    with pytest.raises(kind, match=words):
        neural.solve(dataclasses.replace(radial(1)[0], **changes))


def test_payoffs_that_cross_are_refused():
    with pytest.raises(hjb.ProblemError, match="better than what the adversary"):
        neural.solve(game(upper=-0.6))


def test_more_states_than_were_measured_are_refused():
    base = radial(1)[0]
    many = dataclasses.replace(base, domain=hjb.Box([-2.0] * 9, [2.0] * 9))
    with pytest.raises(hjb.MethodMismatch, match="at most 8 states"):
        neural.solve(many)
    four = hjb.Box([-2.0] * 4, [2.0] * 4)
    timed = dataclasses.replace(
        base, domain=four, horizon=1.0, terminal=lambda x: (x * x).sum(-1)
    )
    with pytest.raises(hjb.MethodMismatch, match="with a horizon in 4"):
        neural.solve(timed)
