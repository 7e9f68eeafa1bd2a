"""solve: probe, pick, check the fit, run, bound the error. Nothing numerical."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import Checkpoint, Identity
from .errors import NotConverged, ProblemError
from .fit import Method, check_fit, default_method
from .grid import Grid
from .memory_budget import check_memory
from .methods.ergodic_run import run_average
from .methods.explicit import ExplicitMarching
from .methods.explicit_run import run_explicit
from .methods.impulse_run import run_impulse
from .methods.march_run import run_marching
from .methods.marching import Marching, output_times
from .methods.modes_run import run_modes
from .methods.nested import RunOptions
from .methods.policy_iteration import PolicyIteration
from .methods.run import run, run_fixed
from .methods.stationary_game import run_game
from .methods.sweep_run import run_sweeping
from .methods.sweeping import Sweeping
from .problem import ControlProblem
from .semi_lagrangian.method import SemiLagrangian
from .semi_lagrangian.run import run_semi_lagrangian
from .semi_lagrangian.timed_run import run_timed
from .solution import GridSolution
from .whole_space import Trial, on_larger_boxes


def solve(
    problem: ControlProblem,
    grid: Grid | int | Sequence[int] | None = None,
    method: Method | None = None,
    *,
    guess: Any = None,
    times: Any = None,
    tolerance: float | None = None,
    budget: float | None = None,
    checkpoint: str | Path | None = None,
    strict: bool = True,
    progress: bool = False,
) -> GridSolution:
    """Solve a control problem on a grid, with an error bar.

    Parameters
    ----------
    problem : ControlProblem
    grid : Grid, int or shape, optional
        Default: the problem's suggested grid.
    method : PolicyIteration, Marching, ExplicitMarching, Sweeping or SemiLagrangian
        Default: ``default_method(problem, grid)``.
    times : sequence of float, optional
        Calendar times to keep with a horizon; default 33, equally spaced, and the
        dates at which somebody may stop.
    guess : callable or array, optional
        A first value, ``guess(x) -> (...)`` or (*shape); for policy iteration, like
        `budget`.
    tolerance : float
        Algebraic tolerance relative to sup|V| (default 1e-9).
    budget : float, optional
        Seconds after which the solve gives up.
    checkpoint : path, optional
        Where finished grids are kept, with a horizon also the steps of one under way;
        an interrupted solve resumes there and ends with the same bits.
    strict : bool
        Raise NotConverged (carrying the solution) or return the solution as it is.
    progress : bool
        Show a bar on the terminal.

    Returns
    -------
    GridSolution
        With a horizon a TimedSolution, which adds the times; with modes a
        ModedSolution, which adds the modes, or with both a TimedModedSolution; with
        impulses an ImpulseSolution; with an adversary a GameSolution, without a horizon
        a StationaryGameSolution.

    Raises
    ------
    ProblemError, MethodMismatch, StabilityError, MemoryBudgetError, NotConverged
        Each naming what, where, the likely cause and the remedy.
    """
    grid = _grid_of(problem, grid)
    if times is not None and problem.horizon is None:
        raise ProblemError("solve: times= needs a problem with a horizon.")
    method = method or default_method(problem, grid)
    check_fit(problem, grid, method)
    check_memory(grid, problem)
    if not isinstance(method, PolicyIteration):
        why = "it starts from the terminal or exit data"
        _refuse(method, why, guess=guess, budget=budget)
    call = _Call.of(
        problem, grid, method, guess, times, tolerance, budget, checkpoint, progress
    )
    found = call.run(problem, grid, call.file)
    if isinstance(method, GROWING):
        quick = isinstance(method, PolicyIteration)
        found = on_larger_boxes(found, call.on, quick)
    return _returned(found, strict)


GROWING = PolicyIteration | Marching | SemiLagrangian
"""Methods that take grids whose steps grow."""


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of `solve`: how to solve its problem on its grid, or on another."""

    method: Method
    outputs: Any
    options: RunOptions
    file: Checkpoint

    @classmethod
    def of(
        cls, problem: ControlProblem, grid: Grid, method: Method, guess: Any,
        times: Any, tolerance: float | None, budget: float | None, checkpoint: Any,
        progress: bool,
    ) -> _Call:  # fmt: skip
        """With everything checked that the user gave."""
        if tolerance is not None and isinstance(method, Sweeping | SemiLagrangian):
            method = replace(method, tolerance=tolerance)
        start = _guess_on(guess, grid, problem)
        options = RunOptions.of(start, tolerance, budget, progress=progress)
        told: dict[str, Any] = {}
        if isinstance(method, PolicyIteration):
            told = {"guess": start, "tolerance": tolerance}
        outputs = None
        if problem.horizon is not None:
            outputs = told["times"] = output_times(problem, times)
        file = _file_at(checkpoint, problem, grid, method, **told)
        return cls(method, outputs, options, file)

    def on(self, trial: Trial) -> GridSolution:
        """The same for the problem on a larger box."""
        check_memory(trial.grid, trial.problem)
        own = replace(self, options=replace(self.options, guess=None))
        return own.run(trial.problem, trial.grid, trial.file(self.file))

    def run(
        self, problem: ControlProblem, grid: Grid, file: Checkpoint
    ) -> GridSolution:
        """By the method, whatever the problem and the grid."""
        method, progress = self.method, self.options.progress
        timed = file, progress
        if isinstance(method, Sweeping):
            return run_sweeping(problem, grid, method, file)
        if isinstance(method, Marching):
            return run_marching(problem, grid, method, self.outputs, *timed)
        if isinstance(method, ExplicitMarching):
            return run_explicit(problem, grid, method, self.outputs, *timed)
        if isinstance(method, SemiLagrangian) and self.outputs is not None:
            return run_timed(problem, grid, method, self.outputs, *timed)
        if isinstance(method, SemiLagrangian):
            return run_semi_lagrangian(problem, grid, method, *timed)
        runner = run if problem.modes is None else run_modes
        runner = run_average if problem.average else runner
        runner = runner if problem.impulse is None else run_impulse
        runner = runner if problem.adversary is None else run_game
        options = replace(self.options, checkpoint=file)
        return runner(problem, grid, method, options)


def _refuse(method: Method, why: str, **given: Any) -> None:
    """Refuse options that mean nothing to a method, rather than ignore them."""
    for name, value in given.items():
        if value is not None:
            raise ProblemError(
                f"solve: {name}= means nothing to hjb.{type(method).__name__}: {why}; "
                "leave it out."
            )


def _file_at(
    path: Any, problem: ControlProblem, grid: Grid, method: Method, **options: Any
) -> Checkpoint:
    """The checkpoint of one solve; one that keeps nothing without a path."""
    if path is None:
        return Checkpoint()
    return Checkpoint.at(path, Identity.of(problem, grid, method, **options))


def evaluate(
    problem: ControlProblem,
    grid: Grid | int | Sequence[int] | None,
    control: Callable[[Any], Any] | Any,
    method: PolicyIteration | None = None,
    *,
    strict: bool = True,
) -> GridSolution:
    """The value of a fixed policy: ``rho V = r(x, a(x)) + L^{a(x)} V``.

    With ``average=True`` its own long-run average and relative value.

    Parameters
    ----------
    control : callable x (..., d) -> (..., m), or array (*shape, m)
        The policy; it is not projected on the control set. To judge artificial faces
        a callable is asked beyond them, too, and an array taken as it is on them.
    method : PolicyIteration, optional
        Default: the monotone hybrid scheme alone (order 1), so that values of two
        policies on one grid compare without discretisation noise.

    Raises
    ------
    ProblemError
        A policy of the wrong shape, or not finite, naming the node.
    NotConverged
        Also a policy under which the state falls into parts that never meet: it has
        no common average.
    """
    problem.require_only("evaluate", "exit", "jumps", "average")
    grid = _grid_of(problem, grid)
    method = method or PolicyIteration(order=1)
    check_fit(problem, grid, method)
    check_memory(grid, problem)
    a = _policy_on(control, grid, problem.n_controls)
    if problem.average:
        found = run_average(problem, grid, method, RunOptions.of(), a)
        return _returned(found, strict)
    if callable(control):
        beyond = partial(_policy_on, control, m=problem.n_controls)
    else:
        beyond = partial(_as_on_the_nearest, grid, a)
    return _returned(run_fixed(problem, grid, a, method, beyond), strict)


def _returned(solution: GridSolution, strict: bool) -> GridSolution:
    report = solution.report
    if strict and not report.converged:
        last = report.residuals[-1] if report.residuals else np.nan
        raise NotConverged(
            f"{report.method} stopped after {report.iterations} policies with a "
            f"residual bound of {last:.3g} (in the units of V). Likely a policy that "
            "keeps switching between equal controls, an inadmissible problem (value "
            "infinite), or a budget too small. Try hjb.Upwind(), a larger tolerance "
            "or budget; strict=False returns the last iterate, and this exception "
            "carries it as .solution.",
            solution,
        )
    return solution


def _grid_of(problem: ControlProblem, grid: Any) -> Grid:
    if not isinstance(problem, ControlProblem):
        raise ProblemError(
            f"solve takes a ControlProblem, got {type(problem).__name__}; one of the "
            "catalogue is hjb.catalogue.get(NAME)."
        )
    assert problem.domain is not None
    if grid is None:
        if problem.suggested_grid is None:
            raise ProblemError(
                "solve: give a grid or a shape, e.g. solve(problem, 401)."
            )
        return problem.suggested_grid
    if not isinstance(grid, Grid):
        return Grid(problem.domain, grid)
    same = (
        grid.dimension == problem.dimension
        and np.allclose(grid.domain.low, problem.domain.low)
        and np.allclose(grid.domain.high, problem.domain.high)
        and grid.periodic == Grid(problem.domain, 3).periodic
    )
    if not same:
        raise ProblemError(
            f"solve: the grid covers {grid.domain}, the problem {problem.domain}; "
            "build the grid from problem.domain."
        )
    return grid


def _guess_on(guess: Any, grid: Grid, problem: ControlProblem) -> Any:
    if guess is None:
        return None
    if problem.modes is not None and not callable(guess):
        guess = np.asarray(guess, dtype=float)
        if guess.ndim and len(guess) == problem.modes.n:
            return np.stack([_guess_on(part, grid, problem) for part in guess])
    values = guess(grid.nodes()) if callable(guess) else guess
    values = np.asarray(values, dtype=float)
    if values.shape != grid.shape or not np.isfinite(values).all():
        raise ProblemError(
            f"solve: guess has shape {values.shape} for a grid of shape {grid.shape}, "
            "or is not finite."
        )
    return values


def _policy_on(control: Any, grid: Grid, m: int) -> Any:
    nodes = grid.nodes()
    values = control(nodes) if callable(control) else control
    values = np.asarray(values, dtype=float)
    if values.shape != (*grid.shape, m):
        raise ProblemError(
            f"evaluate: the policy has shape {values.shape}; expected "
            f"{(*grid.shape, m)}, one control of {m} entries a node."
        )
    flat = values.reshape(grid.size, m)
    bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
    if bad.size:
        place = grid.nodes_of(bad[:1])[0]
        raise ProblemError(
            f"evaluate: the policy is {flat[bad[0]]} at x = {place}: not finite."
        )
    return flat


def _as_on_the_nearest(grid: Grid, a: Any, other: Grid) -> Any:
    """A policy a (N, m) of `grid` on the nodes of another, as on the nearest of its."""
    nearest = [
        np.abs(axis[:, None] - own).argmin(axis=1)
        for axis, own in zip(other.axes, grid.axes, strict=True)
    ]
    return a.reshape(*grid.shape, -1)[np.ix_(*nearest)].reshape(other.size, -1)
