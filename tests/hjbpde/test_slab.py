"""Stages slab by slab and packed tables, against slow definitions."""

import itertools

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.kernels import columns as kernels
from hjbpde.kernels.slab import NODES, march_slabs, slab_of
from hjbpde.methods.columns import pack
from hjbpde.methods.explicit import march_explicit
from hjbpde.methods.hamiltonians import AffineHamiltonian
from hjbpde.one_sided import ENO2, WENO3, WENO5, End, FirstOrder, OneSided

SHAPES = {
    1: (40,),
    2: (9, 11),
    3: (6, 7, 8),
    4: (5, 4, 6, 5),
    5: (4, 4, 5, 4, 4),
    6: (4, 4, 4, 4, 4, 5),
}


def lattice_grid(shape):
    """Every second axis periodic."""
    d = len(shape)
    periodic = tuple(k % 2 == 1 for k in range(d))
    return hjb.Grid(hjb.Box([0.0] * d, np.arange(1.0, d + 1), periodic), shape)


def table_along(rng, shape, axes):
    """A row (N,) that varies along `axes` only."""
    small = rng.normal(size=[n if k in axes else 1 for k, n in enumerate(shape)])
    return np.broadcast_to(small, shape).ravel()


def game_on(rng, grid):
    """Two players; every kind of table, linear and quadratic controls."""
    d, n, shape = grid.dimension, grid.size, grid.shape

    def along():
        return table_along(rng, shape, set(rng.permutation(d)[: rng.integers(d + 1)]))

    f0 = np.stack([along() for _ in range(d)])
    B = np.stack([np.stack([along() for _ in range(3)]) for _ in range(d)])
    B[rng.integers(d), 0] = 0.0
    r1 = np.stack([np.zeros(n), along(), along()])
    R = np.stack([np.zeros(n), np.ones(n), np.abs(along())])
    low = np.stack([np.full(n, 0.2), along() - 4.0, np.full(n, -0.5)])
    high = np.stack([np.ones(n), along() + 4.0, np.full(n, 2.0)])
    rows = (f0, B, along(), r1, R, low, high)
    return AffineHamiltonian(*rows, np.array([1.0, -1.0, 1.0]), shape=shape)


def slow_rate(game, minus, plus):
    """G at the mean slope by trial of both ends and the stationary point of each
    control, with |f_k| at the corners of the box of controls as dissipation."""
    p = 0.5 * (minus + plus)
    rate = game.r0 + (game.f0 * p).sum(0)
    for i, sense in enumerate(game.sense):
        gain = game.r1[i] + (game.B[:, i] * p).sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = sense * gain / game.R[i]
        inside = np.where(game.R[i] > 0, inside, game.low[i])
        inside = np.where(
            (inside > game.low[i]) & (inside < game.high[i]), inside, game.low[i]
        )
        tried = np.stack([game.low[i], game.high[i], inside])
        payoff = gain * tried - sense * game.R[i] * tried**2 / 2
        rate = rate + (payoff.max(0) if sense > 0 else payoff.min(0))
    corners = itertools.product(*zip(game.low, game.high, strict=True))
    speeds = np.max(
        [np.abs(game.f0 + np.einsum("kin,in->kn", game.B, u)) for u in corners], axis=0
    )
    return rate + (speeds * (plus - minus)).sum(0) / 2


def cuts_of(shape):
    """Every axis that slabs may cut, with one, two and all of its rows."""
    found = [] if len(shape) > 1 else [(-1, 1, shape[0])]
    for axis in range(len(shape) - 1):
        inner = int(np.prod(shape[axis + 1 :]))
        found += [(axis, most, inner) for most in (1, 2, shape[axis])]
    return found


@pytest.mark.parametrize("d", SHAPES)
def test_a_stage_matches_its_definition_however_slabs_are_cut(d):
    rng = np.random.default_rng(d)
    shape = SHAPES[d]
    grid = lattice_grid(shape)
    game = game_on(rng, grid)
    V, one = rng.normal(size=(2, grid.size))
    rho = np.array([0.3]) if d % 2 else rng.uniform(size=grid.size)
    a, b, dt = 0.75, 0.25, 0.01
    ends = [(End.AWAY_FROM_ZERO, End.MIRROR), (End.LINEAR, End.AWAY_FROM_ZERO)]
    pairs = [ends[k % 4 // 2] for k in range(d)]
    for scheme in (FirstOrder(), ENO2(), WENO3(1e-3), WENO5(1e-3)):
        one_sided = OneSided.on(grid, scheme, pairs)
        minus, plus = np.empty((2, d, grid.size))
        one_sided.fill(V, minus, plus)
        change = slow_rate(game, minus, plus) - rho * V
        wanted = a * one + b * (V + dt * change)
        lattice, scratch = one_sided.lattice, one_sided.scratch
        for cut in cuts_of(shape):
            out = np.full(grid.size, np.nan)
            march_slabs(V, lattice, cut, scratch, game.packed, one, a, b, dt, rho, out)
            np.testing.assert_allclose(out, wanted, rtol=1e-11, atol=1e-11)


def test_slabs_hold_whole_rows_and_fit_the_cache():
    for shape in [(7,), (500, 4), (51, 40, 50), (3, 20000), (33,) * 4, (9,) * 6]:
        axis, most, inner = slab_of(shape)
        assert inner == np.prod(shape[axis + 1 :])
        if axis >= 0:
            assert most * inner <= max(NODES, shape[-1])
            # No larger slab of whole rows would do.
            assert most == shape[axis] or (most + 1) * inner > NODES
            assert axis == 0 or inner * shape[axis] > NODES


@pytest.mark.parametrize("shape", [(700,), (40, 33), (6, 5, 64), (4, 3, 2, 50)])
def test_packed_rows_read_as_the_tables_themselves(shape):
    rng = np.random.default_rng(1)
    d, n = len(shape), int(np.prod(shape))
    subsets = [
        set(s) for r in range(d + 1) for s in itertools.combinations(range(d), r)
    ]
    table = np.stack([table_along(rng, shape, axes) for axes in subsets])
    spike = table[:1].copy()
    spike[0, n // 3] += 1.0  # constant but for one node
    table = np.concatenate([table, spike])
    numbers, places = pack([table, np.array([[2.5]])], shape)
    S = kernels.scratch(numbers, places, n)
    wanted = np.concatenate([table, np.full((1, n), 2.5)])
    for r, row in enumerate(wanted):
        for j0 in (0, 1, n // 2, n - 1):
            w = min(kernels.WIDTH, n - j0)
            got = kernels.row_of(numbers, places, r, S, j0, w)
            np.testing.assert_array_equal(got, row[j0 : j0 + w])
    # One number where constant, and no more than what varies, once over.
    assert (places[[0, -1], 2] == 1).all()
    assert numbers.size < table.size + len(table) * kernels.WIDTH


def test_slabs_and_the_whole_grid_march_alike_as_tables_move():
    """Without controls both dissipate |f_k|, so only the order of work differs."""
    grid = hjb.Grid(hjb.Box([0, 0], [1, 2], periodic=(True, False)), (130, 90))
    x, y = grid.nodes().reshape(-1, 2).T
    empty = np.zeros((0, 1))

    def at_time(t):
        f0 = np.stack([np.cos(3 * t) + y, np.sin(2 * np.pi * x) * (1 + t)])
        rows = (f0, np.zeros((2, 0, 1)), np.zeros(1), empty, empty, empty, empty)
        return AffineHamiltonian(*rows, np.zeros(0), at_time=at_time, shape=grid.shape)

    start = np.sin(2 * np.pi * x) * y
    results = []
    for reach in (hjb.LaxFriedrichs.CONTROLS, hjb.LaxFriedrichs.NODE):
        method = hjb.ExplicitMarching(hamiltonian=hjb.LaxFriedrichs(reach))
        times = [0.0, 0.02, 0.05]
        start = start.reshape(grid.shape)
        results.append(march_explicit(at_time(0.05), grid, start, times, method))
    assert results[0].steps == results[1].steps > 5
    np.testing.assert_allclose(results[0].values, results[1].values, atol=1e-12)
    np.testing.assert_allclose(results[0].speeds, results[1].speeds, rtol=1e-12)
