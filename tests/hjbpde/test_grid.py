"""Grids: refinement, interpolation and periodicity are exact by their definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hjbpde as hjb

SHAPES = st.lists(st.integers(4, 9), min_size=1, max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32 - 1)


def stretched(seed: int, shape: tuple[int, ...]) -> hjb.Grid:
    rng = np.random.default_rng(seed)
    return hjb.Grid.from_axes(
        [np.cumsum(0.2 + rng.random(n)) - 2 for n in shape],
    )


@given(SHAPES, SEEDS)
def test_refining_then_coarsening_gives_the_grid_back(shape, seed):
    grid = stretched(seed, shape)
    assert grid.refined().coarsened().matches(grid)
    assert grid.refined().shape == tuple(2 * n - 1 for n in shape)


@given(st.integers(3, 20))
def test_a_periodic_axis_doubles_and_never_repeats_its_end(n):
    grid = hjb.Grid(hjb.Box(0.0, 1.0, periodic=True), n)
    assert grid.refined().shape == (2 * n,)
    assert grid.refined().axes[0][-1] < 1.0
    assert grid.refined().coarsened().matches(grid)
    below, above = grid.spacing(0)
    assert np.allclose(below, 1 / n)
    assert np.allclose(above, 1 / n)


@given(st.integers(4, 40))
def test_coarsening_keeps_nodes_and_both_ends_for_any_count(n):
    grid = hjb.Grid(hjb.Box(-1.0, 3.0), max(n, 4))
    coarse = grid.coarsened()
    assert set(coarse.axes[0]) <= set(grid.axes[0])
    assert coarse.axes[0][0] == -1.0
    assert coarse.axes[0][-1] == 3.0


@given(SHAPES, SEEDS)
def test_interpolation_reproduces_multilinear_functions(shape, seed):
    grid = stretched(seed, shape)
    rng = np.random.default_rng(seed)
    terms = list(itertools.product((0, 1), repeat=len(shape)))
    weights = rng.normal(size=len(terms))

    def f(x):
        products = [np.prod(x ** np.array(t), axis=-1) for t in terms]
        return sum(w * p for w, p in zip(weights, products, strict=True))

    x = grid.domain.sample(rng, 30)
    scale = 1 + np.abs(f(grid.nodes())).max()
    gap = np.abs(grid.interpolate(f(grid.nodes()), x) - f(x))
    assert gap.max() < 1e-13 * scale * 10


@given(SEEDS)
def test_interpolation_sees_a_periodic_axis_as_closed(seed):
    grid = hjb.Grid(hjb.Box([0, 0], [1, 2], periodic=(True, False)), (7, 5))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=grid.shape)
    x = rng.random((10, 2)) * [1, 2]
    shifted = x + np.array([rng.integers(-3, 4), 0])
    gap = grid.interpolate(values, x) - grid.interpolate(values, shifted)
    assert np.abs(gap).max() < 1e-12
    seam = grid.interpolate(values, np.array([[1 - 1 / 14, 0.0]]))
    assert seam == pytest.approx(0.5 * (values[-1, 0] + values[0, 0]))


def test_interpolation_outside_names_the_point():
    grid = hjb.Grid(hjb.Box([0, 0], [1, 1]), 5)
    with pytest.raises(hjb.ProblemError, match=r"1\.5"):
        grid.interpolate(np.zeros(grid.shape), np.array([[0.5, 1.5]]))


@pytest.mark.parametrize("shape", [1, 2, (5, 1), (4, 2.5), 0, -3])
def test_a_grid_with_too_few_nodes_is_refused(shape):
    d = len(shape) if isinstance(shape, tuple) else 1
    with pytest.raises(hjb.ProblemError, match="at least 3"):
        hjb.Grid(hjb.Box([0.0] * d, [1.0] * d), shape)


def test_a_shape_of_the_wrong_length_is_refused():
    with pytest.raises(hjb.ProblemError, match="3 entries"):
        hjb.Grid(hjb.Box([0, 0], [1, 1]), (5, 5, 5))


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ([0.0, 1.0, 1.0, 2.0], "entries 1 and 2"),
        ([0.0, np.nan, 1.0], "increase and be finite"),
        ([0.0, 1.0], "at least 3"),
        ([[0.0, 1.0, 2.0]], "at least 3"),
    ],
)
def test_from_axes_names_the_entries_at_fault(axis, says):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.Grid.from_axes([axis])


def test_from_axes_refuses_axes_that_miss_the_domain():
    with pytest.raises(hjb.ProblemError, match="the domain from 0 to 2"):
        hjb.Grid.from_axes([[0.0, 0.5, 1.0]], hjb.Box(0.0, 2.0))


def test_nodes_are_indexed_ij_and_in_c_order():
    grid = hjb.Grid(hjb.Box([0, 10], [2, 13]), (3, 4))
    assert grid.nodes()[1, 2].tolist() == [1, 12]
    assert grid.nodes_of(np.array([6]))[0].tolist() == [1, 12]


def test_coarsening_three_nodes_is_refused():
    with pytest.raises(hjb.ProblemError, match="at least 4"):
        hjb.Grid(hjb.Box(0.0, 1.0), 3).coarsened()
