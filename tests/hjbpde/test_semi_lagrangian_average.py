"""Long-run averages by semi-Lagrangian steps."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

import hjbpde as hjb
from hjbpde.semi_lagrangian.average import AverageSystem, Averaging

CUBIC, LINEAR = hjb.SemiLagrangian(), hjb.SemiLagrangian("linear")


def drawn(seed, d=1, periodic=True):
    """A problem whose average and relative value are drawn: (problem, average, V).

    V is a sum of cosines, on a circle or with slope 0 at the faces; the controls push
    within a box, and the reward is what makes the equation hold.
    """
    rng = np.random.default_rng([seed, 11])
    average, size = rng.normal(), 0.3 * rng.normal(size=3)
    waves = rng.integers(1, 3, (3, d))
    phase = rng.uniform(0, 2 * np.pi, 3) * periodic
    wind, sigma = 0.5 * rng.normal(size=d), np.diag(rng.uniform(0.3, 0.8, d))
    most = float(rng.uniform(0.3, 1.0))
    if d == 2:
        sigma = sigma @ np.array([[1.0, 0.0], [rng.uniform(-0.6, 0.6), 1.0]])

    def angles(x):
        return (x[..., None, :] * waves).sum(-1) + phase

    def V(x):
        return np.sum(size * np.cos(angles(x)), axis=-1)

    def slope(x):
        return ((-size * np.sin(angles(x)))[..., None] * waves).sum(-2)

    def drift(x, a):
        return wind + 0.3 * np.sin(x + 1.0) + a

    def reward(x, a):
        p = slope(x)
        best = np.clip(p, -most, most)
        most_paid = (drift(x, best) * p).sum(-1) - 0.5 * (best**2).sum(-1)
        spread = np.einsum("wi,ij,wj->w", waves, sigma @ sigma.T, waves)
        bend = (-size * np.cos(angles(x)) * spread).sum(-1)
        return average - most_paid - 0.5 * bend - 0.5 * (a**2).sum(-1)

    end = 2 * np.pi if periodic else np.pi
    problem = hjb.ControlProblem(
        drift=drift,
        diffusion=sigma,
        reward=reward,
        controls=hjb.Box([-most] * d, [most] * d),
        domain=hjb.Box([0.0] * d, [end] * d, periodic=[periodic] * d),
        boundary=None if periodic else hjb.Reflecting(),
        average=True,
    )
    centre = np.full((1, d), 0.5 * end)

    def relative(x):
        return np.asarray(V(x)) - np.asarray(V(centre))

    return problem, average, relative


def judged(seed, d, periodic, shape, method):
    """Errors of average and value over their bars, the latter node by node."""
    problem, average, V = drawn(seed, d, periodic)
    solution = hjb.solve(problem, shape, method)
    assert solution.average is not None
    error = np.abs(solution.value - V(solution.grid.nodes()))
    off = abs(solution.average - average)
    return off / solution.report.details["average_error"], error / solution.error_bar


def errors(problem, average, V, shapes, method):
    """Errors of average and value on several grids, each within its bar."""
    found = []
    for n in shapes:
        solution = hjb.solve(problem, n, method)
        off = abs(solution.average - average)
        assert off <= solution.report.details["average_error"]
        x = solution.grid.nodes()
        inside = solution.region.contains(x)
        error = np.abs(solution.value - V(x))[inside]
        assert np.mean(error <= solution.error_bar[inside] + 1e-13) >= 0.99
        found.append((off, error.max()))
    return np.array(found)


@pytest.mark.parametrize("periodic", [True, False], ids=["circle", "reflected"])
@pytest.mark.parametrize(("method", "order"), [(CUBIC, 2), (LINEAR, 1)])
def test_average_and_value_converge_at_the_order_of_the_readings(
    method, order, periodic
):
    shapes = (65, 129, 257) if periodic is False else (64, 128, 256)
    found = errors(*drawn(1, 1, periodic), shapes, method)
    seen = np.log2(found[0] / found[-1]) / 2
    assert np.all(np.abs(seen - order) < 0.35)


def regulator():
    """Cost x^2 + a^2, drift a: V = x^2, average sigma^2 (Riccati: 1 - P^2 = 0)."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.5,
        cost=lambda x, a: (x * x + a * a).sum(-1),
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(-2.0, 2.0),
        average=True,
    )


def test_cubic_readings_reproduce_the_regulator():
    """Parabolas are read exactly, the step is exact for them, and slopes continue."""
    found = errors(regulator(), 0.25, lambda x: x[..., 0] ** 2, (51,), CUBIC)
    assert found.max() < 1e-10


def test_linear_readings_find_the_regulators_average_at_order_one():
    shapes = (51, 101, 201)
    found = errors(regulator(), 0.25, lambda x: x[..., 0] ** 2, shapes, LINEAR)[:, 0]
    assert np.all(np.abs(np.log2(found[:-1] / found[1:]) - 1) < 0.15)


def test_reflecting_faces_cut_the_density():
    """Bang-bang towards 0: E[x^2] under exp(-2 |x| / sigma^2) on [-1, 1]."""
    s2 = 0.36
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.6,
        cost=lambda x, a: x[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        average=True,
    )
    over = quad(lambda x: x * x * np.exp(-2 * x / s2), 0, 1)[0]
    wanted = over / quad(lambda x: np.exp(-2 * x / s2), 0, 1)[0]
    off = []
    for n in (51, 101, 201):
        solution = hjb.solve(problem, n, CUBIC)
        off.append(abs(solution.average - wanted))
        assert off[-1] <= solution.report.details["average_error"]
    assert abs(np.log2(off[0] / off[-1]) / 2 - 2) < 0.35


def test_two_states_with_correlated_noise_lie_within_their_bars():
    for method in (CUBIC, LINEAR):
        off, error = judged(6, 2, True, (24, 24), method)
        assert off <= 1
        assert np.mean(error <= 1) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_bars_cover_averages_drawn_at_random(seed):
    rng = np.random.default_rng([seed, 12])
    d, periodic = (2, True) if seed % 5 == 0 else (1, rng.random() < 0.5)
    shape = int(rng.integers(40, 80)) if d == 1 else (int(rng.integers(20, 30)),) * 2
    off, error = judged(seed, d, periodic, shape, CUBIC)
    assert off <= 1
    assert np.mean(error <= 1) >= 0.99


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_finite_differences_within_both_bars(seed, assert_agreement):
    problem, _, _ = drawn(20 + seed, 1, seed % 2 == 0)
    for method in (CUBIC, LINEAR):
        assert_agreement(problem, 57, method)
    ours, other = hjb.solve(problem, 57), hjb.solve(problem, 57, CUBIC)
    room = sum(one.report.details["average_error"] for one in (ours, other))
    assert abs(ours.average - other.average) <= room


def walled():
    """A wall that only controls keep the state from: steps beside it are short."""
    return hjb.ControlProblem(
        drift=lambda x, a: a - 0.2,
        diffusion=lambda x, a: 0.5 * np.sqrt(np.maximum(x, 0.0))[..., None],
        reward=lambda x, a: np.sin(2 * x[..., 0]) - 0.5 * a[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 2.0),
        boundary={(0, "low"): hjb.StateConstraint(), (0, "high"): hjb.Reflecting()},
        average=True,
    )


def test_short_steps_beside_a_wall_are_charged_for_their_own_time():
    ours, other = hjb.solve(walled(), 81), hjb.solve(walled(), 81, CUBIC)
    room = sum(one.report.details["average_error"] for one in (ours, other))
    assert abs(ours.average - other.average) <= room
    assert room <= 0.1 * abs(ours.average)


def test_the_settled_value_is_a_fixed_point_of_the_charged_step():
    """V + lambda tau = gain + mean V(branches), row by row from the step itself."""
    problem, _, _ = drawn(3)
    system = Averaging(problem, hjb.Grid(problem.domain, 40), CUBIC).solve()[-1]
    assert isinstance(system, AverageSystem)
    (level,) = system.levels
    step = level.look.step(level.a)
    tau = step.share * level.look.delta
    level.look.toll = 0.0
    paid = level.look.step(level.a).value(system.read(), level.look.lattice)
    left = paid - level.V.ravel() - system.average * tau
    assert np.abs(left).max() <= 1e-9 * level.scale
    centre = level.grid.shape[0] // 2
    assert level.V[centre] == pytest.approx(0.0, abs=1e-12)


def test_ends_are_refused_and_basins_apart_have_no_average():
    problem = hjb.ControlProblem(
        drift=lambda x, a: x * (1 - x * x),
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-1.5, 1.5),
        boundary=hjb.Reflecting(),
        average=True,
    )
    with pytest.raises(hjb.NotConverged):
        hjb.solve(problem, 41, CUBIC)
    with pytest.raises(hjb.MethodMismatch, match="WENO"):
        hjb.solve(problem, 41, hjb.SemiLagrangian("weno"))
    ended = replace(problem, boundary=hjb.Dirichlet(0.0))
    with pytest.raises(hjb.ProblemError, match="nothing may end"):
        hjb.solve(ended, 41, CUBIC)
