"""A network trained on the residual of the equation at scattered states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.state_constraint import is_constrained

from ..options import check_count, check_file, check_number, check_widths
from ..outcome import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseSchedule:
    """Artificial noise that falls geometrically: epsilon sum_i half_i^2 V_ii is added.

    A first-order equation has many Lipschitz functions with residual zero almost
    everywhere; the noise leaves one, and its limit is the viscosity solution.

    Parameters
    ----------
    first, last : float
        epsilon in units of the drift's median rate across half the box; first
        >= last > 0.
    levels : int
        Number of values, >= 1.

    Source: Crandall and Lions, Trans. Amer. Math. Soc. 277 (1983), theorem 3.1.
    """

    first: float = 2.0
    last: float = 0.005
    levels: int = 14

    def __post_init__(self) -> None:
        check_count("NoiseSchedule", "levels", self.levels)
        if not (0 < self.last <= self.first and np.isfinite(self.first)):
            raise ProblemError(
                f"NoiseSchedule: first = {self.first}, last = {self.last}; the noise "
                "must fall and stay positive."
            )

    def values(self, rate: float) -> tuple[float, ...]:
        """epsilon of every level, for a drift that crosses half the box at `rate`."""
        return tuple(np.geomspace(self.first, self.last, self.levels) * rate)


@dataclass(frozen=True)
class Residual:
    """Train ``V = lift + bump net`` on ``rho V - V_t - r - L^a V``, two ways.

    By policies (default): each is a linear equation in V, met by Levenberg-Marquardt
    steps from the weights of the last policy. ``direct=True``: the nonlinear residual
    itself, from random weights and no starting policy; it has further solutions and
    may end in one. Both begin with Adam. Faces with given values are met by
    construction; on artificial faces the Riccati value of the linearisation is
    what the network corrects.

    With a horizon time is one state more and V(x, T) = g(x) is met by construction
    (measured 1e-5 in 1-D). With an exit so is V = g on its surface, where a smooth
    function vanishes on it (measured 1e-6 in 2-D); on surfaces with corners V = g has
    rows of its own instead (2e-5 on a disc). Kinked g are rounded off by the lift: the
    report says by how much.

    On a face with a state constraint, in one state without horizon, the equation with
    the maximiser that leads across no face has a row (measured 1e-7 and 5e-7).

    With rights to stop the network is the value W of going on, and the surface where it
    meets psi moves between policies until their slopes fit too (`surface_run`); at
    most eight states, four with a horizon and time included. W and psi have rows
    there, nothing is held by construction. Not with `direct`, `schedule`,
    `adam_steps` or `checkpoint`.

    Needs V smooth, or a `schedule`: without noise, kinks come out in the wrong
    places, at the same residual as in the right ones.

    Parameters
    ----------
    hidden : sequence of int
        Widths of the tanh layers; P weights in all.
    points_per_weight : float
        States over P, at least 1.
    adam_steps : int
        >= 0, on half as many states, drawn anew every 100 steps.
    learning_rate : float
        At the start; falls tenfold.
    steps : int
        Levenberg-Marquardt steps a policy, at most.
    max_policies : int
        For each level of noise.
    direct : bool
    schedule : NoiseSchedule or None
    tolerance : float
        On the change of V between policies relative to sup|V|.
    checkpoint : str or Path, optional
        File written after every policy and every 100 steps of Adam; a run that finds
        it goes on from there and gives the bits of one that was never interrupted.

    Raises
    ------
    ProblemError
        Options out of range; in `learn`, functions that are not finite at a state,
        or a checkpoint of another run. MethodMismatch: a state constraint in more.

    Cost: a step is one QR, 2 N P^2 flops for N states.

    Source: Meng et al., ICML 2024 (arXiv 2402.10119), algorithm PINN-PI; the bump
    after Lagaris, Likas and Fotiadis, IEEE Trans. Neural Networks 9 (1998), eq. 14.
    """

    hidden: Sequence[int] = (20, 20)
    points_per_weight: float = 3.0
    adam_steps: int = 0
    learning_rate: float = 5e-3
    steps: int = 6
    max_policies: int = 15
    direct: bool = False
    schedule: NoiseSchedule | None = None
    tolerance: float = 1e-7
    checkpoint: str | Path | None = field(default=None, repr=False)
    takes: ClassVar[tuple[str, ...]] = ("horizon", "exit", "stop")

    def __post_init__(self) -> None:
        check_widths("Residual", self.hidden, 1)
        check_count("Residual", "adam_steps", self.adam_steps, 0)
        for name in ("steps", "max_policies"):
            check_count("Residual", name, getattr(self, name))
        for name in ("learning_rate", "tolerance"):
            check_number("Residual", name, getattr(self, name))
        points = self.points_per_weight
        check_number("Residual", "points_per_weight", points, 1.0, equal=True)
        check_file("Residual", self.checkpoint)
        if self.schedule is not None and not isinstance(self.schedule, NoiseSchedule):
            raise ProblemError("Residual: schedule must be a NoiseSchedule or None.")

    def learn(
        self, problem: ControlProblem, start: Any, seed: int, progress: bool
    ) -> Outcome:
        """Lower the noise level by level; at each, alternate value and policy."""
        from .residual_run import ResidualRun
        from .stopping_residual import learn_stopping

        if self.direct and start is not None:
            raise ProblemError(
                "Residual: direct=True begins with random weights and evaluates no "
                "policy; leave start=None, or direct=False."
            )
        if is_constrained(problem) and (problem.dimension > 1 or problem.horizon):
            # On a square with one such face it was .12 of V off, not converged.
            raise MethodMismatch(
                "Residual takes StateConstraint faces of stationary problems in one "
                "state only; neural.LeastSquares() takes them in more, and with a "
                "horizon, and so does a grid (hjbpde.solve)."
            )
        if problem.stop is not None:
            return learn_stopping(self, problem, start, seed, progress)
        run = ResidualRun(self, problem, start, seed)
        run.train(progress)
        return run.outcome()
