"""What happens to the process beside drift and noise: exit, stopping, modes."""

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


@dataclass(frozen=True, eq=False)
class Modes:
    """K modes the problem jumps between: a Markov chain beside the state.

    With the value V_k in mode k, what is maximised gains ``sum_j q_kj (V_j - V_k)``
    (Fleming and Soner, Controlled Markov Processes and Viscosity Solutions, 2nd ed.,
    section III.4, for chains; added to the generator of a diffusion).

    Parameters
    ----------
    rates : array (K, K) or callable
        q, or ``q(x) -> (..., K, K)``, per unit of time: entries off the diagonal
        are >= 0 and every row sums to 0.
    count : int, optional
        K, needed only where `rates` is a function.

    Raises
    ------
    ProblemError
        A negative rate, named; a row that does not sum to 0; a wrong shape.
    """

    rates: Any
    count: int | None = None

    def __post_init__(self) -> None:
        if callable(self.rates):
            if not isinstance(self.count, int) or self.count < 1:
                raise ProblemError(
                    "Modes: with rates given as a function, say how many modes there "
                    "are: Modes(q, count=K)."
                )
            return
        q = np.array(self.rates, dtype=float)
        if q.ndim != 2 or q.shape[0] != q.shape[1] or not len(q):
            raise ProblemError(
                f"Modes: rates must be a square array (K, K), got shape {q.shape}."
            )
        if self.count is not None and self.count != len(q):
            raise ProblemError(f"Modes: count is {self.count}, rates are {q.shape}.")
        _check_rates(q[None], None)
        q.setflags(write=False)
        object.__setattr__(self, "rates", q)

    @property
    def n(self) -> int:
        """Number of modes K."""
        return len(self.rates) if not callable(self.rates) else int(self.count or 0)

    def at(self, x: Any) -> Any:
        """Rates from mode k to j at x (N, d), zero diagonal: (N, K, K), or (1, K, K).

        Raises
        ------
        ProblemError
            As for the class, naming the state.
        """
        if not callable(self.rates):
            q = np.array(self.rates)[None]
        else:
            q = np.array(self.rates(x), dtype=float)
            wanted = (len(x), self.n, self.n)
            if q.shape != wanted:
                raise ProblemError(
                    f"Modes: rates(x) returned shape {q.shape} for states of shape "
                    f"{np.shape(x)}; expected {wanted}."
                )
            _check_rates(q, x)
        q[:, np.arange(self.n), np.arange(self.n)] = 0.0
        return q


def _check_rates(q: Any, x: Any) -> None:
    def place(n: int) -> str:
        return "" if x is None else f" at x = {x[n]}"

    if not np.isfinite(q).all():
        n, k, j = np.argwhere(~np.isfinite(q))[0]
        raise ProblemError(
            f"Modes: the rate from mode {k} to {j} is {q[n, k, j]}{place(n)}."
        )
    negative = np.argwhere((q < 0) & ~np.eye(q.shape[1], dtype=bool))
    if len(negative):
        n, k, j = negative[0]
        raise ProblemError(
            f"Modes: the rate from mode {k} to {j} is {q[n, k, j]:g}{place(n)}; rates "
            "off the diagonal must be >= 0."
        )
    sums = q.sum(-1)
    off = np.argwhere(np.abs(sums) > 1e-9 * (1e-300 + np.abs(q).max(-1)))
    if len(off):
        n, k = off[0]
        raise ProblemError(
            f"Modes: row {k} of the rates sums to {sums[n, k]:g}{place(n)}, not 0; "
            f"the diagonal entry is minus the sum of the others."
        )


def fault_of_events(problem: Any) -> str | None:
    """The first fault in how a problem ends, stops, switches or averages, if any."""
    if (problem.horizon is None) != (problem.terminal is None):
        return "'horizon' and 'terminal' go together: give both or neither."
    T, g = problem.horizon, problem.terminal
    if T is not None and not (np.isfinite(T) and T > 0):
        return f"'horizon' must be a positive time, got {T!r}."
    if g is not None and not callable(g) and not np.isfinite(float(g)):
        return f"'terminal' must be finite, got {g!r}."
    if problem.exit is not None and not isinstance(problem.exit, Exit):
        return "'exit' must be hjb.Exit(region=phi, value=g)."
    if problem.modes is not None and not isinstance(problem.modes, Modes):
        return "'modes' must be hjb.Modes(rates)."
    stops = stops_of(problem.stop)
    if len({s.by for s in stops}) < len(stops):
        return "'stop' may hold one right to stop for each side, not two."
    return _fault_of_average(problem) if problem.average else None


def _fault_of_average(problem: Any) -> str | None:
    if callable(problem.discount) or float(problem.discount) != 0:
        return "average=True is the long run without discount: give discount=0."
    for field in ("horizon", "exit", "stop", "modes"):
        if getattr(problem, field) is not None:
            return f"no method takes average=True together with '{field}'."
    return None
