"""The residual with a horizon and with exits, against closed forms."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import hjbpde as hjb
import neural
from neural.ansatz import AnsatzNetwork, Bump
from neural.evaluation.equation import EXIT, Equation
from neural.evaluation.lift import bump_of
from neural.evaluation.network_rows import with_noise
from neural.evaluation.vanishing import vanishing
from neural.features import FeatureBasis, FeatureValue
from neural.networks import MLP
from neural.time_state import TimedProblem

TIMES = np.linspace(0.0, 1.0, 9)


def learn(problem, seed=0, **options):
    method = neural.PolicyIteration(neural.Residual(**options))
    return neural.solve(problem, method, seed=seed)


# --- horizon ---------------------------------------------------------------------


def wave(x, t):
    """V*, V*_t, V*_x and V*_xx of ``V* = sin(x + t)/5 - k(t) x^2`` in 1-D."""
    xp, z = hjb.namespace(x), x[..., 0]
    k, pace = 0.5 + 0.25 * math.cos(2 * t), 0.5 * math.sin(2 * t)
    sine, cosine = 0.2 * xp.sin(z + t), 0.2 * xp.cos(z + t)
    return sine - k * z * z, pace * z * z + cosine, cosine - 2 * k * z, -2 * k - sine


def rho(x, t):
    return 0.2 + 0.1 * math.sin(3 * t) + 0.05 * x[..., 0] ** 2


def sigma(t):
    return 0.3 * (1.0 + 0.5 * t)


def moving(boundary=None, **changes):
    """Drift, noise, discount and payoff that move; reward S - a^2/4, a* = 2 V*_x."""

    def free(z, t):
        return 0.3 * hjb.namespace(z).sin(z) - 0.5 * math.cos(t) * z

    def reward(x, a, t):
        v, dt, p, second = wave(x, t)
        paid = (free(x[..., 0], t) + p) * p + 0.25 * a[..., 0] ** 2
        return rho(x, t) * v - dt - 0.5 * sigma(t) ** 2 * second - paid

    problem = hjb.ControlProblem(
        drift=lambda x, a, t: free(x, t) + a,
        diffusion=lambda x, a, t: sigma(t) + 0.0 * x[..., None],
        reward=reward,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=rho,
        horizon=1.0,
        terminal=lambda x: wave(x, 1.0)[0],
        boundary=boundary,
    )
    return dataclasses.replace(problem, **changes)


def worst(solution, exact=wave):
    """Sup errors of V and of a* = 2 V*_x over all times, over the sup of each."""
    x = np.linspace(-1.5, 1.5, 61)[:, None]
    off, size = np.zeros((2, 2))
    for t in TIMES:
        v, _, p, _ = exact(x, t)
        found = solution.value_at(x, t=t), 0.5 * solution.control_at(x, t=t)[:, 0]
        for k, (is_, wanted) in enumerate(zip(found, (v, p), strict=True)):
            off[k] = max(off[k], np.abs(is_ - wanted).max())
            size[k] = max(size[k], np.abs(wanted).max())
    return off / size


@pytest.mark.parametrize("exact_faces", [True, False])
def test_moving_value_is_learned_at_every_time(exact_faces):
    boundary = hjb.Dirichlet(lambda x, t: wave(x, t)[0]) if exact_faces else None
    learned = learn(moving(boundary), hidden=(14, 14), max_policies=5)
    value, control = worst(learned)
    assert isinstance(learned, neural.TimedLearnedSolution)
    assert value < 1e-4
    assert control < 1e-3
    x = np.linspace(-2, 2, 41)[:, None]
    np.testing.assert_allclose(learned.value_at(x, t=1.0), wave(x, 1.0)[0], atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_target_in_1d_holds_for_every_seed(seed):
    assert worst(learn(moving(), seed))[0] < 1e-4


def riccati(alpha, noise):
    """V = P x^2/2 + q x + c of ``dx = (alpha x + a) dt + noise dW``.

    Cost ``(x^2 + a^2)/2``, at the end ``(x - 1)^2``. In time to go ``P' = 1 + 2 alpha
    P - P^2``, ``q' = (alpha - P) q``, ``c' = (noise^2 P - q^2)/2`` (Yong and Zhou,
    Stochastic Controls, 1999, chapter 6), here by Runge-Kutta to 1e-12.
    """

    def rate(_, y):
        P, q, _ = y
        squares = 0.5 * noise**2 * P - 0.5 * q * q
        return [1 + 2 * alpha * P - P * P, (alpha - P) * q, squares]

    return solve_ivp(
        rate, (0, 1), [2.0, -2.0, 1.0], rtol=1e-12, atol=1e-13, dense_output=True
    ).sol


@pytest.mark.parametrize("alpha", [-0.5, 0.5])
def test_linear_quadratic_value_solves_its_riccati_equation(alpha):
    sol = riccati(alpha, 0.5)
    problem = hjb.ControlProblem(
        drift=lambda x, a: alpha * x + a,
        diffusion=0.5,
        cost=lambda x, a: 0.5 * (x[..., 0] ** 2 + a[..., 0] ** 2),
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=1.0,
        terminal=lambda x: (x[..., 0] - 1.0) ** 2,
    )

    def exact(x, t):
        P, q, c = sol(1.0 - t)
        z = x[:, 0]
        return 0.5 * P * z * z + q * z + c, None, -0.5 * (P * z + q), None

    found = learn(problem, max_policies=6)
    value = worst(found, exact)[0]
    assert value < 1e-4
    z = np.linspace(-1.5, 1.5, 31)
    P, q, _ = sol(1.0)
    control = found.control_at(z[:, None])[:, 0]
    assert np.abs(control + P * z + q).max() < 1e-3 * np.abs(P * z + q).max()


@pytest.mark.slow
def test_moving_value_in_2d_matches_its_closed_form():
    """V* = cos(t) sin x cos y; drift a, reward S - |a|^2/2, a* = grad V*."""

    def pieces(x, t):
        xp = hjb.namespace(x)
        one, two, c = x[..., 0], x[..., 1], math.cos(t)
        v = c * xp.sin(one) * xp.cos(two)
        dt = -math.sin(t) * xp.sin(one) * xp.cos(two)
        p = c * xp.cos(one) * xp.cos(two), -c * xp.sin(one) * xp.sin(two)
        return v, dt, p[0] ** 2 + p[1] ** 2

    def reward(x, a, t):
        v, dt, squares = pieces(x, t)
        norm = hjb.namespace(x).sum(a * a, axis=-1)
        return 0.1 * v - dt + 0.16 * v - 0.5 * squares - 0.5 * norm

    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        reward=reward,
        controls=hjb.Box([-np.inf] * 2, [np.inf] * 2),
        domain=hjb.Box([-1.0] * 2, [1.0] * 2),
        discount=0.1,
        horizon=1.0,
        terminal=lambda x: pieces(x, 1.0)[0],
    )
    learned = learn(problem, hidden=(16, 16), max_policies=4)
    x = learned.region.sample(np.random.default_rng(0), 300)
    for t in (0.0, 0.5, 1.0):
        # 1e-3: a small network and few policies; the default reaches less.
        assert np.abs(learned.value_at(x, t=t) - pieces(x, t)[0]).max() < 1e-3


def test_noise_of_the_schedule_leaves_time_alone():
    problem = TimedProblem.of(moving(diffusion=None))
    noisy = with_noise(problem, 0.3)
    rng = np.random.default_rng(0)
    y = problem.domain.sample(rng, 5)
    a = rng.standard_normal((5, 1))
    fixed = np.asarray(noisy.diffusion_at(y, a))
    assert not fixed[:, -1].any()
    np.testing.assert_allclose((fixed[:, 0] ** 2).sum(-1), 2 * 0.3 * 2.0**2)
    moved = np.asarray(with_noise(TimedProblem.of(moving()), 0.3).diffusion_at(y, a))
    wanted = sigma(y[:, -1, None])[:, 0] ** 2 + 2 * 0.3 * 2.0**2
    np.testing.assert_allclose((moved[:, 0] ** 2).sum(-1), wanted)
    assert not moved[:, -1].any()


@pytest.mark.slow
def test_transport_without_noise_reaches_its_viscosity_solution():
    """Speed at most 1, cost |x| at the end: V = max(|x| - (T - t), 0), Hopf and Lax."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.0 * x[..., 0],
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=0.5,
        terminal=lambda x: (x[..., 0] ** 2 + 0.01) ** 0.5,
    )
    schedule = neural.NoiseSchedule(first=0.3, levels=6)
    learned = learn(problem, hidden=(14, 14), schedule=schedule, max_policies=5)
    x = np.linspace(-1.5, 1.5, 61)[:, None]
    far = np.maximum(np.abs(x[:, 0]) - 0.5, 0.0)
    # Noise of epsilon = .005 is left in: V may be wrong by its root.
    assert np.abs(learned.value_at(x) - (far**2 + 0.01) ** 0.5).max() < 3e-2


def test_terminal_kink_that_the_lift_misses_is_reported():
    call = hjb.catalogue.get("european-call")
    checks = learn(call, hidden=(8,), max_policies=1).report.checks
    missed = next(line for line in checks if "misses the given faces" in line)
    assert float(missed.split()[-1]) > 1e-2


def test_timed_solution_comes_back_bit_for_bit(tmp_path):
    problem = moving()
    learned = learn(problem, hidden=(8,), max_policies=1)
    again = neural.load(learned.save(tmp_path / "timed"), problem)
    x = learned.region.sample(np.random.default_rng(0), 40)
    for name in ("value_at", "gradient_at", "control_at"):
        asked = [getattr(s, name)(x, t=0.3) for s in (learned, again)]
        assert np.array_equal(*asked)


# --- exit ------------------------------------------------------------------------


def error(solution):
    """Sup error of V over sup|V| where the process runs."""
    problem = solution.problem
    x = solution.region.sample(np.random.default_rng(7), 3000)
    x = x[np.asarray(problem.exit.region(x)) > 0]
    value = problem.exact.value(x)
    return np.abs(solution.value_at(x) - value).max() / np.abs(value).max()


def radius(x):
    return hjb.namespace(x).sum(x * x, axis=-1) ** 0.5


def harmonic(x):
    """e^x cos y, whose Laplacian is 0."""
    xp = hjb.namespace(x)
    return xp.exp(x[..., 0]) * xp.cos(x[..., 1])


def brownian(reward=0.0, value=harmonic, exact=harmonic, region=None):
    """Brownian motion in the unit disc, without control or discount."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: reward + 0.0 * x[..., 0],
        domain=hjb.Box([-1.2] * 2, [1.2] * 2),
        exit=hjb.Exit(region or (lambda x: 1.0 - radius(x)), value),
        boundary=hjb.Reflecting(),
        exact=hjb.Exact(exact),
    )


def ellipse(x):
    """Positive within x^2/1.7^2 + y^2 < 1."""
    return 1.0 - (x[..., 0] / 1.7) ** 2 - x[..., 1] ** 2


def disc(x):
    """Positive outside a target of radius 1/2."""
    return (x[..., 0] - 0.5) ** 2 + x[..., 1] ** 2 - 0.25


def box_inside(x):
    """Positive within the square |x_i| < 1: corners, and kinks on the diagonals."""
    return 1.0 - hjb.namespace(x).max(abs(x), axis=-1)


@pytest.mark.parametrize(
    ("dimension", "options"), [(1, {}), (2, {"hidden": (16,), "max_policies": 8})]
)
def test_unit_ball_is_learned(dimension, options):
    """Zhou, Han and Lu (2021), section 5.1: V = k |x|^2, u* = -beta k x / q."""
    problem = hjb.catalogue.get("unit-ball", dimension=dimension)
    learned = learn(problem, **options)
    assert error(learned) < 1e-5
    x = 0.7 * learned.region.sample(np.random.default_rng(0), 50)
    gap = learned.control_at(x) - problem.exact.control(x)
    assert np.abs(gap).max() < 1e-3


@pytest.mark.parametrize("region", [lambda x: 1.0 - radius(x), None])
def test_exit_value_of_brownian_motion_is_harmonic(region):
    """In a disc, met by construction; in a square, by rows on its surface."""
    problem = brownian(region=region or box_inside)
    learned = learn(problem, hidden=(16,), max_policies=8)
    assert error(learned) < (1e-4 if region else 2e-3)
    x = np.array([[1.1, 0.0], [1.05, 1.1]])
    assert np.array_equal(learned.value_at(x), harmonic(x))


def test_mean_exit_time_of_a_disc():
    """E tau = (1 - |x|^2)/d for Brownian motion from x in the unit ball."""
    problem = brownian(1.0, 0.0, lambda x: 0.5 * (1.0 - (x * x).sum(-1)))
    learned = learn(problem, hidden=(12,), max_policies=5)
    assert error(learned) < 1e-5
    assert np.isfinite(learned.report.residuals).all()


@pytest.mark.slow
@pytest.mark.parametrize("region", [ellipse, disc])
@pytest.mark.parametrize("seed", range(3))
def test_manufactured_value_is_learned_up_to_a_curved_surface(region, seed):
    base = hjb.catalogue.get("manufactured", dimension=2, boundary=None)
    problem = dataclasses.replace(base, exit=hjb.Exit(region, base.exact.value))
    assert error(learn(problem, seed, max_policies=6)) < 1e-4


def test_horizon_and_exit_go_together():
    """``V = sin x + (1 - x^2) cos t`` on [-1, 1], V = sin x at both ends."""

    def value(x, t):
        z = x[..., 0]
        return hjb.namespace(x).sin(z) + (1.0 - z * z) * math.cos(t)

    def reward(x, a, t):
        z, xp = x[..., 0], hjb.namespace(x)
        second = -xp.sin(z) - 2.0 * math.cos(t)
        return 0.3 * value(x, t) + (1.0 - z * z) * math.sin(t) - 0.32 * second

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.8,
        reward=reward,
        domain=hjb.Box([-1.3], [1.3]),
        discount=0.3,
        horizon=1.0,
        terminal=lambda x: value(x, 1.0),
        exit=hjb.Exit(
            lambda x: 1.0 - x[..., 0] ** 2, lambda x: hjb.namespace(x).sin(x[..., 0])
        ),
    )
    learned = learn(problem, hidden=(16,), max_policies=5)
    x = np.linspace(-0.999, 0.999, 81)[:, None]
    for t in (0.0, 0.4, 1.0):
        assert np.abs(learned.value_at(x, t=t) - value(x, t)).max() < 3e-4
    ends = np.array([[-1.0], [1.0]])
    for t in (0.0, 0.7):
        np.testing.assert_allclose(
            learned.value_at(ends, t=t), np.sin(ends[:, 0]), atol=1e-7
        )


def arrival(dimension, region):
    """Time to the exit at speed 1, in any direction."""

    def drift(x, a):
        xp = hjb.namespace(a)
        size = xp.sqrt(xp.sum(a * a, axis=-1))[..., None]
        return a / xp.where(size > 1, size, xp.ones_like(size))

    def best_control(x, p, hess):
        xp = hjb.namespace(p)
        return -p / xp.sqrt(xp.sum(p * p, axis=-1) + 1e-300)[..., None]

    return hjb.ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0] * dimension, [1.0] * dimension),
        domain=hjb.Box([-1.2] * dimension, [1.2] * dimension),
        exit=hjb.Exit(region, 0.0),
        best_control=best_control,
    )


def test_eikonal_on_the_interval_with_an_exit_instead_of_faces():
    problem = arrival(1, lambda x: 1.0 - abs(x[..., 0]))
    schedule = neural.NoiseSchedule(levels=9)
    learned = learn(problem, direct=True, hidden=(14, 14), schedule=schedule)
    x = np.linspace(-1, 1, 201)[:, None]
    # Viscosity epsilon = .005 of the drift's rate rounds the kink by less than this.
    assert np.abs(learned.value_at(x) - (1 - np.abs(x[:, 0]))).max() < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("region", "far"),
    [
        (lambda x: 1.0 - radius(x), lambda x: 1.0 - np.linalg.norm(x, axis=1)),
        (box_inside, lambda x: 1.0 - np.abs(x).max(1)),
    ],
)
def test_eikonal_in_2d_with_an_exit_is_right_from_every_seed(region, far, seed):
    problem = arrival(2, region)
    schedule = neural.NoiseSchedule(last=0.01, levels=10)
    learned = learn(problem, seed, direct=True, schedule=schedule)
    x = problem.domain.sample(np.random.default_rng(1), 2000)
    x = x[np.asarray(region(x)) > 0]
    assert np.abs(learned.value_at(x) - far(x)).max() < 8e-2


@pytest.mark.parametrize("region", [ellipse, disc])
def test_vanishing_function_is_zero_on_the_surface_and_positive_inside(region):
    problem = dataclasses.replace(
        brownian(region=region), domain=hjb.Box([-2.0] * 2, [2.0] * 2)
    )
    found = vanishing(problem, np.random.default_rng(0))
    assert found is not None
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack((np.cos(angle), np.sin(angle)), -1)
    curved = circle * [1.7, 1.0] if region is ellipse else 0.5 * circle + [0.5, 0.0]
    assert np.abs(found.value(curved)).max() < 1e-6
    x = problem.domain.sample(np.random.default_rng(1), 500)
    x = x[region(x) > 1e-3]
    assert found.value(x).min() > 0


def test_corners_get_rows_instead():
    problem, rng = brownian(region=box_inside), np.random.default_rng(0)
    assert vanishing(problem, rng) is None
    assert bump_of(problem, problem, 1.0, rng).region is None
    equation = Equation.draw(problem, 50, rng)
    surface = [points.x for points, _, face in equation.faces if face == EXIT]
    np.testing.assert_allclose(np.abs(surface[0]).max(1), 1.0, atol=1e-9)


def test_bump_with_a_region_has_its_own_derivatives():
    rng = np.random.default_rng(0)
    box = hjb.Box([-1.0, 0.0], [2.0, 1.0])
    basis = FeatureBasis.draw(box, 6, 1.0, rng)
    region = FeatureValue(basis, rng.standard_normal(basis.size))
    net = MLP(2, 1, (5,), generator=torch.Generator().manual_seed(0))
    bump = Bump(np.array([[1.0, 0.0], [0.0, 1.0]]), 1.5, region)
    model = AnsatzNetwork(net, region, bump)
    x, step = box.inner(0.9).sample(rng, 7), 1e-5
    slope, bend = model.gradient(x), model.hessian(x)
    for i in range(2):
        e = step * np.eye(2)[i]
        one = (model.value(x + e) - model.value(x - e)) / (2 * step)
        two = (model.gradient(x + e) - model.gradient(x - e)) / (2 * step)
        np.testing.assert_allclose(one, slope[:, i], atol=1e-7)
        np.testing.assert_allclose(two, bend[:, i], atol=1e-6)
    again = AnsatzNetwork.from_arrays(model.arrays())
    assert np.array_equal(again.value(x), model.value(x))


def test_exit_solution_comes_back_bit_for_bit(tmp_path):
    problem = brownian()
    learned = learn(problem, hidden=(8,), max_policies=1)
    again = neural.load(learned.save(tmp_path / "disc"), problem)
    x = learned.region.sample(np.random.default_rng(0), 50)
    assert np.array_equal(again.value_at(x), learned.value_at(x))


@pytest.mark.slow
def test_adam_sees_the_data_on_a_surface_with_corners():
    problem = brownian(1.0, harmonic, region=box_inside)
    options = {"direct": True, "hidden": (12,), "max_policies": 1}
    short, long = (
        learn(problem, adam_steps=k, **options).report.details["history"][-1]
        for k in (20, 400)
    )
    assert long["residual"] < short["residual"]


# --- what is refused -------------------------------------------------------------


def test_state_constraint_under_noise_is_refused_with_the_state():
    problem = hjb.catalogue.get("lqr", boundary=hjb.StateConstraint())
    with pytest.raises(hjb.ProblemError, match="StateConstraint.*stills the noise"):
        learn(problem)


def test_state_constraint_in_two_states_is_refused_in_words():
    problem = hjb.catalogue.get(
        "manufactured", dimension=2, boundary=hjb.StateConstraint()
    )
    with pytest.raises(hjb.MethodMismatch, match="one state only"):
        learn(problem)


def test_function_that_is_not_finite_at_a_few_states_is_named():
    """The probe's few states miss the spot; the rows do not."""
    base = hjb.catalogue.get("manufactured", boundary=None)

    def reward(x, a):
        bad = hjb.namespace(x).where(abs(x[..., 0] - 1.0) < 0.02, np.nan, 0.0)
        return base.reward(x, a) + bad

    with pytest.raises(hjb.ProblemError, match="Residual: 'payoff' is not finite at x"):
        learn(dataclasses.replace(base, reward=reward))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_region_that_is_nowhere_or_everywhere_is_refused(sign):
    leaving = hjb.Exit(lambda x: sign + 0.0 * x[..., 0], 0.0)
    with pytest.raises(hjb.ProblemError, match="hardly a state"):
        learn(dataclasses.replace(brownian(), exit=leaving))
