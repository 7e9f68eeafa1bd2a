"""Semi-Lagrangian marching: orders, error bars, data that move, agreement.

Problems are built backwards from a smooth V(x, t), the maximum over the controls taken
in closed form (boxes) or over all of them (finite sets).
"""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.timed_solution import TimedSolution

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()


class Waves:
    """sum_j A_j sin(W_j . x + P_j + O_j t) with its derivatives."""

    def __init__(self, rng, d, periodic, still=False):
        self.W = rng.uniform(-1.2, 1.2, size=(3, d))
        if periodic:
            self.W = rng.integers(1, 3, size=(3, d)) * rng.choice([-1.0, 1.0], (3, d))
        self.A, self.P = rng.uniform(0.1, 0.5, 3), rng.uniform(0, 2 * np.pi, 3)
        self.speed = np.zeros(3) if still else rng.uniform(-2.0, 2.0, 3)

    def _phase(self, x, t):
        return x @ self.W.T + self.P + self.speed * t

    def value(self, x, t=0.0):
        return (self.A * np.sin(self._phase(x, t))).sum(-1)

    def rate(self, x, t):
        return (self.A * self.speed * np.cos(self._phase(x, t))).sum(-1)

    def gradient(self, x, t):
        return (self.A * np.cos(self._phase(x, t))) @ self.W

    def hessian(self, x, t):
        bend = self.A * np.sin(self._phase(x, t))
        return -np.einsum("...w,wi,wj->...ij", bend, self.W, self.W)


def moving(seed, d, noise, controls="box", periodic=False, horizon=0.5):
    """A random problem whose coefficients, data and value V(x, t) move in time.

    noise none, plain, correlated, or chosen: correlated and scaled by the control.
    """
    rng = np.random.default_rng([seed, d])
    v = Waves(rng, d, periodic)
    pulls = [Waves(rng, d, periodic) for _ in range(d)]
    rho, root = rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.5) * np.eye(d)
    if d > 1 and noise in ("correlated", "chosen"):
        root[1, 0] = rng.uniform(-0.9, 0.9) * root[0, 0]
    turn, points = rng.uniform(-0.4, 0.4, (d, d)), rng.uniform(-1, 1, (4, d))
    half = rng.choice([1.5, np.inf])

    def drift(x, a, t):
        return 0.6 * np.stack([f.value(x, t) for f in pulls], -1) + a

    def diffusion(x, a, t):
        scale = np.ones(a.shape) + (a @ turn.T if noise == "chosen" else 0.0)
        return ((1 + 0.3 * np.cos(2 * t)) * scale)[..., None] * root

    def hamiltonian(x, a, t):
        push = (drift(x, a, t) * v.gradient(x, t)).sum(-1) - 0.5 * (a * a).sum(-1)
        if noise == "none":
            return push
        s = diffusion(x, a, t)
        spread = np.einsum("...ik,...jk,...ij->...", s, s, v.hessian(x, t))
        return push + 0.5 * spread

    def best(x, t):
        if controls == "finite":
            every = [hamiltonian(x, np.broadcast_to(a, x.shape), t) for a in points]
            return np.max(every, axis=0)
        return hamiltonian(x, np.clip(v.gradient(x, t), -half, half), t)

    def reward(x, a, t):
        own = rho * v.value(x, t) - v.rate(x, t) - best(x, t)
        return own - 0.5 * (a * a).sum(-1)

    size = np.pi if periodic else rng.uniform(1.0, 2.0)
    finite = controls == "finite"
    return hjb.ControlProblem(
        drift=drift,
        diffusion=None if noise == "none" else diffusion,
        reward=reward,
        controls=hjb.Finite(points) if finite else hjb.Box([-half] * d, [half] * d),
        domain=hjb.Box([-size] * d, [size] * d, periodic=[periodic] * d),
        discount=rho,
        horizon=horizon,
        terminal=lambda x: v.value(x, horizon),
        boundary=None if periodic else hjb.Dirichlet(lambda x, t: v.value(x, t)),
        exact=hjb.Exact(value=v.value, source="by construction"),
    )


def solved(problem, shape, method=CUBIC, times=None):
    """The solution, which has times."""
    solution = hjb.solve(problem, shape, method, times=times)
    assert isinstance(solution, TimedSolution)
    return solution


def judged(problem, shape, method=CUBIC, times=None):
    """Coverage, median bar/error and the largest error before the horizon."""
    solution = solved(problem, shape, method, times)
    nodes = solution.grid.nodes()
    inside = solution.region.contains(nodes, 1e-12)
    wanted = np.stack([problem.exact.value(nodes, t=t) for t in solution.times])
    error = np.abs(solution.value - wanted)[:-1, inside]
    bar, small = solution.error_bar[:-1, inside], 1e-12 * np.abs(wanted).max()
    seen = error > small
    covered = np.mean(error <= bar + small)
    return covered, np.median(bar[seen] / error[seen]), error.max()


def order_of(problem, shapes, method):
    """Slope of log error today against log h, by least squares."""
    errors = [judged(problem, n, method, times=[0.0])[2] for n in shapes]
    cells = [np.log(1.0 / (np.max(n) - 1)) for n in shapes]
    return np.polyfit(cells, np.log(errors), 1)[0]


# --- orders --------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "seed"), [("none", 2), ("plain", 2)])
def test_cubic_readings_give_order_two_in_time_and_space(noise, seed):
    assert abs(order_of(moving(seed, 1, noise), [33, 65], CUBIC) - 2) < 0.35


@pytest.mark.parametrize("noise", ["none", "plain"])
def test_linear_readings_give_order_one_in_time_and_space(noise):
    assert abs(order_of(moving(3, 1, noise), [65, 129, 257], LINEAR) - 1) < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["none", "plain", "correlated"])
def test_orders_of_two_states(noise):
    """Without noise h^4 / h of the readings rules coarse grids, where steps are few."""
    shapes = [(33, 33), (65, 65)] if noise == "none" else [(17, 17), (33, 33)]
    assert abs(order_of(moving(4, 2, noise), shapes, CUBIC) - 2) < 0.4


def wave(drift_of_t, horizon=1.0):
    """Carried around a circle at speed c(t): V = sin(x + int_t^T c)."""
    return hjb.ControlProblem(
        drift=lambda x, a, t: 0.0 * x + drift_of_t(t),
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-np.pi, np.pi, periodic=True),
        horizon=horizon,
        terminal=lambda x: np.sin(x[..., 0]),
    )


@pytest.mark.parametrize(("feet", "order"), [("rk2", 2), ("euler", 1)])
def test_the_midpoint_is_one_in_time_too(feet, order):
    """Speeds 2 t and 3 t^2 bring everything 1 further: V(x, 0) = sin(x + 1).

    The midpoint would follow the first one exactly.
    """
    power = 3 if feet == "rk2" else 2
    problem, errors = wave(lambda t: power * t ** (power - 1)), []
    for steps in (8, 16, 32):
        method = hjb.SemiLagrangian(step=1 / steps, feet=feet)
        solution = hjb.solve(problem, 256, method, times=[0.0])
        x = solution.grid.axes[0]
        errors.append(np.abs(solution.value[0] - np.sin(x + 1.0)).max())
        assert solution.report.details["steps"][-1] == steps
    seen = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(seen - order).max() < 0.15


# --- error bars ----------------------------------------------------------------


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
@pytest.mark.parametrize(
    "controls", [pytest.param("box", marks=pytest.mark.slow), "finite"]
)
def test_the_bar_covers_a_value_that_moves(controls, method):
    noise = "none" if controls == "finite" else "plain"
    coverage, ratio, _ = judged(moving(5, 1, noise, controls), 49, method)
    assert coverage >= 0.99
    # Finite sets chatter: where errors of that meet, they cancel by chance.
    assert ratio <= 10 or controls == "finite"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_few_nodes_between_reflecting_faces_are_covered(seed):
    """Nobody steers; by differences on four times as many nodes, 1e-5 and better."""
    rng = np.random.default_rng(seed)
    pull, bend, tilt = rng.uniform(-0.6, 0.6), *rng.uniform(0.5, 1.6, 2)
    phase, noise = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6)
    problem = hjb.ControlProblem(
        drift=lambda x, a: pull * np.sin(bend * x),
        diffusion=lambda x, a: noise * (1 + 0.3 * np.cos(x))[..., None],
        reward=lambda x, a: np.cos(tilt * x[..., 0] + phase),
        controls=hjb.Finite([[0.0]]),
        domain=hjb.Box(-1.2, 1.2),
        boundary=hjb.Reflecting(),
        discount=0.5,
        horizon=0.6,
        terminal=lambda x: 0.3 * np.sin(tilt * x[..., 0]),
    )
    truth = hjb.solve(problem, 193, times=[0.0])
    for n in (33, 49):
        solution = hjb.solve(problem, n, CUBIC, times=[0.0])
        x = solution.grid.nodes()
        gap = np.abs(solution.value[0] - truth.value_at(x, t=0.0))
        room = solution.error_bar[0] + truth.error_at(x, t=0.0)
        assert np.mean(gap <= room) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(9))
def test_the_bar_covers_on_moving_problems_drawn_at_random(seed):
    rng = np.random.default_rng([seed, 9])
    d, periodic = (2 if seed % 5 == 0 else 1), bool(rng.random() < 0.3)
    noise = rng.choice(["none", "plain", "correlated", "chosen"])
    controls = "finite" if noise == "chosen" or rng.random() < 0.4 else "box"
    problem = moving(100 + seed, d, noise, controls, periodic)
    method = CUBIC if rng.random() < 0.6 else LINEAR
    shape = (57,) if d == 1 else (17, 17)
    assert judged(problem, shape, method)[0] >= 0.99


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_the_european_call_lies_within_its_bar(method):
    """Black and Scholes (1973), equation 13; the kink of the payoff is on a node."""
    coverage, _, error = judged(hjb.catalogue.get("european-call"), 101, method)
    assert coverage >= 0.99
    assert error <= (0.2 if method is CUBIC else 1.0)  # of values up to 330


def test_a_kink_that_lies_anywhere_in_its_cell_is_covered():
    for strike in (97.3, 103.1):
        problem = hjb.catalogue.get("european-call", strike=100.0)
        shifted = hjb.catalogue.get("european-call", strike=strike)
        moved = hjb.ControlProblem(
            drift=problem.drift,
            diffusion=problem.diffusion,
            reward=problem.reward,
            discount=problem.discount,
            domain=problem.domain,
            horizon=problem.horizon,
            terminal=shifted.terminal,
            exact=shifted.exact,
        )
        assert judged(moved, 101)[0] >= 0.99


def test_hopf_and_lax_are_met_where_the_solution_is_smooth():
    problem = hjb.catalogue.get("hamilton-jacobi")
    coverage, _, error = judged(problem, 80)
    assert coverage >= 0.99
    assert error <= 1e-4


def test_the_harmonic_oscillator_is_followed():
    coverage, ratio, error = judged(hjb.catalogue.get("harmonic-oscillator"), 61)
    assert coverage >= 0.99
    assert ratio <= 20
    assert error <= 5e-3


@pytest.mark.slow
def test_a_score_is_learned_backwards_from_moving_face_data():
    problem = hjb.catalogue.get("reverse-diffusion", boundary="exact")
    coverage, ratio, _ = judged(problem, 41)
    assert coverage >= 0.99
    assert ratio <= 5


# --- times, controls, contracts --------------------------------------------------


def test_an_output_between_two_steps_is_no_step_of_the_march():
    problem = hjb.catalogue.get("harmonic-oscillator")
    few = solved(problem, 41, times=[0.0])
    many = solved(problem, 41)
    assert few.times.tolist() == [0.0, problem.horizon]
    assert len(many.times) == 33
    assert np.array_equal(few.value[0], many.value[0])
    assert many.value_at([0.3], t=0.2).shape == ()


def test_costs_are_values_with_the_other_sign():
    problem = moving(6, 1, "none")
    ours = hjb.solve(problem, 33, CUBIC, times=[0.0])
    cost = hjb.ControlProblem(
        drift=problem.drift,
        cost=lambda x, a, t: -problem.reward(x, a, t),
        controls=problem.controls,
        domain=problem.domain,
        discount=problem.discount,
        horizon=problem.horizon,
        terminal=lambda x: -problem.terminal(x),
        boundary=hjb.Dirichlet(lambda x, t: -problem.exact.value(x, t)),
    )
    theirs = hjb.solve(cost, 33, CUBIC, times=[0.0])
    assert np.array_equal(ours.value, -theirs.value)
    assert np.array_equal(ours.control, theirs.control)
    assert np.array_equal(ours.error_bar, theirs.error_bar)


def test_the_control_of_a_liquidation_is_that_of_almgren_and_chriss():
    problem = hjb.catalogue.get("liquidation", penalty=1e-6)
    solution = hjb.solve(problem, 41, CUBIC, times=[0.0])
    nodes = solution.grid.nodes()
    wanted = problem.exact.control(nodes, t=0.0)
    assert np.abs(solution.control[0] - wanted).max() <= 0.02 * np.abs(wanted).max()


def test_too_many_steps_are_refused_before_any_is_taken():
    problem = hjb.catalogue.get("european-call")
    with pytest.raises(hjb.ProblemError, match="noise asks for .* max_steps"):
        hjb.solve(problem, 401, hjb.SemiLagrangian(max_steps=100))
    with pytest.raises(hjb.ProblemError, match="step = 1e-14 asks for .* max_steps"):
        hjb.solve(problem, 41, hjb.SemiLagrangian(step=1e-14))
    with pytest.raises(hjb.ProblemError, match="max_steps"):
        hjb.SemiLagrangian(max_steps=0)


def test_the_control_at_the_horizon_is_that_of_the_step_before_it():
    """Score of a mixture: the control moves fast there, by a share of a step here."""
    problem = hjb.catalogue.get("reverse-diffusion", boundary="exact")
    solution = solved(problem, 41, times=[0.0])
    nodes = solution.grid.nodes()
    wanted = problem.exact.control(nodes, t=problem.horizon)
    inside = np.abs(nodes[..., 0]) < 0.75 * np.abs(nodes).max()
    error = np.abs(solution.control[-1] - wanted)[inside]
    assert np.median(error) <= 0.05 * np.abs(wanted[inside]).max()


def test_a_value_without_bound_is_named():
    """A payoff that adds up to more than a number can be."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a: 1e307 + 0.0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        horizon=100.0,
        terminal=0.0,
    )
    with np.errstate(over="ignore"), pytest.raises(hjb.StabilityError, match="not fin"):
        hjb.solve(problem, 21, hjb.SemiLagrangian(step=1.0))


def test_a_terminal_value_that_is_not_finite_is_named():
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0, periodic=True),
        horizon=1.0,
        terminal=lambda x: np.where(x[..., 0] < 0, np.inf, 0.0),
    )
    with pytest.raises(hjb.ProblemError, match="'terminal' is not finite at x"):
        hjb.solve(problem, 20, CUBIC)


# --- agreement with finite differences -----------------------------------------

SMALL = {
    "american-put": 81,
    "bermudan-put": 81,
    "dubins-car": (17, 17, 16),
    "european-call": 81,
    "uncertain-volatility": 81,
    "liquidation": 41,
    "hamilton-jacobi": 60,
    "harmonic-oscillator": 61,
    "reverse-diffusion": 41,
    "regime-switching-call": 41,
    "jump-diffusion-put": 41,
    "air3d": (9, 8, 8),
}
"""Shapes of an opinion in seconds; other problems with a horizon as they come."""
TIMED = [
    name
    for name in hjb.catalogue.names()
    if hjb.catalogue.get(name).horizon is not None
]


@pytest.mark.parametrize("name", ["uncertain-volatility", "harmonic-oscillator"])
def test_it_agrees_with_finite_differences_in_time(name, assert_agreement):
    assert_agreement(hjb.catalogue.get(name), SMALL[name], CUBIC)


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMED)
def test_it_agrees_with_finite_differences_over_the_timed_catalogue(
    name, assert_agreement
):
    assert_agreement(hjb.catalogue.get(name), SMALL.get(name), CUBIC)
