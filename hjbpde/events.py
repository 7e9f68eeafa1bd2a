"""What can end the process before the clock does: entering a region, or stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .errors import ProblemError


@dataclass(frozen=True)
class Exit:
    """The process stops on entering ``{phi(x) <= 0}`` and takes g(x) there.

    Parameters
    ----------
    region : callable
        ``phi(x) -> (...)``, negative inside, as a signed distance.
    value : float or callable
        ``g``, a number or ``g(x) -> (...)``, in the problem's own sense.
    """

    region: Callable[[Any], Any]
    value: Any = 0.0

    def __post_init__(self) -> None:
        if not callable(self.region):
            raise ProblemError(
                f"Exit: region must be a function phi(x), got {self.region!r}."
            )
        if not callable(self.value) and not np.isfinite(float(self.value)):
            raise ProblemError(f"Exit: value must be finite, got {self.value!r}.")


@dataclass(frozen=True)
class Stop:
    """The right to stop at any time and settle at psi(x).

    Parameters
    ----------
    payoff : callable
        ``psi(x) -> (...)``, in the problem's own sense.
    by : {"controller", "adversary"}
        Who holds the right: the value is never worse than psi for the controller
        who may stop, never better where the adversary may.
    """

    payoff: Callable[[Any], Any]
    by: Literal["controller", "adversary"] = "controller"

    def __post_init__(self) -> None:
        if not callable(self.payoff):
            raise ProblemError(
                f"Stop: payoff must be a function psi(x), got {self.payoff!r}."
            )
        if self.by not in ("controller", "adversary"):
            raise ProblemError(
                f"Stop: by must be 'controller' or 'adversary', got {self.by!r}."
            )


def stops_of(stop: Any) -> tuple[Stop, ...]:
    """The field `stop` as a tuple: nothing, a payoff, a Stop, or a pair of them."""
    if stop is None:
        return ()
    if isinstance(stop, Stop):
        return (stop,)
    if isinstance(stop, tuple | list):
        return tuple(s if isinstance(s, Stop) else Stop(s) for s in stop)
    return (Stop(stop),)
