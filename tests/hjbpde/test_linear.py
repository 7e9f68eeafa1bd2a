"""Policy evaluation: engines agree with sparse LU, and every rung can be forced."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import hjbpde as hjb
from hjbpde.linear import (
    GaussSeidel,
    Ladder,
    SparseLU,
    Tridiagonal,
    default_ladder,
    measured,
)
from hjbpde.methods import policy_iteration, state
from hjbpde.multigrid import Krylov, Multigrid

SHAPES = [(100, 100), (97, 64), (65, 65), (17, 18, 19), (9, 8, 7, 9)]
WRAPPED = [
    ((64, 63), (True, False)),
    ((48, 50), (True, True)),
    ((21, 20), (False, True)),
]
RULES = {
    "dirichlet": hjb.Dirichlet(1.0),
    "reflecting": hjb.Reflecting(),
    "robin": hjb.Robin(0.5, 1.0, 0.2),
    "artificial": None,
}


def lu(rows, b):
    return sla.spsolve(rows.matrix().tocsc(), b)


def solved(engine, rows, b, target=1e-10):
    """x and its true relative residual after repeated corrections."""
    x, left = np.zeros_like(b), b.copy()
    engine.prepare(rows)
    for _ in range(60):
        step, _ = engine.correct(left, 1e-2)
        x = x + step
        left = rows.residual(x, b)
        if np.abs(left).max() <= target * np.abs(b).max():
            break
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rule", RULES)
def test_multigrid_agrees_with_sparse_lu_on_any_shape(convection, rows_of, shape, rule):
    problem, grid = convection(shape, boundary=RULES[rule])
    rows, b = rows_of(problem, grid)
    x, wanted = solved(Multigrid(), rows, b), lu(rows, b)
    assert np.abs(x - wanted).max() < 1e-8 * np.abs(wanted).max()


@pytest.mark.parametrize(("shape", "periodic"), WRAPPED)
def test_multigrid_agrees_with_sparse_lu_on_periodic_axes(
    convection, rows_of, shape, periodic
):
    problem, grid = convection(shape, periodic=periodic)
    rows, b = rows_of(problem, grid)
    x, wanted = solved(Multigrid(), rows, b), lu(rows, b)
    assert np.abs(x - wanted).max() < 1e-8 * np.abs(wanted).max()


def test_multigrid_work_does_not_grow_with_the_grid(convection, rows_of):
    """Cycles to 1e-8 on 33^2 and 129^2 differ by at most a factor of 2."""
    counts = []
    for n in (33, 129):
        problem, grid = convection((n, n), noise=0.5, boundary=hjb.Dirichlet(0.0))
        rows, b = rows_of(problem, grid)
        engine = Multigrid(max_cycles=1)
        engine.prepare(rows)
        left, cycles = b.copy(), 0
        while np.abs(left).max() > 1e-8 * np.abs(b).max() and cycles < 60:
            step, _ = engine.correct(left, 0.0)
            left, cycles = rows.residual(step, left), cycles + 1
        counts.append(cycles)
    assert counts[1] <= 2 * counts[0]
    assert counts[1] < 25


@pytest.mark.parametrize(
    "engine", [Krylov(), GaussSeidel(), SparseLU()], ids=lambda e: e.name
)
def test_every_engine_solves_and_measures_its_own_residual(convection, rows_of, engine):
    problem, grid = convection((31, 24))
    rows, b = rows_of(problem, grid)
    engine.prepare(rows)
    x, ratio = engine.correct(b, 1e-9)
    assert ratio == pytest.approx(measured(rows, x, b))
    assert ratio <= 1e-8
    assert np.abs(x - lu(rows, b)).max() < 1e-6 * np.abs(x).max()


def test_the_tridiagonal_engine_agrees_with_sparse_lu(convection, rows_of):
    problem, grid = convection((50,))
    rows, b = rows_of(problem, grid)
    engine = Tridiagonal()
    engine.prepare(rows)
    x, ratio = engine.correct(b, 1e-12)
    assert ratio < 1e-12
    assert np.allclose(x, lu(rows, b), rtol=1e-11)


def test_the_matrix_and_the_residual_describe_the_same_rows(convection, rows_of):
    problem, grid = convection((7, 6), periodic=(True, False))
    rows, b = rows_of(problem, grid)
    x = np.random.default_rng(0).normal(size=b.size)
    assert np.allclose(rows.residual(x, b), b - rows.matrix() @ x, atol=1e-12)


@dataclass
class Doctored:
    """An engine that returns a poor answer and claims a good residual, or a NaN."""

    how: str
    name: str = "doctored"
    rows: object = None
    calls: list[int] = field(default_factory=list)

    def prepare(self, rows):
        self.rows = rows

    def correct(self, residual, target):
        self.calls.append(residual.size)
        x = np.full_like(residual, np.nan if self.how == "nan" else 0.0)
        claimed = 1e-15 if self.how == "lies" else measured(self.rows, x, residual)
        return x, claimed


@pytest.mark.parametrize("how", ["nan", "useless"])
@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_the_ladder_steps_down_to_the_first_engine_that_works(
    convection, rows_of, failing, how
):
    """With the first rungs broken the next one answers, and the report names it."""
    problem, grid = convection((40, 33))
    rows, b = rows_of(problem, grid)
    good = [Multigrid(), Krylov(), GaussSeidel(), SparseLU()]
    engines = [Doctored(how, f"broken {i}") for i in range(failing)] + good[failing:]
    ladder = Ladder(engines)
    ladder.prepare(rows)
    x, ratio = ladder.correct(b, 0.05)
    assert ratio <= 0.5
    assert measured(rows, x, b) <= 0.5
    assert ladder.name == good[failing].name
    assert len(ladder.fallbacks) == failing
    if failing:
        assert good[failing].name in ladder.fallbacks[-1]


def test_a_ladder_without_a_working_engine_changes_nothing(convection, rows_of):
    problem, grid = convection((12, 12))
    rows, b = rows_of(problem, grid)
    ladder = Ladder([Doctored("nan"), Doctored("nan")])
    ladder.prepare(rows)
    x, ratio = ladder.correct(b, 0.05)
    assert ratio == 1.0
    assert not x.any()


def smooth_problem():
    return hjb.catalogue.get("manufactured", dimension=2)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_solve_names_its_fallbacks_and_keeps_its_answer(monkeypatch, failing):
    method = hjb.PolicyIteration(order=1)
    wanted = hjb.solve(smooth_problem(), 33, method)
    good = [Multigrid, Krylov, GaussSeidel, SparseLU]

    def ladder(grid, **options):
        broken = [Doctored("nan", f"broken {i}") for i in range(failing)]
        return Ladder([*broken, *[engine() for engine in good[failing:]]])

    monkeypatch.setattr(state, "default_ladder", ladder)
    found = hjb.solve(smooth_problem(), 33, method)
    assert found.report.converged
    text = " ".join(found.report.fallbacks)
    assert good[failing]().name in text
    # Two solutions within the tolerance 1e-9 sup|V| of one discrete solution.
    scale = np.abs(wanted.value).max()
    assert np.abs(found.value - wanted.value).max() < 2e-9 * scale


def test_an_engine_that_lies_about_its_residual_is_caught(monkeypatch):
    """The HJB residual is measured anew after every step: no false success."""
    monkeypatch.setattr(
        state, "default_ladder", lambda grid, **_: Ladder([Doctored("lies")])
    )
    with pytest.raises(hjb.NotConverged):
        hjb.solve(smooth_problem(), 33)


def test_a_doctored_residual_is_never_reported_as_converged(monkeypatch):
    """With every residual blown up the status says so, and the bar is infinite."""
    honest = policy_iteration.residual_of

    def doctored(*args, **kwargs):
        out, rows = honest(*args, **kwargs)
        return out + 1.0, rows

    monkeypatch.setattr(policy_iteration, "residual_of", doctored)
    found = hjb.solve(smooth_problem(), 33, strict=False)
    assert found.report.status == "not converged"
    assert np.isinf(found.error_bar).all()


def test_a_large_sparse_lu_is_refused_before_it_fills_memory(convection, rows_of):
    problem, grid = convection((40, 40, 40))
    rows, _ = rows_of(problem, grid)
    with pytest.raises(hjb.MemoryBudgetError, match="3 dimensions"):
        SparseLU().prepare(rows)


@pytest.mark.parametrize("noise", [0.15, 0.05, 0.0])
@pytest.mark.parametrize("scheme", [hjb.Upwind(), hjb.Hybrid()], ids=["up", "hybrid"])
def test_little_noise_is_solved_by_some_rung(convection, rows_of, noise, scheme):
    """Drift-dominated rows, where plain multigrid is known to struggle."""
    problem, grid = convection((64, 65), noise=noise, boundary=hjb.Reflecting())
    rows, b = rows_of(problem, grid, scheme=scheme)
    ladder = default_ladder(grid)
    x, left = np.zeros_like(b), b.copy()
    ladder.prepare(rows)
    for _ in range(40):
        step, ratio = ladder.correct(left, 0.05)
        assert ratio < 1.0
        x = x + step
        left = rows.residual(x, b)
        if np.abs(left).max() < 1e-10 * np.abs(b).max():
            break
    assert np.abs(x - lu(rows, b)).max() < 1e-7 * np.abs(x).max()
