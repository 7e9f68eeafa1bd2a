"""A problem as its steps see it: mode by mode, both players as one."""

from __future__ import annotations

from dataclasses import dataclass

from ..players import one_player
from ..problem import ControlProblem
from .switching import Switching


@dataclass(frozen=True, eq=False)
class Part:
    """The own problem of one mode, and the rates at which it is left.

    Without modes there is one part, the problem itself.
    """

    problem: ControlProblem
    switching: Switching | None = None

    @property
    def joint(self) -> ControlProblem:
        """The problem with both players' controls side by side as those of one."""
        return one_player(self.problem)

    @property
    def opposed(self) -> int:
        """Number of the adversary's controls, which come last."""
        adversary = self.problem.adversary
        return 0 if adversary is None else int(adversary.dimension)

    def at(self, t: float) -> ControlProblem:
        """The joint problem held at calendar time t."""
        return one_player(self.problem.at_time(t))


def parts_of(problem: ControlProblem) -> list[Part]:
    """All modes of a problem."""
    if problem.modes is None:
        return [Part(problem)]
    return [
        Part(problem.in_mode(k), Switching(problem.modes, k))
        for k in range(problem.modes.n)
    ]
