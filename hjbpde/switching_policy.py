"""Values in time of a fixed policy that switches between modes, beside the best one.

As `fixed_policy`, for all modes together: the policy's problem has nothing left to
choose, and takes the same steps with the same weights, rates and slopes on faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MethodMismatch
from .fixed_policy import Beside, in_time, steps_back
from .fixed_strategy import some_controls
from .grid import Grid
from .methods.end_slopes import Closing
from .methods.marching import output_times
from .methods.moded_marching import ModedStepper
from .methods.stepper import Stepper
from .players import settled
from .problem import ControlProblem
from .schemes import Upwind

Array = NDArray[np.float64]
Rule = Callable[[float, Array], tuple[Array, Callable[..., Any]]]


@dataclass(eq=False)
class Led(Stepper):
    """A stepper whose slopes at artificial faces are those of another one."""

    leader: Any = None

    def close(self) -> None:
        """Set the slopes at artificial faces by V of the leader."""
        if self.leader is None:
            super().close()
            return
        theirs = self.leader.state.faces.artificial
        self.state.faces.set_slopes([face.slope for face in theirs])


def march_switching(
    problem: ControlProblem, grid: Grid, rule: Rule, times: Array, steps: int
) -> Beside:
    """March the best policies of all modes and fixed ones from the horizon to today.

    Parameters
    ----------
    rule : callable, (t, control (K, *shape, m)) -> (control, strategy)
        The fixed policies at time t, on the nodes and as a function ``a(x, mode)`` that
        is asked there; it is given the best ones, to keep them where it has none.

    Returns
    -------
    Beside
        With the modes before the axes of the state.

    Raises
    ------
    MethodMismatch
        A problem without horizon or modes, or with fields that are not taken.
    NotConverged
        A step whose value cannot be found.
    """
    problem.require_only("march_switching", "horizon", "modes")
    if problem.horizon is None or problem.modes is None:
        raise MethodMismatch("march_switching needs a horizon and modes.")
    outputs = output_times(problem, times)
    best = ModedStepper.of(problem, grid, Upwind(), Closing.ANCHORED)
    given: list[Callable[..., Any]] = [
        lambda x, mode: some_controls(problem.controls, x)
    ]
    left = settled(problem, lambda x, mode, t: given[0](x, mode))
    own = ModedStepper.of(left, grid, Upwind(), Closing.ANCHORED, Led)
    for part, leader in zip(own.parts, best.parts, strict=True):
        assert isinstance(part, Led)
        part.leader = leader
    values, controls = [(own.value, best.value)], []
    for t, dt, kept_there in steps_back(problem, outputs, steps):
        best.step(t, dt)
        theirs = best.control()
        mine, given[0] = rule(t, theirs)
        own.step(t, dt)
        if kept_there:
            values.append((own.value, best.value))
            controls.append((mine, theirs))
    # At the horizon nothing is decided: the last decisions stand there.
    controls.insert(0, controls[0])
    V, a = problem.sign * in_time(values), in_time(controls)
    never = np.zeros(V[0].shape, bool)
    return Beside(outputs, V[0], V[1], a[0], a[1], never, never)
