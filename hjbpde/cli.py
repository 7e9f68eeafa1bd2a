"""The command line: list, solve, study, verify and demo.

Exit status: 0 agree or done, 1 differ or inconclusive, 2 bad input. This module is
the roof of the project: it may import everything, inside the command that needs it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import catalogue
from .arrays import constant
from .errors import HJBError, MethodMismatch, ProblemError
from .grid import Grid
from .problem import ControlProblem
from .solution import GridSolution
from .solve import solve

AGREE, DISAGREE, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
DEMO = ("lqr", "merton")
LEVELS = 4
"""Grids of a study: the suggested one and its coarsenings."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, errors go to stderr."""
    parser = parser_of()
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except HJBError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(
            f"error: cannot write there: {error}. Choose another --out.",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return BAD_INPUT


def parser_of() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="hjbpde",
        description="Hamilton-Jacobi-Bellman equations: solve on a grid with an error "
        "bar, learn with a network, and judge.",
        epilog="exit status: 0 agree or done, 1 differ or inconclusive, 2 bad input",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="the problems of the catalogue")
    command.set_defaults(run=run_list)
    _add_solve(commands)
    _add_study(commands)
    _add_verify(commands)
    command = commands.add_parser("demo", help="verify lqr and merton in both ways")
    command.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=run_demo)
    return parser


def _add_solve(commands: Any) -> None:
    command = commands.add_parser("solve", help="solve one problem on a grid")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--shape", type=int, nargs="+", metavar="N", help="nodes, one number an axis"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write NAME.npz, .json and .png here"
    )
    command.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="keep the solve here as it goes; one that was killed goes on from it",
    )
    command.set_defaults(run=run_solve)


def _add_study(commands: Any) -> None:
    command = commands.add_parser("study", help="errors and orders over several grids")
    command.add_argument("name", metavar="NAME")
    command.add_argument(
        "--nodes",
        type=int,
        nargs="+",
        metavar="N",
        help="nodes an axis, coarse to fine",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write NAME-study.json and .png here"
    )
    command.set_defaults(run=run_study)


def _add_verify(commands: Any) -> None:
    command = commands.add_parser("verify", help="solve, learn and judge; the main job")
    command.add_argument("names", metavar="NAME", nargs="+")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--tolerance", type=float, default=1e-2)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--budget", type=float, metavar="SECONDS", help="for refining the reference"
    )
    command.add_argument(
        "--evaluation",
        choices=("least-squares", "monte-carlo", "residual", "both", "all"),
        default="least-squares",
        help="how the network learns the value of a policy; both are the first two",
    )
    command.set_defaults(run=run_verify)


# --- commands -------------------------------------------------------------------


def run_list(options: argparse.Namespace) -> int:
    """Names and first lines of the catalogue."""
    names = catalogue.names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {catalogue.describe(name)}")
    return AGREE


def run_solve(options: argparse.Namespace) -> int:
    """Solve, print the report, and write it where asked."""
    problem = catalogue.get(options.name)
    grid = _grid_of(problem, options.shape)
    _make(options.out)
    solution = solve(problem, grid, checkpoint=options.checkpoint, progress=_shown())
    print(f"{problem.name} on {' x '.join(map(str, grid.shape))} nodes")
    print(solution.report)
    print(_largest_bar(solution))
    if options.out is not None:
        from verification.report.json import write_json

        stem = options.out / problem.name
        print(solution.save(stem.with_suffix(".npz")))
        print(write_json(solution.report.to_dict(), stem.with_suffix(".json")))
        print(_save_figure(solution.plot(), stem.with_suffix(".png")))
    return AGREE


def run_study(options: argparse.Namespace) -> int:
    """A convergence study: the table, and files where asked."""
    from verification import convergence_study
    from verification.report.json import write_json

    problem = catalogue.get(options.name)
    shapes = options.nodes or _coarsenings(problem)
    _make(options.out)
    study = convergence_study(problem, shapes, progress=_shown())
    print(study.table())
    if options.out is not None:
        stem = options.out / f"{problem.name}-study"
        print(write_json(study.to_dict(), stem.with_suffix(".json")))
        print(_save_figure(study.plot(), stem.with_suffix(".png")))
    return AGREE


def run_verify(options: argparse.Namespace) -> int:
    """Grid truth, neural policy iteration, verdict, pages; 0 only if all agree."""
    problems = [catalogue.get(name) for name in dict.fromkeys(options.names)]
    if not options.tolerance > 0:
        raise ProblemError(f"--tolerance {options.tolerance:g}: give a share above 0.")
    chosen = learners(options.evaluation)
    _check_kinds(problems, chosen)
    _make(options.out)
    runs = [(p, label, learner) for p in problems for label, learner in chosen.items()]
    entries = [_verify_one(options, *run) for run in runs]
    _finish(options.out, entries)
    return AGREE if all(entry.status == "agree" for entry in entries) else DISAGREE


def run_demo(options: argparse.Namespace) -> int:
    """Verify lqr and merton in both ways; 0 once every report is written."""
    from verification.report.index import Entry

    chosen = learners("both")
    _make(options.out)
    options.tolerance, options.budget = 1e-2, None
    entries = []
    for name in DEMO:
        for label, learner in chosen.items():
            try:
                run = (catalogue.get(name), label, learner)
                entries.append(_verify_one(options, *run))
            except HJBError as error:
                # One failed run must not hide the reports of the others.
                print(f"error: {error}", file=sys.stderr)
                entries.append(Entry.failed(name, label, str(error)))
    _finish(options.out, entries)
    return AGREE if all(entry.page for entry in entries) else DISAGREE


# --- one verification -------------------------------------------------------------


@dataclass(frozen=True)
class Learner:
    """Policy iteration with one way to evaluate policies."""

    evaluation: Any

    @property
    def takes(self) -> tuple[str, ...]:
        """Special fields of problems that it learns."""
        return tuple(getattr(self.evaluation, "takes", ()))

    def learn(self, problem: ControlProblem, seed: int) -> Any:
        """The learned solution of a problem."""
        import neural  # torch is needed for learning only

        start = idle_start(problem) if problem.name == "lqr" else None
        method = neural.PolicyIteration(evaluation=self.evaluation, start=start)
        return neural.solve(problem, method, seed=seed, progress=_shown())


def learners(evaluation: str) -> dict[str, Learner]:
    """The neural methods asked for, by label.

    Raises
    ------
    ProblemError
        torch is not installed.
    """
    try:
        import neural
    except ImportError as cause:
        raise ProblemError(
            f"learning needs torch, which could not be imported ({cause}). Install it "
            "with: pip install 'hjbpde[neural]'. The commands list, solve and study "
            "work without."
        ) from cause

    methods = {
        "least-squares": Learner(neural.LeastSquares()),
        "monte-carlo": Learner(neural.MonteCarlo()),
        "residual": Learner(neural.Residual()),
    }
    chosen = {"both": ["least-squares", "monte-carlo"], "all": list(methods)}
    return {k: methods[k] for k in chosen.get(evaluation, [evaluation])}


def _check_kinds(
    problems: Sequence[ControlProblem], chosen: Mapping[str, Learner]
) -> None:
    """Refuse, before any work, problems that cannot be judged or learned."""
    from verification.reference import check_taken

    for problem in problems:
        check_taken(f"verify {problem.name}: the verdict", problem)
        known = {field for one in learners("all").values() for field in one.takes}
        unknown = ", ".join(map(repr, sorted(problem.special - known)))
        if unknown:
            raise MethodMismatch(
                f"verify {problem.name}: no learner takes problems with {unknown} yet. "
                f"hjbpde solve {problem.name} does, and verification.cross_check "
                "judges a value or a policy of your own."
            )
        for label, learner in chosen.items():
            what = f"verify {problem.name}: learning by {label}"
            problem.require_only(what, *learner.takes)


def idle_start(problem: ControlProblem) -> Callable[[Any], Any]:
    """The policy a = 0, for lqr: there the default start is the answer itself."""
    m = problem.n_controls
    return lambda x: constant(np.zeros(m), like=x) + 0.0 * x[..., :1]


def _verify_one(
    options: argparse.Namespace, problem: ControlProblem, label: str, learner: Learner
) -> Any:
    from verification import cross_check
    from verification.report.index import Entry
    from verification.report.json import write_json

    print(f"{problem.name}: learning by {label}", flush=True)
    began = time.perf_counter()
    learned = learner.learn(problem, options.seed)
    seconds = time.perf_counter() - began
    print(f"{problem.name}: solving on a grid and judging", flush=True)
    verdict = cross_check(
        learned,
        problem,
        tolerance=options.tolerance,
        budget=options.budget,
        seed=options.seed,
        progress=_shown(),
    )
    print(verdict)
    stem = f"{problem.name}-{label}"
    page = verdict.to_html(options.out / f"{stem}.html")
    content = {**verdict.to_dict(), "learned_by": label, "training_seconds": seconds}
    if verdict.evidence is not None:
        content["candidate_report"] = verdict.evidence.candidate_report
        content["reference_report"] = verdict.evidence.reference_report
    beside = write_json(content, options.out / f"{stem}.json")
    return Entry.of(verdict, label, seconds, page.name, beside.name)


def _finish(folder: Path, entries: Sequence[Any]) -> None:
    from verification.report.index import write_index

    for entry in entries:
        print(f"{entry.problem:14} {entry.method:14} {entry.status}")
    print(f"reports: {write_index(entries, folder / 'index.html').resolve()}")


# --- small steps ------------------------------------------------------------------


def _grid_of(problem: ControlProblem, shape: Sequence[int] | None) -> Grid:
    assert problem.domain is not None
    if shape:
        return Grid(problem.domain, shape)
    if problem.suggested_grid is None:
        raise ProblemError(f"{problem.name} has no suggested grid; give --shape.")
    return problem.suggested_grid


def _coarsenings(problem: ControlProblem) -> list[tuple[int, ...]]:
    grid, shapes = _grid_of(problem, None), []
    for _ in range(LEVELS):
        shapes.append(grid.shape)
        if min(grid.shape) < 9:
            break
        grid = grid.coarsened()
    return shapes[::-1]


def _largest_bar(solution: GridSolution) -> str:
    inside = solution.region.contains(solution.grid.nodes(), 1e-12)
    bar = solution.error_bar[..., inside].max()
    size = np.abs(solution.value[..., inside]).max()
    return f"in its region: sup|V| = {size:.6g}, error bar at most {bar:.2e}"


def _make(folder: Path | None) -> None:
    # Before the work, so that an unusable folder costs nothing.
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)


def _save_figure(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=150)
    return path


def _shown() -> bool:
    return sys.stdout.isatty()
