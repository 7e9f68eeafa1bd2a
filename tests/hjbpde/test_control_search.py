"""Searched controls: brute force at single nodes, closed forms over whole problems.

Where the discrete Hamiltonian bends, Newton's steps stand still beside its maximum;
with two controls they once left up to a tenth of its size, and marching stopped.
"""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.game_tables import tables_of
from hjbpde.improvement import MonotoneStencil, SmoothSlopes, greedy, improve
from hjbpde.tables import GeneralTables

SCHEMES = [hjb.Upwind(), hjb.Hybrid()]
SIZES = [(1, 1), (2, 1), (1, 2), (2, 2)]
"""Numbers of states and of controls."""


def stated(d, m, drift, cost):
    """Searched controls: no closed form is seen in costs of order four or in |a|."""
    shift = np.array([0.4, -0.3])[:d]

    def of_controls(a):
        sizes = np.abs(a).sum(-1), (a**2).sum(-1), (a**4).sum(-1)
        return np.dot([(0.3, 0.2, 0.0), (0.0, 0.1, 0.25)][cost == "quartic"], sizes)

    gain = np.random.default_rng(8).uniform(-1, 1, (m, d))
    gain = np.eye(m, d) if drift == "apart" else gain

    def moved(x, a):
        turn = 0.2 * np.sin(2 * a[..., :1]) if drift == "curved" else 0.0
        return shift * np.sin(x) + a @ gain + turn

    return hjb.ControlProblem(
        drift=moved,
        diffusion=0.2,
        reward=lambda x, a: np.cos(x.sum(-1)) - of_controls(a),
        controls=hjb.Box([-1.0] * m, [1.0] * m),
        discount=0.5,
        domain=hjb.Box([-1.2] * d, [1.2] * d),
        boundary=hjb.Dirichlet(0.0),
    )


def best_of_all(value, m, nodes):
    """Largest value (nodes,) on lattices around the best point so far."""
    low, high = np.full((m, nodes), -1.0), np.ones((m, nodes))
    best, where = np.full(nodes, -np.inf), np.zeros((m, nodes))
    for points in (41, *[13] * 9):
        start, span = low, high - low
        for share in itertools.product(np.linspace(0, 1, points), repeat=m):
            a = start + np.array(share)[:, None] * span
            found = value(a)
            better = found > best
            best[better], where[:, better] = found[better], a[:, better]
        reach = 2 * span / (points - 1)
        low, high = np.clip(where - reach, -1, 1), np.clip(where + reach, -1, 1)
    return best


@pytest.mark.parametrize("cost", ["quartic", "absolute"])
@pytest.mark.parametrize("drift", ["apart", "mixed", "curved"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("d", "m"), SIZES)
def test_no_control_is_better_than_the_one_found(d, m, scheme, drift, cost):
    problem = stated(d, m, drift, cost)
    grid = hjb.Grid(problem.domain, (9,) * d)
    faces = Faces.of(problem, grid)
    tables = tables_of(problem, grid, faces).on(faces)
    assert isinstance(tables, GeneralTables)
    x = grid.nodes()
    # Concave, so that there is one maximum, with a kink between nodes.
    V = -((x @ np.random.default_rng(4).uniform(-1, 1, (d, d))) ** 2).sum(-1)
    V = V - 0.3 * np.abs(x[..., 0] - 0.1)
    stencil = MonotoneStencil.of(faces, scheme.code, V)
    nodes = np.arange(grid.size)

    def value(a):
        return stencil.value(tables.under(a), nodes)

    a = np.zeros((m, grid.size))
    improve(tables, stencil, a)
    inner = (np.abs(x) < 1.19).all(-1).ravel()
    found = value(a)[inner]
    wanted = best_of_all(value, m, grid.size)[inner]
    # Lattices may end beside a narrow ridge; a search may not.
    assert np.max(wanted - found) < 1e-9
    assert np.max(found - wanted) < 1e-2


def test_smooth_hamiltonians_bend_only_where_costs_do():
    problem = stated(1, 1, "apart", "absolute")
    grid = hjb.Grid(problem.domain, 11)
    tables = tables_of(problem, grid, Faces.of(problem, grid))
    p = np.linspace(-1, 1, grid.size)[None]
    a = np.full((1, grid.size), 0.7)
    greedy(tables, SmoothSlopes(p, 0 * p), a)
    # max p a - .3 |a| - .2 a^2
    wanted = np.clip(np.sign(p) * np.maximum(np.abs(p) - 0.3, 0) / 0.4, -1, 1)
    # Values are given at the two faces, and nobody chooses there.
    assert a[:, 1:-1] == pytest.approx(wanted[:, 1:-1], abs=1e-7)


def in_other_words(stretched):
    """Quadratic costs of u, or the same of a with u = a + .4 a^3, which is searched."""
    gain = np.array([[0.9, -0.5], [0.3, 0.7]])
    end = 1.4 if not stretched else 1.0

    def u(a):
        return a + 0.4 * a**3 if stretched else a

    return hjb.ControlProblem(
        drift=lambda x, a: 0.4 * np.sin(x[..., ::-1]) + u(a) @ gain,
        diffusion=0.15,
        cost=lambda x, a: np.sin(x.sum(-1)) ** 2 + 0.3 * (u(a) ** 2).sum(-1),
        controls=hjb.Box([-end, -end], [end, end]),
        discount=0.6,
        domain=hjb.Box([-1.2, -1.2], [1.2, 1.2]),
        boundary=hjb.Reflecting(),
    )


# The payoff has ridges, from which either way down is best among its neighbours: only
# scans of the whole set tell which. Without them V was 6 % wrong, and "converged".
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_search_and_a_closed_form_solve_the_same_problem(scheme):
    method = hjb.PolicyIteration(scheme, order=1)
    closed, searched = (
        hjb.solve(in_other_words(stretched), (15, 15), method)
        for stretched in (False, True)
    )
    assert searched.value == pytest.approx(closed.value, abs=1e-8)


@pytest.mark.slow
def test_a_search_and_a_closed_form_march_alike():
    # Where V is convex the scheme makes valleys: hills a hair apart, on either side of
    # a = 0, from the floor of which nothing rises at once.
    def ended(stretched):
        problem = in_other_words(stretched)
        return replace(problem, horizon=0.4, terminal=lambda x: 0.2 * np.cos(x.sum(-1)))

    method = hjb.Marching(scheme=hjb.Upwind(), steps=8, levels=1)
    closed, searched = (
        hjb.solve(ended(stretched), (9, 9), method) for stretched in (False, True)
    )
    assert searched.value[0] == pytest.approx(closed.value[0], abs=1e-10)
