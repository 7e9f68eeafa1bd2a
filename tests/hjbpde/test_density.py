"""The law of the controlled process in time: closed forms, mass, sign, limits."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.linalg import expm
from scipy.stats import norm

import hjbpde as hjb
from hjbpde.density import transported

S = 0.5


def ornstein_uhlenbeck(n, method=None):
    """dX = a dt + S dW under the fixed policy a = -x; faces 7 deviations away."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=S,
        reward=lambda x, a: -(x[..., 0] ** 2),
        controls=hjb.Box(-5.0, 5.0),
        domain=hjb.Box(-2.5, 2.5),
        discount=0.5,
        boundary=hjb.Reflecting(),
    )
    return hjb.evaluate(problem, n, lambda x: -x, method)


def moments(solution, density):
    """Mass, mean and variance in one dimension."""
    x, mass = solution.grid.axes[0], density * solution.node_volumes()
    mean = mass @ x / mass.sum()
    return mass.sum(), mean, mass @ (x - mean) ** 2


def variance(t, before=0.0):
    """Of the Ornstein-Uhlenbeck process with rate 1 (v' = -2 v + S^2)."""
    return before * np.exp(-2 * t) + S**2 / 2 * -np.expm1(-2 * t)


@pytest.mark.parametrize("t", [0.01, 0.3, 1.0, 4.0])
def test_mean_and_variance_of_ornstein_uhlenbeck_are_exact_with_central_rows(t):
    """Central rows reproduce L x and L x^2: no error in h, and none in time."""
    solution = ornstein_uhlenbeck(101)
    density = solution.density(t, [1.0])
    mass, mean, spread = moments(solution, density)
    assert mass == pytest.approx(1, abs=1e-12)
    assert mean == pytest.approx(np.exp(-t), abs=1e-9)
    assert spread == pytest.approx(variance(t), abs=1e-9)
    assert density.min() >= 0


def test_the_density_of_ornstein_uhlenbeck_converges_to_the_gaussian_at_order_two():
    gaps = []
    for n in (51, 101, 201):
        solution = ornstein_uhlenbeck(n)
        x = solution.grid.axes[0]
        density = solution.density(0.7, lambda x: norm.pdf(x[..., 0], 1.0, 0.3))
        wanted = norm.pdf(x, np.exp(-0.7), np.sqrt(variance(0.7, 0.09)))
        gaps.append(np.abs(density - wanted).max())
    orders = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert np.abs(orders - 2).max() < 0.15
    assert gaps[-1] < 1e-3


def test_upwind_rows_add_variance_at_order_one():
    """Upwind rows have the noise S^2 + |f| h: the variance is off by O(h) > 0."""
    excess = []
    for n in (201, 401, 801):
        method = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)
        solution = ornstein_uhlenbeck(n, method)
        mass, mean, spread = moments(solution, solution.density(0.7, [1.0]))
        assert mass == pytest.approx(1, abs=1e-12)
        assert mean == pytest.approx(np.exp(-0.7), abs=1e-9)
        excess.append(spread - variance(0.7))
    assert min(excess) > 0
    orders = np.log2(np.array(excess[:-1]) / excess[1:])
    assert np.abs(orders - 1).max() < 0.1


def test_the_law_settles_at_the_stationary_density():
    solution = ornstein_uhlenbeck(101)
    limit = solution.stationary_density()
    for start in (None, [2.0], lambda x: 1.0 + np.sin(3 * x[..., 0])):
        late = solution.density(60.0, start)
        assert np.abs(late - limit).max() < 1e-9
    # From the limit itself nothing moves, and time costs nothing any more.
    assert np.abs(solution.density(1e6, limit) - limit).max() < 1e-9


def test_at_time_zero_the_start_comes_back_and_steps_can_be_chained():
    solution = ornstein_uhlenbeck(51)
    flat = solution.density(0.0)
    assert np.allclose(flat, 1 / 5, rtol=1e-14)
    start = solution.density(0.3, [0.77])
    assert np.array_equal(solution.density(0.0, start), start)
    point = solution.density(0.0, [0.77])
    assert moments(solution, point)[1] == pytest.approx(0.77, abs=1e-14)
    once = solution.density(0.8, [0.77])
    assert np.abs(solution.density(0.5, start) - once).max() < 1e-12


def test_a_killed_walk_loses_mass_at_the_rate_of_the_first_eigenvalue():
    """p = pi sin(pi x) / 2 on (0, 1): mass e^{-s^2 pi^2 t / 2}, order 2 in h.

    On the nodes sin(pi x) is an eigenvector, its rate s^2 (1 - cos(pi h)) / h^2.
    """
    s, t, gaps = 0.4, 1.5, []
    for n in (21, 41, 81):
        problem = hjb.ControlProblem(
            drift=lambda x, a: 0.0 * x,
            diffusion=s,
            reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
            domain=hjb.Box(0.0, 1.0),
            discount=0.1,
            boundary=hjb.Dirichlet(0.0),
        )
        solution = hjb.solve(problem, n)
        h, x = 1 / (n - 1), solution.grid.axes[0]
        start = np.sin(np.pi * x)
        start[[0, -1]] = 0.0
        start /= (start * solution.node_volumes()).sum()
        density = solution.density(t, start)
        mass = (density * solution.node_volumes()).sum()
        rate = s**2 * (1 - np.cos(np.pi * h)) / h**2
        assert mass == pytest.approx(np.exp(-rate * t), rel=1e-12)
        gaps.append(abs(mass - np.exp(-0.5 * (s * np.pi) ** 2 * t)))
    orders = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert np.abs(orders - 2).max() < 0.1


def test_uniformisation_agrees_with_the_dense_exponential():
    """Stretched axes, controlled noise, an exit region, every face another rule."""
    low, high = [0.0, 0.0], [2.0, 1.0]
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.stack((a[..., 0], 0.3 - x[..., 1]), -1),
        diffusion=lambda x, a: 0.3 * np.eye(2) + 0.0 * x[..., None],
        reward=lambda x, a: x[..., 0] - a[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(low, high),
        discount=0.3,
        boundary={
            (0, "low"): hjb.Reflecting(),
            (0, "high"): hjb.Robin(1.0, 1.0, 0.2),
            (1, "low"): hjb.Dirichlet(0.0),
        },
        exit=hjb.Exit(lambda x: x[..., 0] - 0.3),
    )
    axes = [2 * np.linspace(0, 1, 9) ** 1.3, np.linspace(0, 1, 8)]
    solution = hjb.solve(problem, hjb.Grid.from_axes(axes, problem.domain))
    free = (solution.grid.nodes()[..., 0] > 0.3).ravel()
    free &= (solution.grid.nodes()[..., 1] > 0).ravel()
    L = solution.generator().toarray()
    np.fill_diagonal(L, 0.0)
    L -= np.diag(L.sum(1))
    start = np.zeros(72)
    start[5 * 8 + 4] = 1.0
    wanted = np.where(free, expm(0.8 * L.T) @ start, 0.0)
    found = solution.density(0.8, [axes[0][5], axes[1][4]]) * solution.node_volumes()
    assert np.abs(found.ravel() - wanted).max() < 1e-13
    assert 0 < found.sum() < 1


def test_two_modes_exchange_mass_as_their_chain_does():
    """p_0' = -a p_0 + b p_1: p_0 = b/(a+b) + a/(a+b) e^{-(a+b) t} from mode 0."""
    a, b, t = 0.7, 0.2, 1.3
    problem = hjb.ControlProblem(
        drift=lambda x, a, mode: (1.0 - 2.0 * mode) - x,
        diffusion=0.4,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-2.0, 2.0),
        discount=0.5,
        boundary=hjb.Reflecting(),
        modes=hjb.Modes([[-a, a], [b, -b]]),
    )
    solution = hjb.solve(problem, 65)
    density = solution.density(t, [0.5])
    share = (density * solution.node_volumes()).sum(1)
    wanted = b / (a + b) + a / (a + b) * np.exp(-(a + b) * t)
    assert share == pytest.approx([wanted, 1 - wanted], abs=1e-12)
    late = solution.density(80.0, density)
    assert np.abs(late - solution.stationary_density()).max() < 1e-7
    other = solution.density(0.0, [0.5], mode=1)
    assert other[0].max() == 0.0
    assert other[1].max() > 0.0


def test_starts_that_are_no_density_are_refused():
    solution = ornstein_uhlenbeck(51)
    refused = [
        (1.0, [3.0], "outside"),
        (1.0, np.ones(51), "integrates to 5"),
        (1.0, -np.ones(51), "density is >= 0"),
        (1.0, np.ones(17), "shape"),
        (1.0, lambda x: x, "shape"),
        (-1.0, [0.0], "finite time"),
        (np.inf, [0.0], "finite time"),
    ]
    for t, start, message in refused:
        with pytest.raises(hjb.ProblemError, match=message):
            solution.density(t, start)


def test_rows_with_a_negative_rate_are_no_process():
    L = sp.csr_matrix([[1.0, -1.0], [2.0, -2.0]])
    with pytest.raises(hjb.ProblemError, match="rate is negative"):
        transported(L, np.ones(2, bool), np.array([1.0, 0.0]), 1.0)


def test_the_density_of_a_problem_with_a_horizon_is_refused():
    solution = hjb.solve(hjb.catalogue.get("harmonic-oscillator"), 33)
    with pytest.raises(hjb.MethodMismatch, match="density.*horizon"):
        solution.density(0.1, [0.0])
