"""Numbers of nodes that cannot be halved: nested grids end in an odd cell."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.defect import AxisStencil, along

RHO, SIGMA = 0.3, 0.5
DECAY = RHO + 0.5 * SIGMA**2
COUNTS = [64, 65, 66, 67, 129, 130]
DOMAINS = pytest.mark.parametrize(
    "periodic", [True, False], ids=["around", "reflecting"]
)


def paid_a_cosine(periodic, **more):
    """cos x is paid to a Brownian motion, around a circle or between two mirrors."""
    rules = {} if periodic else {"boundary": hjb.Reflecting()}
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a: np.cos(x[..., 0]),
        discount=RHO,
        diffusion=SIGMA,
        domain=hjb.Box(-np.pi, np.pi, periodic=periodic),
        **rules,
        **more,
    )


@DOMAINS
@pytest.mark.parametrize("nodes", COUNTS)
def test_bars_with_a_horizon(nodes, periodic):
    """On 66 or 130 nodes (65 or 129 around) they were up to 16 times too small."""
    end = {"horizon": 1.0, "terminal": lambda x: np.cos(x[..., 0])}
    solution = hjb.solve(paid_a_cosine(periodic, **end), nodes, times=[0.0])
    wanted = np.exp(-DECAY) + (1.0 - np.exp(-DECAY)) / DECAY
    error = np.abs(solution.value[0] - wanted * np.cos(solution.grid.axes[0]))
    assert (error <= solution.error_bar[0]).mean() >= 0.99
    assert error.max() < 4e-5
    assert solution.error_bar[0].max() < 4e-4


@DOMAINS
@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("nodes", COUNTS)
def test_bars_without_one(nodes, order, periodic):
    """Around a circle on 65 nodes they were as large as V."""
    method = hjb.PolicyIteration(order=order)
    solution = hjb.solve(paid_a_cosine(periodic), nodes, method)
    error = np.abs(solution.value - np.cos(solution.grid.axes[0]) / DECAY)
    assert (error <= solution.error_bar).all()
    assert solution.error_bar.max() < {2: 2.0, 4: 50.0}[order] * error.max()


@pytest.mark.parametrize("order", [2, 4])
def test_differences_across_an_uneven_seam(order):
    """Of order `order` on every second node of an odd number around a circle."""
    errors = []
    for n in (65, 129):
        grid = hjb.Grid(hjb.Box(-np.pi, np.pi, periodic=True), (n,)).coarsened()
        x = grid.axes[0]
        first, _ = along(grid, 0, AxisStencil.of(grid, 0, order), np.sin(x))
        errors.append(np.abs(first - np.cos(x)).max())
    assert order - 0.3 < np.log2(errors[0] / errors[1]) < order + 0.3


@pytest.mark.parametrize("shape", [(50, 50), (64, 81), (82, 82)])
def test_distances_to_a_square_on_any_number_of_nodes(shape):
    """Bars of sweeping were infinite on even counts: no coarser grid halves there.

    Both speeds are bounded by 1, so that distances are those of the larger coordinate.
    """

    def distance(x):
        return np.maximum(np.abs(x[..., 0] - 0.1), np.abs(x[..., 1])) - 0.3

    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        exit=hjb.Exit(distance),
    )
    solution = hjb.solve(problem, shape)
    error = np.abs(solution.value - np.maximum(distance(solution.grid.nodes()), 0.0))
    assert np.mean(error <= solution.error_bar + 1e-14) >= 0.99
    # The surface cuts cells: first order, a cell at most.
    assert solution.error_bar.max() <= 2.0 / (min(shape) - 1)
