"""Faces that let nothing out: learners against closed forms and against the grid."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq

import hjbpde as hjb
import neural
import verification
from neural.evaluation.paths import Paths
from neural.evaluation.rollout import Rollout
from neural.start import held_inside

RHO = 0.5


def to_the_wall():
    """Pay x, steer at speed 1: left until x = 0 and rest there,

    V = int_0^x e^{-rho t} (x - t) dt = x / rho - (1 - e^{-rho x}) / rho^2.
    """

    def exact(x):
        y = x[..., 0]
        return y / RHO - (1 - np.exp(-RHO * y)) / RHO**2

    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: x[..., 0] + 0 * a[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 2.0),
        discount=RHO,
        boundary=hjb.StateConstraint(),
        exact=hjb.Exact(value=exact, source="by hand"),
    )


def vanishing_noise():
    """V = sin x + .3 x, noise .4 x (2 - x): the best drift cos x + .3 keeps inside.

    Reward ``rho V - V'^2 / 2 - sigma^2 V'' / 2 - a^2 / 2``. Near x = 2 the drift is
    inward though paths start by running out there.
    """

    def reward(x, a):
        xp, y = hjb.namespace(x), x[..., 0]
        slope = xp.cos(y) + 0.3
        noise = 0.5 * (0.4 * y * (2 - y)) ** 2
        value = xp.sin(y) + 0.3 * y
        return RHO * value - 0.5 * slope**2 + noise * xp.sin(y) - 0.5 * a[..., 0] ** 2

    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=lambda x, a: (0.4 * x * (2 - x))[..., None],
        reward=reward,
        controls=hjb.Box(-3.0, 3.0),
        domain=hjb.Box(0.0, 2.0),
        discount=RHO,
        boundary=hjb.StateConstraint(),
        exact=hjb.Exact(
            value=lambda x: np.sin(x[..., 0]) + 0.3 * x[..., 0],
            control=lambda x: np.cos(x) + 0.3,
            source="manufactured",
        ),
    )


def saving(rate=0.02, discount=0.3):
    """Log utility, income 1, no debt: savings are eaten up in finite time s(x).

    By the Euler equation c = e^{(rho - r) s}; backwards from the limit dx/ds = c - 1 -
    r x; V by integrating log c. V bends like x^{3/2} at the limit.
    """
    g = discount - rate

    def wealth(s):
        grown = (np.exp(g * s) - np.exp(-rate * s)) / (g + rate)
        return grown - (1 - np.exp(-rate * s)) / rate

    def value(s):
        paid = (1 - np.exp(-discount * s)) / discount
        later = (1 - np.exp(-discount * s) * (1 + discount * s)) / discount**2
        return g * (s * paid - later)

    def exact(x):
        s = [brentq(lambda s, y=y: wealth(s) - y, 0.0, 60.0) for y in x[..., 0].ravel()]
        return value(np.array(s)).reshape(x.shape[:-1])

    return hjb.ControlProblem(
        drift=lambda x, a: 1.0 + rate * x - a,
        reward=lambda x, a: hjb.namespace(a).log(a[..., 0]),
        controls=hjb.Box(0.05, 6.0),
        domain=hjb.Box(0.0, 4.0),
        discount=discount,
        boundary=hjb.StateConstraint(),
        best_control=lambda x, p, hess: 1 / hjb.namespace(p).clip(p, 1e-3, 1e3),
        exact=hjb.Exact(value=exact, source="the Euler equation, by hand"),
    )


def square():
    """V = x^2 (1.2 + .5 y) - x max(y, 0)^4 + sin(y) / 2 on [0, 1] x [-1, 1].

    On the face x = 0 the best drift across is max(y, 0)^4: at rest on half of the face
    and away from it on the other half.
    """

    def parts(x):
        xp, u, y = hjb.namespace(x), x[..., 0], x[..., 1]
        m = xp.clip(y, 0.0, 10.0)
        value = u**2 * (1.2 + 0.5 * y) - u * m**4 + 0.5 * xp.sin(y)
        v1 = 2 * u * (1.2 + 0.5 * y) - m**4
        v2 = 0.5 * u**2 - 4 * u * m**3 + 0.5 * xp.cos(y)
        return value, v1, v2, -12 * u * m**2 - 0.5 * xp.sin(y)

    def sigma(x, a):
        s = 0.3 * (1 - x[..., 1] ** 2)
        return hjb.namespace(x).stack([0 * s, s], -1)[..., None]

    def cost(x, a):
        value, v1, v2, v22 = parts(x)
        noise = 0.5 * (0.3 * (1 - x[..., 1] ** 2)) ** 2
        paid = 0.5 * (v1**2 + v2**2) - noise * v22
        return RHO * value + paid + 0.5 * (a**2).sum(-1)

    def exact(x):
        return parts(x)[0]

    given = hjb.Dirichlet(exact)
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=cost,
        controls=hjb.Box([-3.0, -3.0], [3.0, 3.0]),
        domain=hjb.Box([0.0, -1.0], [1.0, 1.0]),
        discount=RHO,
        boundary={
            (0, "low"): hjb.StateConstraint(),
            (0, "high"): given,
            (1, "low"): given,
            (1, "high"): given,
        },
        exact=hjb.Exact(value=exact, source="manufactured"),
    )


def worst(problem, learned, n=400):
    """Largest error over sup|V| at random states and at the ends of the box."""
    x = problem.domain.sample(np.random.default_rng(5), n)
    x = np.concatenate([x, [problem.domain.low, problem.domain.high]])
    value = problem.exact.value(x)
    return np.abs(learned.value_at(x) - value).max() / np.abs(value).max()


def outward(problem, learned, x):
    """f.n at states of the low face of the first axis."""
    return -problem.drift_at(x, learned.control_at(x))[:, 0]


# --- least squares ---------------------------------------------------------------


@pytest.mark.parametrize("problem", [to_the_wall(), vanishing_noise()])
def test_least_squares_finds_smooth_values_up_to_the_face(problem):
    learned = neural.solve(problem)
    assert learned.report.status == "converged"
    assert worst(problem, learned) < 1e-6
    assert outward(problem, learned, np.zeros((1, 1))).max() <= 1e-11


def test_least_squares_leaves_a_face_that_the_first_policies_run_into():
    """At x = 2 the drift is cos 2 + .3 < 0; resting there is where a fit gets stuck."""
    problem = vanishing_noise()
    learned = neural.solve(problem, seed=1)
    x = np.array([[2.0]])
    assert np.abs(learned.control_at(x) - (np.cos(2.0) + 0.3)).max() < 1e-5


@pytest.mark.slow
def test_least_squares_at_a_borrowing_limit_that_binds():
    """V ~ x^{3/2} at the limit: global features converge slowly there."""
    problem = saving()
    learned = neural.solve(problem)
    assert worst(problem, learned) < 1e-4
    limit = np.zeros((1, 1))
    assert abs(learned.control_at(limit)[0, 0] - 1.0) < 1e-3
    assert outward(problem, learned, limit).max() <= 1e-10


def test_least_squares_on_a_face_of_a_square():
    problem = square()
    learned = neural.solve(problem)
    assert worst(problem, learned, 4000) < 1e-4
    face = np.c_[np.zeros(41), np.linspace(-1, 1, 41)]
    assert outward(problem, learned, face).max() <= 1e-11


def test_liquidation_of_a_small_penalty_is_learned_with_time():
    """Selling only, v >= 0: at the empty position resting is all that is left."""
    problem = hjb.catalogue.get("liquidation", penalty=2.0)
    learned = neural.solve(problem)
    x = np.linspace(0.0, 1.0, 41)[:, None]
    for t in (0.0, 2.5, 4.5):
        value = problem.exact.value(x, t)
        assert np.abs(learned.value_at(x, t=t) - value).max() < 1e-4 * value.max()
    assert learned.control_at(np.zeros((1, 1)), t=1.0)[0, 0] == 0.0


# --- residuals -------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("problem", [to_the_wall(), vanishing_noise()])
def test_residual_finds_smooth_values_up_to_the_face(problem):
    learned = neural.solve(problem, neural.PolicyIteration(neural.Residual()))
    assert learned.report.status == "converged"
    assert worst(problem, learned) < 1e-4
    assert outward(problem, learned, np.zeros((1, 1))).max() <= 1e-11


# --- Monte Carlo -----------------------------------------------------------------

EULER, HEUN = neural.EulerMaruyama(), neural.Heun()
QUICK = neural.MonteCarlo(
    paths=512, hidden=(32, 32), value_steps=200, max_policies=12, learning_rate=1e-2
)


def left(x):
    """a = -1 everywhere: into the wall at full speed."""
    return -np.ones_like(x)


def savers_consumption(problem):
    """c = 1 / V' of `saving`, by differences of its closed form, from inside."""
    x = 4.0 * np.linspace(0.0, 1.0, 4001)[:, None] ** 2
    slope = np.diff(problem.exact.value(x)) / np.diff(x[:, 0])
    middle = 0.5 * (x[1:, 0] + x[:-1, 0])

    def policy(y):
        # c is 1 at the limit, by the Euler equation.
        c = np.interp(y[:, 0], np.r_[0.0, middle], np.r_[1.0, 1.0 / slope])
        return c[:, None]

    return policy


def off(problem, policy, x0, stepper, dt, n=1, model=None, T=2.0, richardson=False):
    """Mean payoff of n paths from x0 less the closed form.

    After T they rest at the wall, which is what paths without V are taken to do.
    """
    rollout = Rollout(problem, stepper, dt, T, model is not None, richardson)
    x, rng = np.full((n, problem.dimension), x0), np.random.default_rng(0)
    payoff, _ = rollout.payoffs(held_inside(problem, policy), model, x, rng)
    return float(payoff.mean() - problem.exact.value(x[:1])[0])


def both_walls():
    """`to_the_wall` in each of two states: paths end in a corner."""
    line = to_the_wall()
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: x.sum(-1) + 0 * a[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([0.0, 0.0], [2.0, 2.0]),
        discount=RHO,
        boundary=hjb.StateConstraint(),
        exact=hjb.Exact(
            value=lambda x: line.exact.value(x[..., :1]) + line.exact.value(x[..., 1:]),
            source="separable",
        ),
    )


@pytest.mark.parametrize("problem", [to_the_wall(), both_walls()])
@pytest.mark.parametrize("stepper", [EULER, HEUN])
def test_paths_that_come_to_rest_keep_the_order_of_the_stepper(problem, stepper):
    """The wall is reached in the middle of a step, whatever the step."""
    errors = [
        abs(off(problem, left, 1.37, stepper, dt)) for dt in (0.2, 0.1, 0.05, 0.025)
    ]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (np.abs(orders - stepper.order) < 0.15).all()


def test_extrapolation_removes_the_leading_term_at_a_wall():
    for stepper in (EULER, HEUN):
        plain, better = (
            abs(off(to_the_wall(), left, 1.37, stepper, 0.05, richardson=on))
            for on in (False, True)
        )
        assert better < 0.1 * plain


def test_paths_that_slow_down_at_a_borrowing_limit_keep_the_second_order():
    """Savings fall like the square root of themselves, and end in finite time."""
    problem = saving()
    policy = savers_consumption(problem)
    errors = [off(problem, policy, 2.7, HEUN, dt, T=10.0) for dt in (0.2, 0.1, 0.05)]
    assert (
        np.abs(np.log2(np.abs(np.divide(errors[:-1], errors[1:]))) - 2) < 0.15
    ).all()


@pytest.mark.slow
def test_noise_that_vanishes_at_the_faces_leaves_euler_its_order():
    problem = vanishing_noise()
    model = neural.solve(problem).model
    coarse, fine = (
        off(problem, problem.exact.control, 1.7, EULER, dt, 20_000, model, 4.0)
        for dt in (0.2, 0.1)
    )
    assert abs(np.log2(coarse / fine) - 1) < 0.15
    heun = off(problem, problem.exact.control, 1.7, HEUN, 0.1, 20_000, model, 4.0)
    assert abs(heun) < 0.3 * abs(fine)


def test_a_step_cut_at_a_wall_keeps_the_noise_along_it():
    """From .2 at speed 1 the wall is met within the step of .5; sigma = .7 along it."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=np.array([[0.0], [0.7]]),
        cost=lambda x, a: x[..., 0] + 0 * a[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([0.0, -9.0], [2.0, 9.0]),
        discount=RHO,
        boundary={(0, "low"): hjb.StateConstraint()},
    )
    n, rng = 40_000, np.random.default_rng(0)
    rollout = Rollout(problem, HEUN, 0.5, 0.5)
    paths = Paths(rollout, None, np.tile([0.2, 0.0], (n, 1)))
    into = held_inside(problem, lambda x: np.tile([-1.0, 0.0], (len(x), 1)))
    dW = np.sqrt(0.5) * rng.standard_normal((n, 1))
    paths.advance(into, dW, rng)
    assert (paths.x[:, 0] == 0.0).all()
    assert np.abs(paths.x[:, 1] - 0.7 * dW[:, 0]).max() < 1e-12
    # The trapezoid of .2 - t until .2, discounted, and nothing at rest.
    # The limit of the policy at the wall is taken 1e-9 of the width inside.
    assert np.abs(paths.total - 0.2 * 0.5 * 0.2).max() < 1e-8
    assert np.abs(paths.weight - np.exp(-0.5 * RHO)).max() < 1e-12


def test_an_exit_is_met_after_the_wall_within_one_step():
    """At x = 0 from t = .1 on, along it to y = .3 at t = .2: one a unit of time."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0 * a[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([0.0, 0.0], [1.0, 1.0]),
        discount=RHO,
        boundary={(0, "low"): hjb.StateConstraint()},
        exit=hjb.Exit(lambda x: 0.3 - x[..., 1]),
    )
    rollout = Rollout(problem, EULER, 0.5, 0.5)
    paths = Paths(rollout, None, np.array([[0.1, 0.1]]))

    def into(x):
        return np.c_[np.where(x[:, 0] > 0, -1.0, 0.0), np.ones(len(x))]

    paths.advance(into, np.zeros((1, 1)), np.random.default_rng(0))
    assert not paths.alive[0]
    assert paths.total[0] == pytest.approx((1 - np.exp(-0.2 * RHO)) / RHO, abs=1e-9)


@pytest.mark.slow
def test_monte_carlo_finds_the_value_and_the_rest_at_the_wall(tmp_path):
    problem = to_the_wall()
    learned = neural.solve(problem, neural.PolicyIteration(QUICK))
    assert worst(problem, learned) < 1e-2
    ends = np.array([[0.0], [2.0]])
    assert np.abs(learned.control_at(ends)[:, 0] - [0.0, -1.0]).max() < 1e-2
    again = neural.load(learned.save(tmp_path / "kept"), problem)
    assert (again.control_at(ends) == learned.control_at(ends)).all()
    policy = verification.Candidate(control=learned.control_at)
    verdict = verification.cross_check(policy, hjb.solve(problem, 201))
    assert verdict.status == "agree", verdict.reasons


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "dt"), [(vanishing_noise(), 0.05), (saving(), 0.2), (square(), 0.05)]
)
def test_monte_carlo_finds_values_up_to_the_face(problem, dt):
    method = dataclasses.replace(QUICK, dt=dt)
    learned = neural.solve(problem, neural.PolicyIteration(method))
    assert worst(problem, learned) < 1e-2
    face = np.zeros((41, problem.dimension))
    face[:, -1] = np.linspace(-1, 1, 41) if problem.dimension > 1 else 0.0
    assert outward(problem, learned, face).max() <= 1e-9


@pytest.mark.slow
def test_monte_carlo_liquidates_until_the_horizon():
    problem = hjb.catalogue.get("liquidation", penalty=2.0)
    learned = neural.solve(problem, neural.PolicyIteration(QUICK))
    x = np.linspace(0.0, 1.0, 41)[:, None]
    for t in (0.0, 2.5, 4.5):
        value = problem.exact.value(x, t)
        assert np.abs(learned.value_at(x, t=t) - value).max() < 2e-2 * value.max()
        assert learned.control_at(np.zeros((1, 1)), t=t)[0, 0] == 0.0


# --- against the grid, and what is refused ---------------------------------------


def test_a_learned_answer_agrees_with_the_grid():
    problem = vanishing_noise()
    learned = neural.solve(problem)
    verdict = verification.cross_check(learned, hjb.solve(problem, 201))
    assert verdict.status == "agree", verdict.reasons


def test_a_learned_policy_that_ends_at_the_wall_agrees_with_the_grid():
    """The policy alone: the grid knows V's slope only to .6 at the far corner."""
    problem = to_the_wall()
    policy = verification.Candidate(control=neural.solve(problem).control_at)
    verdict = verification.cross_check(policy, hjb.solve(problem, 201))
    assert verdict.status == "agree", verdict.reasons


def test_a_start_that_runs_out_is_held_on_the_face():
    """a = -1 everywhere is admissible once it rests at 0."""
    problem = to_the_wall()
    method = neural.PolicyIteration(start=lambda x: -np.ones_like(x))
    learned = neural.solve(problem, method)
    assert "given" in " ".join(learned.report.checks)
    assert worst(problem, learned) < 1e-6


def test_a_face_that_no_control_leaves_is_named():
    problem = hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.1 * a,
        reward=lambda x, a: -(x[..., 0] ** 2) - a[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 1.0),
        discount=1.0,
        boundary=hjb.StateConstraint(),
    )
    with pytest.raises(hjb.ProblemError, match=r"x = \[1\.?\] .*turns the drift"):
        neural.solve(problem)


def test_noise_across_a_face_that_no_control_stills_is_named():
    problem = hjb.catalogue.get("lqr", boundary=hjb.StateConstraint())
    with pytest.raises(hjb.ProblemError, match="stills the noise"):
        neural.solve(problem, neural.PolicyIteration(QUICK))


def test_a_right_to_stop_beside_the_face_is_refused_in_words():
    problem = to_the_wall()
    stopping = hjb.ControlProblem(
        drift=problem.drift,
        cost=problem.cost,
        controls=problem.controls,
        domain=problem.domain,
        discount=RHO,
        boundary=hjb.StateConstraint(),
        stop=lambda x: 1.0 + 0 * x[..., 0],
    )
    with pytest.raises(hjb.MethodMismatch, match="right to stop"):
        neural.solve(stopping)
