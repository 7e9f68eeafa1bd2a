"""No discount, and nothing ends the process but rights to stop."""

import numpy as np
import pytest
from scipy.optimize import brentq

import hjbpde as hjb
import verification

COST = 0.4
SL = hjb.SemiLagrangian()
METHODS = pytest.mark.parametrize("method", [None, SL], ids=["grid", "steps"])


def hypotheses(a=20.0, nodes=201):
    """Shiryaev's sequential testing of two hypotheses, and V in closed form.

    x is the odds-on probability, dx = x (1 - x) dW, observing costs 1 per unit of time
    and a wrong verdict a: min E[tau + a min(x, 1 - x)]. V = 2 psi(x) + const between A
    and 1 - A, psi = (1 - 2x) log(x / (1 - x)), smooth fit 2 psi'(A) = a (Peskir and
    Shiryaev, Optimal Stopping and Free-Boundary Problems, 2006, section 21, theorem
    21.1, with mu = sigma = c = 1).
    """
    problem = hjb.ControlProblem(
        drift=lambda x, u: 0 * x,
        diffusion=lambda x, u: (x * (1 - x))[..., None],
        cost=lambda x, u: 1 + 0 * x[..., 0],
        domain=hjb.Box([0.0], [1.0]),
        stop=lambda x: a * np.minimum(x[..., 0], 1 - x[..., 0]),
    )

    def psi(x):
        return (1 - 2 * x) * np.log(x / (1 - x))

    def slope(x):
        return -2 * np.log(x / (1 - x)) + (1 - 2 * x) / (x * (1 - x))

    A = brentq(lambda x: 2 * slope(x) - a, 1e-6, 0.5 - 1e-9)
    x = hjb.Grid(problem.domain, nodes).axes[0]
    x = np.minimum(x, 1 - x)
    inside = np.maximum(x, A)
    V = np.where(x < A, a * x, 2 * psi(inside) - 2 * psi(A) + a * A)
    return problem, V, A


@METHODS
def test_sequential_testing(method):
    problem, V, A = hypotheses()
    solution = hjb.solve(problem, 201, method)
    assert solution.report.status == "converged"
    error = np.abs(solution.value - V)
    assert np.mean(error <= solution.error_bar) >= 0.99
    assert error.max() <= 2e-4 * V.max()
    assert solution.stopping is not None
    going_on = solution.grid.axes[0][~solution.stopping]
    assert abs(going_on.min() - A) <= 0.01


def test_its_order():
    """Second order: noise rules every row but those next to the ends."""
    worst = []
    for nodes in (101, 201, 401, 801):
        problem, V, _ = hypotheses(nodes=nodes)
        worst.append(np.abs(hjb.solve(problem, nodes).value - V).max())
    # The free boundary wanders through its cell: only the trend tells the order.
    order = np.log2(worst[0] / worst[-1]) / 3
    assert 1.6 <= order <= 2.5


def test_a_verdict_by_steps():
    problem, _, _ = hypotheses()
    verdict = verification.cross_check(
        hjb.solve(problem, 101, SL), hjb.solve(problem, 201)
    )
    assert verdict.status == "agree"


def walked(d, c=0.7):
    """max E[|B_tau| - c tau] in d dimensions: c r^2 / d + const up to r = d / (2 c)."""
    R = d / (2 * c)
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=1.0,
        reward=lambda x, a: -c + 0 * x[..., 0],
        domain=hjb.Box([-2 * R] * d, [2 * R] * d),
        stop=lambda x: np.linalg.norm(x, axis=-1),
    )

    def exact(x):
        r = np.linalg.norm(x, axis=-1)
        return np.where(r < R, c * r**2 / d + R - c * R**2 / d, r)

    return problem, exact


@METHODS
@pytest.mark.parametrize(
    ("d", "nodes"),
    [(1, 81), (2, 41), pytest.param(3, 25, marks=pytest.mark.slow)],
)
def test_distance_of_a_brownian_motion(d, nodes, method):
    problem, exact = walked(d)
    solution = hjb.solve(problem, [nodes] * d, method)
    x = solution.grid.nodes()
    error = np.abs(solution.value - exact(x))
    assert np.mean(error <= solution.error_bar) >= 0.99
    inner = problem.domain.inner(0.75, (True,) * d).contains(x, 0)
    assert error[inner].max() <= 6e-3 * exact(x).max()


def reflected(**more):
    """max E[cos(pi x_tau) - c tau] of a Brownian motion between reflecting ends.

    V'' = 2 c on [b, 1], V'(1) = 0, smooth fit at b.
    """
    fields = {
        "drift": lambda x, a: 0 * x,
        "diffusion": 1.0,
        "reward": lambda x, a: -COST + 0 * x[..., 0],
        "domain": hjb.Box([0.0], [1.0]),
        "boundary": hjb.Reflecting(),
        "stop": lambda x: np.cos(np.pi * x[..., 0]),
    }
    b = brentq(lambda b: -np.pi * np.sin(np.pi * b) - 2 * COST * (b - 1), 1e-9, 0.5)
    x = np.linspace(0.0, 1.0, 101)
    bowl = COST * ((x - 1) ** 2 - (b - 1) ** 2)
    V = np.where(x < b, np.cos(np.pi * x), np.cos(np.pi * b) + bowl)
    return hjb.ControlProblem(**{**fields, **more}), V


@METHODS
@pytest.mark.parametrize("who", ["controller", "adversary"])
def test_either_player_may_be_the_one_who_ends_it(who, method):
    sign = 1.0 if who == "controller" else -1.0
    problem, V = reflected(
        reward=lambda x, a: -sign * COST + 0 * x[..., 0],
        stop=hjb.Stop(lambda x: sign * np.cos(np.pi * x[..., 0]), by=who),
    )
    solution = hjb.solve(problem, 101, method)
    error = np.abs(solution.value - sign * V)
    assert np.all(error <= solution.error_bar) and error.max() <= 2e-4


@METHODS
def test_modes_that_differ_in_nothing_are_one(method):
    modes = hjb.Modes([[-1.0, 1.0], [2.0, -2.0]])
    problem, V = reflected(modes=modes)
    solution = hjb.solve(problem, 101, method)
    error = np.abs(solution.value - V)
    assert np.all(error <= solution.error_bar) and error.max() <= 2e-4


@METHODS
@pytest.mark.parametrize(
    "end",
    [
        {"boundary": hjb.Dirichlet(0.0)},
        {"exit": hjb.Exit(lambda x: 0.5 - np.abs(x[..., 0] - 0.5))},
    ],
    ids=["faces", "exit"],
)
def test_modes_until_the_ends_without_discount(end, method):
    """E int r_m until both modes' Brownian motion leaves [0, 1], rates q to and fro.

    u = (V_1 + V_2) / 2 = x (1 - x) m with the mean m of the rewards, and w = (V_1 -
    V_2) / 2 solves w'' / 2 - 2 q w + s = 0: w = s (1 - cosh(k y) / cosh(k / 2)) /
    (2 q), k = 2 sqrt(q), y = x - 1/2.
    """
    q, mean, s = 1.5, 1.0, 0.6
    domain = hjb.Box([0.0], [1.0])
    problem = hjb.ControlProblem(
        drift=lambda x, a, mode: 0 * x,
        diffusion=1.0,
        reward=lambda x, a, mode: mean + s * (1 - 2 * mode) + 0 * x[..., 0],
        domain=domain,
        modes=hjb.Modes([[-q, q], [q, -q]]),
        **end,
    )
    solution = hjb.solve(problem, 101, method)
    x, k = solution.grid.axes[0], 2 * np.sqrt(q)
    u = mean * x * (1 - x)
    w = s * (1 - np.cosh(k * (x - 0.5)) / np.cosh(k / 2)) / (2 * q)
    error = np.abs(solution.value - np.stack([u + w, u - w]))
    assert np.all(error <= solution.error_bar) and error.max() <= 5e-4


def test_waiting_for_free_is_worth_the_best_payoff():
    problem, _ = reflected(reward=lambda x, a: 0 * x[..., 0])
    solution = hjb.solve(problem, 101)
    assert np.abs(solution.value - 1.0).max() <= 1e-12


@METHODS
def test_who_is_paid_to_wait_never_stops(method):
    problem, _ = reflected(reward=lambda x, a: 1 + 0 * x[..., 0])
    with pytest.raises(hjb.NotConverged, match="infinite.*without discount"):
        hjb.solve(problem, 101, method)


@METHODS
def test_walking_to_the_best_place_to_stop(method):
    """No noise, speed 1, 1 a unit of time, 2 |x - 1/2| where one stops: |x - 1/2|."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1 + 0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box([-2.0], [2.0]),
        boundary=hjb.StateConstraint(),
        stop=lambda x: 2 * np.abs(x[..., 0] - 0.5),
    )
    solution = hjb.solve(problem, 81, method)
    error = np.abs(solution.value - np.abs(solution.grid.axes[0] - 0.5))
    assert np.all(error <= solution.error_bar) and error.max() <= 1e-12
