"""What happens to the process beside drift and noise: exit, stops, modes, impulses."""

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
    """The right to stop and settle at psi(x), at any time or at given dates.

    Parameters
    ----------
    payoff : callable
        ``psi(x) -> (...)``, in the problem's own sense.
    by : {"controller", "adversary"}
        Who holds the right: the value is never worse than psi for the controller
        who may stop, never better where the adversary may.
    dates : sequence of float, optional
        Calendar times in [0, T] at which the right holds (a Bermudan right), which
        needs a horizon. At a date ``V(t) = max(V(t+), psi)`` for the controller of a
        reward: V at a date is what it is worth with the right still in hand.

    Raises
    ------
    ProblemError
        A payoff that is no function, an unknown holder, dates that are none.
    """

    payoff: Callable[[Any], Any]
    by: Literal["controller", "adversary"] = "controller"
    dates: Any = None

    def __post_init__(self) -> None:
        if not callable(self.payoff):
            raise ProblemError(
                f"Stop: payoff must be a function psi(x), got {self.payoff!r}."
            )
        if self.by not in ("controller", "adversary"):
            raise ProblemError(
                f"Stop: by must be 'controller' or 'adversary', got {self.by!r}."
            )
        if self.dates is None:
            return
        dates = np.unique(np.atleast_1d(np.asarray(self.dates, dtype=float)))
        if dates.ndim != 1 or not dates.size or not np.isfinite(dates).all():
            raise ProblemError(
                f"Stop: dates must be finite calendar times, got {self.dates!r}; leave "
                "them out for a right that holds at any time."
            )
        object.__setattr__(self, "dates", tuple(dates.tolist()))

    def acts_at(self, t: float, slack: float = 0.0) -> bool:
        """Whether the right holds at calendar time t, dates matched up to `slack`."""
        return self.dates is None or any(abs(t - date) <= slack for date in self.dates)


@dataclass(frozen=True, eq=False)
class Impulse:
    """The right to move the state at once, as often as one likes, at a cost each time.

    With ``M V(x) = sup_y { V(y) - c(x, y) }`` over the targets y, the value solves the
    quasi-variational inequality ::

        min( rho V - sup_a { r + f . grad V + 1/2 tr(sigma sigma^T hess V) },
             V - M V ) = 0

    (Oksendal and Sulem, Applied Stochastic Control of Jump Diffusions, 2nd ed.,
    theorem 6.2). With ``cost=`` it is ``max(rho V - inf_a {...}, V - M V) = 0`` and
    ``M V(x) = inf_y { V(y) + c(x, y) }``.

    Parameters
    ----------
    targets : array (n, d) or callable
        The states that may be moved to, or those from x: ``y(x) -> (..., n, d)``.
    cost : float or callable
        ``c(x, y) -> (...)`` for x and y ``(..., d)`` of one shape, or a number. It is
        paid at once: taken from a reward, added to a cost. Every entry must be > 0,
        or one could move for ever; infinity forbids the move.

    Raises
    ------
    ProblemError
        Targets of a wrong shape or not finite, a number that is no cost.
    """

    targets: Any
    cost: Any

    def __post_init__(self) -> None:
        if not callable(self.cost) and not 0 < float(self.cost) < np.inf:
            raise ProblemError(
                f"Impulse: cost must be a function c(x, y) or a number > 0, got "
                f"{self.cost!r}; a move without a fixed cost would be made for ever."
            )
        if callable(self.targets):
            return
        y = np.array(self.targets, dtype=float)
        if y.ndim != 2 or not y.size or not np.isfinite(y).all():
            raise ProblemError(
                "Impulse: targets must be a finite array (n, d), one state a row, or "
                f"a function of x; got shape {y.shape}."
            )
        y.setflags(write=False)
        object.__setattr__(self, "targets", y)

    def targets_from(self, x: Any) -> Any:
        """The targets from x (N, d): (N, n, d), or (1, n, d) where all share them.

        Raises
        ------
        ProblemError
            A function of the wrong shape, or not finite.
        """
        if not callable(self.targets):
            return self.targets[None]
        y = np.asarray(self.targets(x), dtype=float)
        if y.ndim != 3 or y.shape[::2] != x.shape or not y.size:
            raise ProblemError(
                f"Impulse: targets(x) returned shape {y.shape} for states of shape "
                f"{x.shape}; expected ({len(x)}, n, {x.shape[-1]})."
            )
        if not np.isfinite(y).all():
            bad = x[np.argwhere(~np.isfinite(y))[0, 0]]
            raise ProblemError(f"Impulse: targets(x) is not finite at x = {bad}.")
        return y

    def costs(self, x: Any, y: Any) -> Any:
        """c for x (N, d) and targets y (N or 1, n, d): (N, n).

        Raises
        ------
        ProblemError
            A cost that is not positive, naming both states, or a wrong shape.
        """
        shape = (len(x), y.shape[1])
        wide = (*shape, x.shape[-1])
        x, y = np.broadcast_to(x[:, None], wide), np.broadcast_to(y, wide)
        found: Any = self.cost(x, y) if callable(self.cost) else float(self.cost)
        try:
            c = np.broadcast_to(np.asarray(found, dtype=float), shape)
        except ValueError:
            raise ProblemError(
                f"Impulse: cost(x, y) returned shape {np.shape(found)} for states of "
                f"shape {wide}; expected {shape}, one number a pair."
            ) from None
        bad = np.argwhere(~(c > 0))
        if len(bad):
            n, j = bad[0]
            raise ProblemError(
                f"Impulse: the cost of moving from x = {x[n, j]} to y = {y[n, j]} is "
                f"{c[n, j]:g}; it must be > 0, or one could move for ever. Add a fixed "
                "part, or return infinity for moves that are not allowed."
            )
        return c


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
    fault = _fault_of_dates(problem)
    if fault is None and problem.impulse is not None:
        fault = _fault_of_impulse(problem)
    if fault is not None:
        return fault
    return _fault_of_average(problem) if problem.average else None


def _fault_of_dates(problem: Any) -> str | None:
    T = problem.horizon
    for stop in stops_of(problem.stop):
        if stop.dates is None:
            continue
        if T is None:
            return (
                "'stop': dates need horizon=T and terminal=g; without a horizon the "
                "right to stop holds at any time."
            )
        outside = [date for date in stop.dates if not 0 <= date <= T]
        if outside:
            return (
                f"'stop': the date {outside[0]:g} lies outside [0, {T:g}]; t = 0 is "
                "today, t = T the horizon."
            )
        marks = np.unique([0.0, *stop.dates, T])
        gaps = np.diff(marks)
        if (gaps < 1e-9 * T).any():
            near = marks[int(gaps.argmin())]
            return (
                f"'stop': two dates, or one and 0 or T, at {near:g} are nearer than "
                "rounding tells apart; give one."
            )
    return None


def _fault_of_average(problem: Any) -> str | None:
    if callable(problem.discount) or float(problem.discount) != 0:
        return "average=True is the long run without discount: give discount=0."
    for field in ("horizon", "exit", "stop", "modes"):
        if getattr(problem, field) is not None:
            return f"no method takes average=True together with '{field}'."
    return None


def _fault_of_impulse(problem: Any) -> str | None:
    impulse = problem.impulse
    if not isinstance(impulse, Impulse):
        return "'impulse' must be hjb.Impulse(targets, cost)."
    for field in ("horizon", "stop", "adversary", "modes"):
        if getattr(problem, field) is not None:
            return f"no method takes 'impulse' together with '{field}'."
    if problem.average or (not callable(problem.discount) and problem.discount <= 0):
        return "'impulse' needs discount > 0: the moves' costs are summed for ever."
    if callable(impulse.targets):
        return None
    y, domain = impulse.targets, problem.domain
    if y.shape[1] != domain.dimension:
        return (
            f"'impulse': the targets have {y.shape[1]} columns for "
            f"{domain.dimension} states."
        )
    outside = y[~domain.contains(domain.wrap(y), 1e-12)]
    if len(outside):
        return f"'impulse': the target {outside[0]} lies outside the domain {domain}."
    return None
