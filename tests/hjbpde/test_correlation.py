"""Noise correlated between axes: stencils, rows, values and bars.

Values are exact by construction: the reward is chosen so that a sum of plane waves
solves the HJB, a nonlinear one that does not separate.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.kernels.selling import add_rates, decompose_nodes
from hjbpde.mdp import policy_iteration
from hjbpde.methods.state import make_state
from hjbpde.offsets import pairs_of
from hjbpde.tabulate import tabulate

MONOTONE = hjb.PolicyIteration(order=1)
WAVES = {
    2: np.array([[1.0, 0.6], [-0.7, 1.1], [1.3, -0.4]]),
    3: np.array([[1.0, 0.6, -0.5], [-0.7, 1.1, 0.4], [0.3, -0.8, 0.9]]),
}
SIZES, PHASES = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.9, -0.4])


def value(x):
    return (SIZES * np.sin(x @ WAVES[x.shape[-1]].T + PHASES)).sum(-1)


def gradient(x):
    waves = WAVES[x.shape[-1]]
    return (SIZES * np.cos(x @ waves.T + PHASES)) @ waves


def hessian(x):
    waves = WAVES[x.shape[-1]]
    sines = SIZES * np.sin(x @ waves.T + PHASES)
    return -np.einsum("...m,mi,mj->...ij", sines, waves, waves)


def correlated(d, rho, deviations):
    """sigma (d, d) with these standard deviations and one correlation for all."""
    R = np.full((d, d), float(rho)) + (1 - rho) * np.eye(d)
    return np.asarray(deviations)[:, None] * np.linalg.cholesky(R)


def problem_of(d, sigma, boundary=None, **changes):
    """``f = f0(x) + a``, ``r = S(x) - |a|^2 / 4`` with S such that V is `value`."""

    def noise(x):
        return sigma(x) if callable(sigma) else np.asarray(sigma)

    def free(x):
        return -0.4 * x + 0.3 * np.sin(np.roll(x, 1, -1))

    def reward(x, a):
        p, s = gradient(x), noise(x)
        bend = 0.5 * np.einsum("...ik,...jk,...ij->...", s, s, hessian(x))
        source = 0.3 * value(x) - bend - ((free(x) + p) * p).sum(-1)
        return source - 0.25 * (a * a).sum(-1)

    fields = {
        "drift": lambda x, a: free(x) + a,
        "diffusion": (lambda x, a: sigma(x)) if callable(sigma) else sigma,
        "reward": reward,
        "controls": hjb.Box([-np.inf] * d, [np.inf] * d),
        "domain": hjb.Box([-1.0] * d, [1.0] * d),
        "discount": 0.3,
        "boundary": hjb.Dirichlet(value) if boundary is None else boundary,
    }
    return hjb.ControlProblem(**{**fields, **changes})


def slopes_at_faces(alpha):
    """Robin rules that the exact value meets."""
    rules = {}
    for k, (side, sign) in itertools.product(range(2), (("low", -1.0), ("high", 1.0))):

        def data(x, k=k, sign=sign):
            return alpha * value(x) + sign * gradient(x)[..., k]

        rules[k, side] = hjb.Robin(alpha, 1.0, data)
    return rules


def rotating(ratio):
    """Noise of standard deviations .8 and .8 / ratio along turning directions."""

    def sigma(x):
        angle = 1.3 * x[..., 0] + 0.7 * x[..., 1]
        c, s = np.cos(angle), np.sin(angle)
        columns = np.stack([c, s], -1), np.stack([-s, c], -1) / ratio
        return 0.8 * np.stack(columns, -1)

    return sigma


def measured(solution):
    """Largest error and the share of nodes whose bar covers theirs."""
    error = np.abs(solution.value - value(solution.grid.nodes()))
    return float(error.max()), float(np.mean(error <= solution.error_bar))


# --- the decomposition --------------------------------------------------------


def decomposed(M, longest):
    """Axes' weights, offsets, weights and share lowered of one matrix (d, d)."""
    d = len(M)
    diagonal = np.ascontiguousarray(np.diag(M)[:, None])
    pairs = np.array([[M[i, j]] for i, j in pairs_of(d)])
    most = d * (d + 1) // 2
    axis, share, weights = np.empty((d, 1)), np.empty(1), np.empty((most, 1))
    offsets = np.zeros((most, d, 1), int)
    bad = decompose_nodes(diagonal, pairs, longest, axis, offsets, weights, share)
    assert bad == -1
    return axis[:, 0], offsets[..., 0], weights[:, 0], float(share[0])


def rebuilt(axis, offsets, weights):
    return np.diag(axis) + np.einsum("k,ki,kj->ij", weights, offsets, offsets)


def covariances():
    """Covariance matrices of two or three axes, of any size and shape."""
    entry = st.floats(-1.0, 1.0, allow_nan=False)
    sizes = st.floats(-2.0, 2.0)

    def build(d):
        square = st.lists(entry, min_size=d * d, max_size=d * d)
        scales = st.lists(sizes, min_size=d, max_size=d)
        return st.tuples(square, scales).map(
            lambda both: (
                np.exp(np.array(both[1]))[:, None]
                * (np.array(both[0]).reshape(d, d) + 0.01 * np.eye(d))
            )
        )

    return st.sampled_from((2, 3)).flatmap(build)


@settings(max_examples=150, deadline=None)
@given(covariances())
def test_decompositions_rebuild_the_matrix_with_weights_that_are_not_negative(sigma):
    M = sigma @ sigma.T
    axis, offsets, weights, share = decomposed(M, 10_000)
    assert (axis >= 0).all() and (weights >= 0).all()
    if share == 0.0:
        gap = np.abs(rebuilt(axis, offsets, weights) - M).max()
        assert gap <= 1e-12 * np.trace(M)


@settings(max_examples=100, deadline=None)
@given(covariances(), st.integers(1, 6))
def test_short_offsets_lower_correlations_and_keep_variances(sigma, longest):
    M = sigma @ sigma.T
    axis, offsets, weights, share = decomposed(M, longest)
    assert np.abs(offsets[weights > 0]).max(initial=0) <= longest
    lowered = M * (1 - share) + share * np.diag(np.diag(M))
    gap = np.abs(rebuilt(axis, offsets, weights) - lowered).max()
    assert gap <= 1e-12 * np.trace(M)


def test_dominant_matrices_give_the_seven_point_stencil():
    """[[2, -1], [-1, 3]]: the diagonal (1, -1) with weight 1, 1 and 2 on the axes."""
    axis, offsets, weights, share = decomposed(np.array([[2.0, -1.0], [-1.0, 3.0]]), 1)
    assert share == 0.0
    assert np.allclose(axis, [1.0, 2.0])
    assert [tuple(e) for e in offsets[weights > 0]] == [(1, -1)]
    assert np.allclose(weights[weights > 0], 1.0)


def test_selling_finds_the_offsets_of_a_known_matrix():
    """(2, 1)(2, 1)' + (1, 1)(1, 1)' + 2 (1, 0)(1, 0)' is its own decomposition."""
    M = np.array([[7.0, 3.0], [3.0, 2.0]])
    axis, offsets, weights, _ = decomposed(M, 10)
    found = {tuple(np.abs(e)): w for e, w in zip(offsets, weights, strict=True) if w}
    assert found == pytest.approx({(2, 1): 1.0, (1, 1): 1.0})
    assert np.allclose(axis, [2.0, 0.0])


# --- rows ---------------------------------------------------------------------


def state_of(problem, shape):
    grid = hjb.Grid(problem.domain, shape)
    faces = Faces.of(problem, grid)
    return make_state(faces, tabulate(problem, grid, faces), hjb.Hybrid().code)


def slow_rows(state):
    """The off-axis rates node by node, from the definition, inside the domain."""
    grid, noise = state.grid, state.noise
    number = np.arange(grid.size).reshape(grid.shape)
    steps = np.array([x[1] - x[0] for x in grid.axes])
    dense, axes = np.zeros((grid.size, grid.size)), np.zeros((2, grid.size))
    D = noise.axis + noise.own
    for n, place in enumerate(np.ndindex(grid.shape)):
        M = np.diag(D[:, n] / steps**2)
        M[0, 1] = M[1, 0] = noise.pairs[0, n] / steps.prod()
        axis, offsets, weights, _ = decomposed(M, 3)
        axes[:, n] = axis * steps**2
        for e, w in zip(offsets, weights, strict=True):
            for sign in (1, -1):
                to = np.array(place) + sign * e
                if w and ((to >= 0) & (to < grid.shape)).all():
                    dense[n, number[tuple(to)]] += w
    return dense, axes


def test_rows_are_those_of_the_definition_away_from_faces():
    """Oracle: offsets and weights of every node put into a dense matrix in a loop."""
    state = state_of(problem_of(2, rotating(4.0)), (11, 13))
    dense, axes = slow_rows(state)
    inside = np.zeros(state.grid.shape, bool)
    inside[4:-4, 4:-4] = True
    inside = inside.ravel()
    found = state.noise.rates.toarray()
    assert np.allclose(found[inside], dense[inside], rtol=1e-12, atol=1e-12)
    assert np.allclose(state.noise.axis[:, inside], axes[:, inside], atol=1e-12)
    out, V = np.zeros(state.grid.size), np.random.default_rng(0).random(state.grid.size)
    rates = state.noise.rates
    add_rates(rates.indptr, rates.indices, rates.data, V, out)
    assert np.allclose(out, found @ V - found.sum(1) * V)


@pytest.mark.parametrize("shape", [(21, 21), (20, 17)])
def test_rows_are_exact_on_quadratics_wherever_no_face_cuts_between_nodes(shape):
    """Second differences along offsets, cut arms included, are exact on quadratics.

    Where a cut arm ends between nodes of the face, V is read linearly there: with data
    that are linear along the face even that is exact.
    """
    sigma = correlated(2, 0.9, (0.8, 0.4))
    state = state_of(problem_of(2, sigma), shape)
    x = state.grid.nodes().reshape(-1, 2)
    D = 0.5 * sigma @ sigma.T
    V = 0.7 * x[:, 0] * x[:, 1] + 0.3 * x[:, 0] - 0.2 * x[:, 1]
    out = np.zeros(len(x))
    state.noise.add_to(out, V, state.faces)
    free = ~state.faces.fixed_mask.ravel()
    assert np.allclose(out[free], 2 * 0.7 * D[0, 1], atol=1e-11)


def test_the_generator_is_that_of_a_chain_and_counts_every_covariance():
    """L x_i x_j = D-part: second moments of the chain are those of the noise."""
    sigma = correlated(2, 0.8, (0.6, 0.5))
    problem = problem_of(2, sigma, hjb.Reflecting())
    solution = hjb.solve(problem, 41, MONOTONE)
    L = solution.generator()
    off = L.toarray()
    np.fill_diagonal(off, 0.0)
    assert off.min() >= 0.0
    assert np.abs(L @ np.ones(len(off))).max() < 1e-9
    x = solution.grid.nodes().reshape(-1, 2)
    drift = L @ x
    inner = (np.abs(x) < 0.8).all(axis=1)
    both = L @ (x[:, 0] * x[:, 1]) - x[:, 0] * drift[:, 1] - x[:, 1] * drift[:, 0]
    assert np.allclose(both[inner], (sigma @ sigma.T)[0, 1], atol=1e-10)
    assert solution.stationary_density().min() >= 0.0


# --- values -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "deviations"),
    [(0.5, (0.8, 0.8)), (0.9, (0.8, 0.8)), (-0.9, (0.8, 0.5)), (0.9, (0.8, 0.3))],
)
def test_correlated_values_converge_at_second_order_and_are_covered(rho, deviations):
    problem = problem_of(2, correlated(2, rho, deviations))
    errors = []
    for n in (51, 101):
        error, covered = measured(hjb.solve(problem, n))
        errors.append(error)
        assert covered >= 0.99
    assert errors[-1] < 2e-4
    assert abs(np.log2(errors[0] / errors[1]) - 2.0) < 0.25


@pytest.mark.parametrize(
    ("rho", "deviations", "least"),
    [(0.5, (0.8, 0.8), 3.7), (0.9, (0.8, 0.8), 3.7), (0.9, (0.8, 0.3), 3.4)],
)
def test_order_four_is_reached_along_the_offsets(rho, deviations, least):
    problem, method = (
        problem_of(2, correlated(2, rho, deviations)),
        hjb.PolicyIteration(order=4),
    )
    coarse, fine = (hjb.solve(problem, n, method) for n in (51, 101))
    errors = [measured(s)[0] for s in (coarse, fine)]
    assert least < np.log2(errors[0] / errors[1]) < 4.3
    assert measured(fine)[1] >= 0.99


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_three_correlated_axes_converge_at_second_order(rho):
    problem = problem_of(3, correlated(3, rho, (0.8, 0.7, 0.6)))
    found = [measured(hjb.solve(problem, n)) for n in (13, 25)]
    assert abs(np.log2(found[0][0] / found[1][0]) - 2.0) < 0.35
    assert min(covered for _, covered in found) >= 0.99


def test_upwind_values_converge_at_first_order_and_are_covered():
    problem = problem_of(2, rotating(4.0))
    method = hjb.PolicyIteration(hjb.Upwind(), order=1)
    found = [measured(hjb.solve(problem, n, method)) for n in (51, 101)]
    assert abs(np.log2(found[0][0] / found[1][0]) - 1.0) < 0.15
    assert min(covered for _, covered in found) >= 0.99


@pytest.mark.parametrize("seed", range(6))
def test_bars_cover_problems_drawn_at_random(seed, monkeypatch):
    """Waves, correlation, deviations, faces and numbers of nodes: nothing is chosen."""
    rng = np.random.default_rng(seed)
    monkeypatch.setitem(WAVES, 2, 1.2 * rng.normal(size=(3, 2)))
    rho, deviations = rng.uniform(-0.97, 0.97), np.exp(rng.uniform(-1.6, 0.2, 2))
    faces = {
        face: rule if rng.random() < 0.5 else hjb.Dirichlet(value)
        for face, rule in slopes_at_faces(rng.uniform(0.0, 0.6)).items()
    }
    problem = problem_of(2, correlated(2, rho, deviations), faces)
    _, covered = measured(hjb.solve(problem, tuple(rng.integers(33, 90, 2))))
    assert covered >= 0.99


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_faces_with_slopes_keep_second_order(alpha):
    """The mixed derivative on such a face is the tangential one of its data."""
    sigma = correlated(2, 0.7, (0.8, 0.6))
    problem = problem_of(2, sigma, slopes_at_faces(alpha))
    found = [measured(hjb.solve(problem, n)) for n in (26, 51, 101)]
    orders = np.log2([a[0] / b[0] for a, b in itertools.pairwise(found)])
    assert np.abs(orders - 2.0).max() < 0.2
    assert min(covered for _, covered in found) >= 0.99


def test_long_arms_are_mirrored_by_faces_with_slopes():
    problem = problem_of(2, correlated(2, 0.9, (0.8, 0.3)), slopes_at_faces(0.5))
    found = [measured(hjb.solve(problem, n)) for n in (51, 101)]
    assert abs(np.log2(found[0][0] / found[1][0]) - 2.0) < 0.35
    assert min(covered for _, covered in found) >= 0.99


def test_grids_whose_last_step_is_shorter_are_taken():
    """Halving 90 x 77 nodes leaves short last steps on the coarser grids."""
    problem = problem_of(2, correlated(2, 0.9, (0.8, 0.5)))
    error, covered = measured(hjb.solve(problem, (90, 77)))
    assert error < 2e-4
    assert covered >= 0.99


def test_nearly_degenerate_noise_is_solved_and_its_lowered_share_reported():
    """One Brownian motion drives both axes: no finite offset lies along it."""
    problem = problem_of(2, np.array([[0.8], [0.37]]))
    solution = hjb.solve(problem, 51)
    error, covered = measured(solution)
    assert error < 2e-2
    assert covered >= 0.99
    assert any("nearly degenerate" in line for line in solution.report.checks)


def test_rotating_the_state_gives_the_same_value():
    """y = T x with T such that the noise is independent in y: one value, two grids.

    On the whole line: V of a linear drift and a bounded reward, deep inside.
    """
    sigma = correlated(2, 0.8, (0.5, 0.5))
    T = np.linalg.inv(np.linalg.cholesky(sigma @ sigma.T)) * 0.5

    def reward(x):
        return np.exp(-((x[..., 0] - 0.3) ** 2) - x[..., 1] ** 2 + 0.5 * x[..., 0])

    def problem(noise, to_x, half):
        return hjb.ControlProblem(
            drift=lambda y, a: -0.5 * y,
            diffusion=noise,
            reward=lambda y, a: reward(y @ to_x.T),
            domain=hjb.Box([-half] * 2, [half] * 2),
            discount=0.5,
            boundary=hjb.Reflecting(),
        )

    one = hjb.solve(problem(sigma, np.eye(2), 4.0), 121)
    other = hjb.solve(problem(0.5, np.linalg.inv(T), 5.0), 121)
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (200, 2))
    gap = np.abs(one.value_at(x) - other.value_at(x @ T.T))
    bars = one.error_at(x) + other.error_at(x @ T.T)
    assert gap.max() < 2e-3
    assert np.mean(gap <= bars) >= 0.99


# --- what is refused ----------------------------------------------------------


def test_correlated_noise_that_depends_on_the_control_is_refused():
    def sigma(x, a):
        one = np.array([[0.3, 0.0], [0.2, 0.3]])
        return (1.0 + 0.1 * a[..., 0])[..., None, None] * one

    problem = problem_of(
        2,
        0.3 * np.eye(2),
        diffusion=sigma,
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
    )
    with pytest.raises(hjb.StabilityError, match="depends on the control"):
        hjb.solve(problem, 11)


def test_an_unevenly_spaced_correlated_axis_is_refused():
    problem = problem_of(2, correlated(2, 0.5, (0.5, 0.5)))
    axis = np.linspace(-1, 1, 21)
    grid = hjb.Grid.from_axes([axis, np.sin(np.pi / 2 * axis)], problem.domain)
    with pytest.raises(hjb.ProblemError, match="axis 1 is unevenly spaced"):
        hjb.solve(problem, grid)


def test_a_face_without_word_on_mixed_derivatives_is_refused():
    problem = problem_of(2, correlated(2, 0.5, (0.5, 0.5)), hjb.Extrapolate())
    with pytest.raises(hjb.ProblemError, match="mixed derivatives"):
        hjb.solve(problem, 21)


def test_four_axes_correlated_too_strongly_are_refused():
    d = 4
    problem = hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=correlated(d, 0.9, (0.5,) * d),
        reward=lambda x, a: np.cos(x).sum(-1),
        domain=hjb.Box([-1.0] * d, [1.0] * d),
        discount=0.5,
        boundary=hjb.Reflecting(),
    )
    with pytest.raises(hjb.StabilityError, match="correlates 4 axes"):
        hjb.solve(problem, 7)


# --- with a horizon ------------------------------------------------------------


def exchange_option(rho, r=0.05, deviations=(0.3, 0.2)):
    """The right to give S_2 for S_1 at T = 1, in log prices.

    Margrabe, Journal of Finance 33 (1978) 177, equation 7: ``S_1 N(d_1) - S_2 N(d_2)``
    with the variance ``s_1^2 + s_2^2 - 2 rho s_1 s_2`` of the ratio.
    """
    one, two = deviations

    def price(x, t):
        left = np.maximum(1.0 - t, 1e-12)
        s = np.sqrt((one**2 + two**2 - 2 * rho * one * two) * left)
        d = (x[..., 0] - x[..., 1]) / s + 0.5 * s
        return np.exp(x[..., 0]) * ndtr(d) - np.exp(x[..., 1]) * ndtr(d - s)

    def payoff(x):
        return np.maximum(np.exp(x[..., 0]) - np.exp(x[..., 1]), 0.0)

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + r - 0.5 * np.array(deviations) ** 2,
        diffusion=correlated(2, rho, deviations),
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([-0.8, -0.8], [0.8, 0.8]),
        discount=r,
        horizon=1.0,
        terminal=payoff,
        boundary=hjb.Dirichlet(price),
    )
    return problem, price


@pytest.mark.parametrize(("rho", "bound"), [(0.6, 1e-4), (-0.8, 1e-3)])
def test_exchange_options_meet_margrabes_formula(rho, bound):
    """At -.8 the second axis has no noise of its own: first order in its drift."""
    problem, price = exchange_option(rho)
    solution = hjb.solve(problem, 41, hjb.Marching(steps=16, levels=2), times=[0.0])
    exact = price(solution.grid.nodes(), 0.0)
    error = np.abs(solution.value[0] - exact)
    assert error.max() < bound * exact.max()
    assert np.mean(error <= solution.error_bar[0]) >= 0.99


# --- the catalogue ---------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["exact", None])
def test_the_manufactured_problem_takes_a_correlation(boundary):
    problem = hjb.catalogue.get(
        "manufactured", dimension=2, correlation=0.6, boundary=boundary
    )
    solution = hjb.solve(problem, 81)
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    error = np.abs(solution.value - problem.exact.value(x))[inside]
    assert error.max() < 1e-3
    assert np.mean(error <= solution.error_bar[inside]) >= 0.99


def test_the_manufactured_problem_refuses_what_is_no_correlation():
    for correlation in (1.0, -0.6):
        with pytest.raises(hjb.ProblemError, match="correlation"):
            hjb.catalogue.get("manufactured", dimension=3, correlation=correlation)
    own = {
        "value": lambda x: x[..., 0],
        "gradient": lambda x: 1.0 + 0.0 * x,
        "laplacian": lambda x: 0.0 * x[..., 0],
    }
    with pytest.raises(hjb.ProblemError, match="mixed derivatives"):
        hjb.catalogue.get("manufactured", dimension=2, correlation=0.5, **own)


def test_fixed_policies_and_chains_feel_the_covariances():
    """The computed policy is worth the value; so is the chain's own solution."""
    problem = problem_of(2, correlated(2, 0.8, (0.8, 0.5)))
    solution = hjb.solve(problem, 31, MONOTONE)
    own = hjb.evaluate(problem, solution.grid, solution.control)
    assert np.abs(own.value - solution.value).max() < 1e-8
    found = policy_iteration(solution.as_mdp())
    assert np.abs(found.value - solution.value.ravel()).max() < 1e-8


# --- other kinds of problems -----------------------------------------------------


def steered(**changes):
    """Drift -x / 2 + a in a box, noise with correlation .8."""
    fields = {
        "drift": lambda x, a: -0.5 * x + a,
        "diffusion": correlated(2, 0.8, (0.5, 0.4)),
        "reward": lambda x, a: np.cos(2 * x[..., 0] + x[..., 1]) - 0.5 * (a**2).sum(-1),
        "controls": hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        "domain": hjb.Box([-1.5, -1.5], [1.5, 1.5]),
        "discount": 0.4,
        "boundary": hjb.Reflecting(),
    }
    return hjb.ControlProblem(**{**fields, **changes})


FEW = hjb.Finite([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": lambda x: 0.3 - x[..., 0] ** 2},
        {"exit": hjb.Exit(lambda x: (x**2).sum(-1) - 0.25, 0.5)},
        {"modes": hjb.Modes(np.array([[-0.5, 0.5], [1.0, -1.0]]))},
        {"controls": FEW, "boundary": None},
    ],
    ids=["stop", "exit", "modes", "finite controls, artificial faces"],
)
def test_other_kinds_take_correlated_noise_and_agree_between_grids(changes):
    coarse, fine = (hjb.solve(steered(**changes), n) for n in (31, 61))
    gap = np.abs(coarse.value - fine.value[..., ::2, ::2])
    covered = gap <= coarse.error_bar + fine.error_bar[..., ::2, ::2]
    inside = coarse.region.contains(coarse.grid.nodes(), 1e-12)
    assert np.mean(covered[..., inside]) >= 0.99


def test_averages_are_those_of_the_stationary_density():
    solution = hjb.solve(steered(average=True, discount=0.0), 31)
    x, volumes = solution.grid.nodes(), solution.node_volumes()
    reward = np.cos(2 * x[..., 0] + x[..., 1]) - 0.5 * (solution.control**2).sum(-1)
    mean = (solution.stationary_density() * reward * volumes).sum()
    assert abs(mean - solution.average) < 1e-7


def test_periodic_axes_wrap_the_arms():
    """V = sin(pi (x + 2 y)) on the torus; 50 nodes can be halved only once."""
    sigma = correlated(2, 0.6, (0.6, 0.5))
    wave = np.pi * np.array([1.0, 2.0])
    rate = 0.5 * wave @ sigma @ sigma.T @ wave

    def exact(x):
        return np.sin(x @ wave)

    def reward(x, a):
        return (0.5 + rate) * exact(x) - 0.3 * np.cos(x @ wave) * wave.sum()

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.3 + 0.0 * x,
        diffusion=sigma,
        reward=reward,
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0], periodic=(True, True)),
        discount=0.5,
    )
    errors = []
    for n in (32, 50, 64):
        solution = hjb.solve(problem, n)
        error = np.abs(solution.value - exact(solution.grid.nodes()))
        assert np.mean(error <= solution.error_bar) >= 0.99
        errors.append(error.max())
    assert abs(np.log2(errors[0] / errors[2]) - 2.0) < 0.2


def test_paths_have_the_covariance_and_earn_the_value():
    """Simulation knows sigma itself: nothing of the grid's decomposition."""
    solution = hjb.solve(steered(), 61)
    start = np.array([0.2, 0.1])
    paths = solution.simulate(start, 12.0, 0.02, 2000, seed=3)
    earned, worth = paths.rewards[:, -1], float(solution.value_at(start))
    # After the horizon at most sup r / rho is earned; a step of .02 costs about 1e-2.
    rest = np.exp(-0.4 * 12.0) / 0.4
    spread = 3 * earned.std() / np.sqrt(len(earned))
    assert abs(earned.mean() - worth) < spread + rest + 0.01
