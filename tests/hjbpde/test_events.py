"""Leaving a region and stopping, without a horizon."""

import numpy as np
import pytest

import hjbpde as hjb

K, RATE, SIGMA = 1.0, 0.05, 0.3


def exit_time(n, **fields):
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=0.7,
        cost=lambda x, a: 1 + 0 * x[..., 0],
        domain=hjb.Box([-1.2, -1.2], [1.2, 1.2]),
        exit=hjb.Exit(lambda x: 1 - np.sqrt((x**2).sum(-1))),
        boundary=hjb.Reflecting(),
        **fields,
    )
    return hjb.solve(problem, (n, n))


def test_the_mean_exit_time_of_a_ball_without_discount():
    """E[tau] = (1 - |x|^2) / (d sigma^2) (Oksendal, example 7.4.2)."""
    errors = []
    for n in (41, 81, 161):
        solution = exit_time(n)
        x = solution.grid.nodes()
        inside = (x**2).sum(-1) < 1
        wanted = (1 - (x**2).sum(-1)) / (2 * 0.49)
        error = np.abs(solution.value - wanted)[inside]
        assert np.mean(error <= solution.error_bar[inside]) >= 0.99
        assert np.all(solution.value[~inside] == 0)
        errors.append(error.max())
    order = np.log2(errors[0] / errors[2]) / 2
    assert 0.8 < order < 1.2  # the ball cuts cells: first order


def test_the_unit_ball_has_its_closed_form():
    problem = hjb.catalogue.get("unit-ball")
    solution = hjb.solve(problem, (41, 41))
    wanted = problem.exact.value(solution.grid.nodes())
    assert np.abs(solution.value - wanted).max() < 1e-12


def perpetual(x):
    """McKean (1965): K - S below S*, (K - S*) (S / S*)^(-gamma) above."""
    gamma = 2 * RATE / SIGMA**2
    edge = K * gamma / (1 + gamma)
    S = np.exp(x[..., 0])
    return np.where(S <= edge, K - S, (K - edge) * (S / edge) ** -gamma)


def perpetual_put(boundary, **fields):
    return hjb.ControlProblem(
        drift=lambda x, a: 0 * x + (RATE - SIGMA**2 / 2),
        diffusion=SIGMA,
        reward=lambda x, a: 0 * x[..., 0],
        domain=hjb.Box(-2.0, 2.0),
        discount=RATE,
        stop=lambda x: np.maximum(K - np.exp(x[..., 0]), 0),
        boundary=boundary,
        **fields,
    )


@pytest.mark.parametrize("n", [101, 201, 401, 801])
@pytest.mark.parametrize("boundary", [hjb.Dirichlet(perpetual), None])
def test_the_perpetual_put_and_its_bar(n, boundary):
    solution = hjb.solve(perpetual_put(boundary), n)
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    error = np.abs(solution.value - perpetual(x))[inside]
    assert error.max() < 2e-5 * (201 / n) ** 1.5 + 2e-6
    assert np.mean(error <= solution.error_bar[inside] + 1e-14) >= 0.99


def test_stopping_in_two_dimensions_equals_stopping_in_one():
    """A second state that plays no part changes nothing; multigrid is used."""
    rules = {
        (0, "low"): hjb.Dirichlet(perpetual),
        (0, "high"): hjb.Dirichlet(perpetual),
        (1, "low"): hjb.Reflecting(),
        (1, "high"): hjb.Reflecting(),
    }
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.stack(
            [0 * x[..., 0] + RATE - SIGMA**2 / 2, -x[..., 1]], -1
        ),
        diffusion=np.diag([SIGMA, 0.3]),
        reward=lambda x, a: 0 * x[..., 0],
        domain=hjb.Box([-2.0, -1.0], [2.0, 1.0]),
        discount=RATE,
        stop=lambda x: np.maximum(K - np.exp(x[..., 0]), 0),
        boundary=rules,
    )
    plane = hjb.solve(problem, (101, 25))
    line = hjb.solve(perpetual_put(hjb.Dirichlet(perpetual)), 101)
    assert np.abs(plane.value - line.value[:, None]).max() < 1e-8
    assert np.array_equal(plane.stopping[:, 7], line.stopping)


def test_two_rights_to_stop_keep_the_value_between_them():
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=0.5,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-3.0, 3.0),
        boundary=hjb.Reflecting(),
        discount=0.2,
        stop=(
            hjb.Stop(lambda x: -0.5 + 0 * x[..., 0], by="controller"),
            hjb.Stop(lambda x: 0.5 + 0 * x[..., 0], by="adversary"),
        ),
    )
    solution = hjb.solve(problem, 201)
    assert solution.value.min() == -0.5
    assert solution.value.max() == 0.5
    odd = solution.value + solution.value[::-1]
    assert np.abs(odd).max() < 1e-10


def test_higher_order_is_refused_where_the_process_may_end_inside():
    with pytest.raises(hjb.MethodMismatch, match="order=1"):
        hjb.solve(perpetual_put(None), 101, hjb.PolicyIteration(order=2))


def test_payoffs_that_cross_are_refused():
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=0.5,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        discount=0.2,
        stop=(
            hjb.Stop(lambda x: x[..., 0], by="controller"),
            hjb.Stop(lambda x: 0 * x[..., 0], by="adversary"),
        ),
    )
    with pytest.raises(hjb.ProblemError, match="better than what the adversary"):
        hjb.solve(problem, 33)


def test_a_region_that_no_node_meets_is_refused():
    with pytest.raises(hjb.ProblemError, match="no node"):
        hjb.solve(
            hjb.ControlProblem(
                drift=lambda x, a: 0 * x,
                diffusion=0.5,
                cost=lambda x, a: 1 + 0 * x[..., 0],
                domain=hjb.Box(-1.0, 1.0),
                exit=hjb.Exit(lambda x: 1 + 0 * x[..., 0]),
            ),
            33,
        )


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: hjb.Exit(1.0), "must be a function"),
        (lambda: hjb.Exit(lambda x: x, np.nan), "must be finite"),
        (lambda: hjb.Stop(1.0), "must be a function"),
        (lambda: hjb.Stop(lambda x: x, by="nobody"), "'controller' or 'adversary'"),
    ],
)
def test_events_that_make_no_sense(build, text):
    with pytest.raises(hjb.ProblemError, match=text):
        build()


def test_simulated_exit_times_meet_the_closed_form():
    """E[tau] from 0 is 1 / (2 sigma^2) = 1.0204 in the unit disc; Euler is late by
    .58 sigma sqrt(dt) in radius (Gobet, Stoch. Proc. Appl. 87 (2000) 167)."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=0.7,
        cost=lambda x, a: 1 + 0 * x[..., 0],
        domain=hjb.Box([-1.5, -1.5], [1.5, 1.5]),
        exit=hjb.Exit(lambda x: 1 - np.sqrt((x**2).sum(-1))),
        boundary=hjb.Reflecting(),
    )
    dt = 1e-3
    paths = hjb.simulate(
        problem, lambda x: np.zeros((len(x), 0)), [0.0, 0.0], 8.0, dt, 2000, seed=3
    )
    spent = paths.rewards[:, -1]
    late = (1 + 0.5826 * 0.7 * np.sqrt(dt)) ** 2
    error = abs(spent.mean() - late / (2 * 0.49))
    assert error < 3 * spent.std() / np.sqrt(2000)


def test_what_does_not_know_a_field_says_so():
    problem = hjb.catalogue.get("american-put")
    with pytest.raises(hjb.MethodMismatch, match="'horizon', 'stop'"):
        hjb.evaluate(problem, 33, lambda x: np.zeros((*x.shape[:-1], 0)))
    with pytest.raises(hjb.MethodMismatch, match="simulate"):
        hjb.simulate(
            problem, lambda x: np.zeros((len(x), 0)), [4.0], 1.0, 0.1, 3, seed=0
        )


def between(a, **fields):
    """Brownian motion on [-a, a], ending at both ends with 0."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=1.0,
        domain=hjb.Box([-1.2], [1.2]),
        exit=hjb.Exit(lambda x: a - np.abs(x[..., 0])),
        boundary=hjb.Reflecting(),
        **fields,
    )


@pytest.mark.parametrize("a", [0.9, 0.93, 0.95])
def test_the_bar_covers_what_exit_nodes_beyond_the_surface_cost(a):
    """E[tau] = a^2 - x^2; at a = 0.93 all grids share the nodes around the surface."""
    problem = between(a, cost=lambda x, a: 1 + 0 * x[..., 0])
    solution = hjb.solve(problem, 401)
    x = np.linspace(-a, a, 999)[1:-1, None]
    error = np.abs(solution.value_at(x) - (a * a - x[:, 0] ** 2))
    bar = solution.error_at(x)
    assert (error <= bar).all()
    assert bar.max() <= 10 * error.max()


@pytest.mark.parametrize("a", [0.9, 0.93])
def test_leaving_before_a_horizon_in_one_dimension(a):
    """V = exp(-lambda (T - t)) cos(pi x / 2a), lambda = pi^2 / 8a^2."""
    T, rate = 0.5, np.pi**2 / (8 * a * a)

    def value(x, t):
        return np.exp(-rate * (T - t)) * np.cos(0.5 * np.pi * x[..., 0] / a)

    problem = between(
        a,
        reward=lambda x, a: 0 * x[..., 0],
        horizon=T,
        terminal=lambda x: value(x, T),
    )
    solution = hjb.solve(problem, 401, times=[0.25])
    x = np.linspace(-a, a, 999)[1:-1, None]
    for t in (0.0, 0.25):
        error = np.abs(solution.value_at(x, t) - value(x, t))
        assert (error <= solution.error_at(x, t)).all()
        assert error.max() < 1e-2


@pytest.mark.parametrize(
    ("drift", "noise", "nodes"),
    [(0.5, 0.1, 41), (0.16, 0.077, 30), (-0.88, 0.086, 116), (0.91, 0.141, 69)],
)
def test_who_is_carried_to_an_exit_against_the_drift(drift, noise, nodes):
    """``(exp(-k x) - exp(-k)) / (1 - exp(-k))`` leave (0, 1) below, k = 2 f / s^2.

    One-sided weights leave noise out, on all grids alike: V was 0 a node from the exit
    for .08, and the bar 2e-15.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: drift + 0.0 * x,
        reward=lambda x, a: 0.0 * x[..., 0],
        diffusion=noise,
        domain=hjb.Box(0.0, 1.0),
        exit=hjb.Exit(
            lambda x: np.minimum(x[..., 0], 1.0 - x[..., 0]),
            lambda x: np.where(x[..., 0] < 0.5, 1.0, 0.0),
        ),
    )
    solution, k = hjb.solve(problem, nodes), 2.0 * drift / noise**2
    x = solution.grid.axes[0]
    below = np.exp(-k * x) if k > 0 else np.exp(-k * (x - 1.0))
    last = np.exp(-k) if k > 0 else 1.0
    exact = (below - last) / ((1.0 if k > 0 else np.exp(k)) - last)
    error = np.abs(solution.value - exact)
    assert np.mean(error <= solution.error_bar + 1e-12) >= 0.99
