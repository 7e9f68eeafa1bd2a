"""Structure found by probing, checked at every node, and dropped where it fails."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.probe import probe
from hjbpde.tabulate import GeneralTables, QuadraticTables, tabulate

BOX = hjb.Box(-1.0, 1.0)
MONOTONE = hjb.PolicyIteration(order=1)


def problem_of(**changes):
    fields = {
        "drift": lambda x, a: np.sin(x) + (1 + x**2) * a,
        "diffusion": 0.4,
        "reward": lambda x, a: np.cos(x[..., 0]) - (a[..., 0] - 0.3 * x[..., 0]) ** 2,
        "controls": hjb.Box(-1.0, 1.5),
        "domain": BOX,
        "discount": 0.5,
        "boundary": hjb.Reflecting(),
    }
    return hjb.ControlProblem(**{**fields, **changes})


def tables_of(problem, n=41):
    grid = hjb.Grid(problem.domain, n)
    return tabulate(problem, grid, Faces.of(problem, grid))


def test_affine_drift_and_quadratic_reward_are_found_with_their_coefficients():
    """r = cos x - .09 x^2 + .6 x a - a^2, so r1 = .6 x and R = 2."""
    problem = problem_of()
    structure, _ = probe(problem, hjb.Grid(BOX, 41))
    tables = tables_of(problem)
    x = np.linspace(-1, 1, 41)
    assert structure.closed_form
    assert isinstance(tables, QuadraticTables)
    assert np.allclose(tables.f0[0], np.sin(x), atol=1e-10)
    assert np.allclose(tables.B[0, 0], 1 + x**2, atol=1e-10)
    assert np.allclose(tables.D, 0.08)
    assert np.allclose(tables.r0, np.cos(x) - 0.09 * x**2, atol=1e-9)
    assert np.allclose(tables.r1[0], 0.6 * x, atol=1e-9)
    assert np.allclose(tables.R[0, 0], 2.0, atol=1e-8)
    assert tables.R.shape[-1] == 1


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"drift": lambda x, a: np.sin(a)}, "drift not affine"),
        ({"reward": lambda x, a: -np.abs(a[..., 0])}, "payoff not quadratic"),
        ({"reward": lambda x, a: a[..., 0] ** 2}, "payoff not concave"),
        ({"diffusion": lambda x, a: 0.3 + a[..., None] ** 2}, "noise depends on a"),
    ],
)
def test_structure_that_is_absent_is_not_claimed(changes, note):
    problem = problem_of(**changes)
    structure, _ = probe(problem, hjb.Grid(BOX, 41))
    assert not structure.closed_form
    assert note in structure.note
    assert isinstance(tables_of(problem), GeneralTables)


def test_structure_that_fails_at_one_place_is_dropped_there():
    """A cubic control cost at one node of 2001: the probe misses it, tables do not."""

    def reward(x, a):
        y, b = x[..., 0], a[..., 0]
        return np.cos(y) - b**2 - np.where(np.abs(y - 0.5) < 1e-3, b**3, 0.0)

    problem = problem_of(reward=reward)
    tables = tables_of(problem, 2001)
    assert isinstance(tables, GeneralTables)
    assert "not quadratic" in tables.note


def test_searched_controls_agree_with_the_closed_form():
    """The same problem, with its structure hidden by a term that is always 0."""

    def reward(x, a):
        b = a[..., 0]
        hidden = np.where(np.abs(b) > 1.4999999, 1e-13 * np.abs(b) ** 3, 0.0)
        return np.cos(x[..., 0]) - (b - 0.3 * x[..., 0]) ** 2 - hidden

    closed = hjb.solve(problem_of(), 41, MONOTONE)
    tables = GeneralTables(
        problem_of(),
        closed.grid.nodes(),
        *(np.array([[b]]) for b in (-1.0, 1.5)),
        np.array([0.5]),
        None,
    )
    from hjbpde.methods import run

    assert isinstance(tables, GeneralTables)
    original = run.tabulate
    run.tabulate = lambda *args: tables
    try:
        searched = hjb.solve(problem_of(), 41, MONOTONE)
    finally:
        run.tabulate = original
    assert np.abs(searched.value - closed.value).max() < 1e-7
    assert np.abs(searched.control - closed.control).max() < 1e-3


def test_a_finite_set_of_extremes_equals_the_box_for_a_bang_bang_problem():
    """|x| cost, drift a: the maximum over [-1, 1] sits at an end or at drift 0."""
    fields = {
        "drift": lambda x, a: a,
        "diffusion": 0.5,
        "reward": lambda x, a: -np.abs(x[..., 0]) + 0 * a[..., 0],
    }
    box = hjb.solve(problem_of(**fields, controls=hjb.Box(-1.0, 1.0)), 41, MONOTONE)
    finite = hjb.solve(
        problem_of(**fields, controls=hjb.Finite([-1.0, 0.0, 1.0])), 41, MONOTONE
    )
    assert np.abs(box.value - finite.value).max() < 1e-8
    away = np.abs(box.grid.axes[0]) > 0.1
    assert np.array_equal(box.control[away], finite.control[away])


def test_bounds_of_controls_may_depend_on_the_state():
    """-3 <= a <= 1 + x^2 without cost of a: the same box scaled by hand to [-1, 1]."""
    reward = lambda x, a: -np.abs(x[..., 0] - 0.2) + 0 * a[..., 0]  # noqa: E731
    varying = problem_of(
        drift=lambda x, a: a,
        reward=reward,
        controls=hjb.Box([-3.0], lambda x: 1 + x**2),
    )
    scaled = problem_of(
        drift=lambda x, a: -1 + x**2 / 2 + (4 + x**2) / 2 * a,
        reward=reward,
        controls=hjb.Box(-1.0, 1.0),
    )
    one, two = (hjb.solve(p, 41, MONOTONE) for p in (varying, scaled))
    assert np.abs(one.value - two.value).max() < 1e-8


def test_a_suggested_control_is_used_only_where_it_is_better():
    """A best_control that is wrong everywhere costs nothing."""
    fields = {"reward": lambda x, a: np.cos(3 * x[..., 0]) - a[..., 0] ** 4}
    honest = hjb.solve(problem_of(**fields), 41, MONOTONE)
    wrong = problem_of(**fields, best_control=lambda x, p, hess: 0 * p + 1.4)
    found = hjb.solve(wrong, 41, MONOTONE)
    assert np.abs(found.value - honest.value).max() < 1e-6


def test_a_new_problem_compiles_nothing():
    """Kernels see arrays only: a second problem adds no compiled signature."""
    from hjbpde.kernels import tridiagonal, upwind

    hjb.solve(problem_of(), 41)
    kernels = (tridiagonal.howard_sweep, tridiagonal.thomas, upwind.assemble)
    before = [len(kernel.signatures) for kernel in kernels]
    hjb.solve(problem_of(drift=lambda x, a: np.cos(2 * x) - a), 53)
    assert [len(kernel.signatures) for kernel in kernels] == before
