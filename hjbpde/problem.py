"""The one problem class; its fields say which rows the system has.

With ``reward=`` the value V maximises, with ``cost=`` it minimises, the expected
discounted integral along ``dX = f(X, a) dt + sigma(X, a) dW``::

    rho V = sup_a { r + f . grad V + 1/2 tr(sigma sigma^T hess V) }      (reward)
    rho V = inf_a { l + f . grad V + 1/2 tr(sigma sigma^T hess V) }      (cost)

(Fleming and Soner, Controlled Markov Processes and Viscosity Solutions, 2nd ed.,
equation IV.5.8 with the sign of the payoff as stated here.) With a horizon -V_t is
added on the left; with a right to stop, V is also kept at or above psi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arrays import constant, namespace
from .boundary import (
    BoundaryRule,
    Dirichlet,
    Extrapolate,
    Face,
    Reflecting,
    Robin,
    StateConstraint,
)
from .errors import MethodMismatch, ProblemError
from .events import Stop, fault_of_events, stops_of
from .exact import Exact
from .grid import Grid
from .held import held, held_events, held_rule, keywords, raised
from .jumps import fault_of_jumps
from .sets import Box, ControlSet, Finite

_RULES = (Dirichlet, Reflecting, Robin, Extrapolate, StateConstraint)
_OF_TIME = ("drift", "diffusion", "reward", "cost", "discount")
"""Functions that may name the keyword t."""


@dataclass(frozen=True, eq=False)
class ControlProblem:
    """A controlled diffusion and what its controller is paid.

    Parameters
    ----------
    drift : callable
        ``f(x, a) -> (..., d)``.
    diffusion : callable, float, array (d, k) or None
        ``sigma(x, a) -> (..., d, k)``; a number s means s times the identity; an
        array is constant; None is deterministic.
    reward, cost : callable
        ``r(x, a) -> (...)``; give exactly one: reward maximises, cost minimises.
    controls : Box, Finite or None
        The admissible controls; None means there are none (a is ``(..., 0)``).
    domain : Box
        The states, with periodic axes marked.
    discount : float or callable
        rho >= 0, or ``rho(x) -> (...)``, a rate per unit of time; 0 only where the
        process may end, see `may_end`, and for averages.
    horizon, terminal : float and callable, optional
        T and g(x): the problem ends at T with g. Functions may then name t, the
        calendar time, which is passed by keyword.
    exit : Exit, optional
        The process ends on entering a region, see `hjbpde.events`.
    stop : callable, Stop or pair of Stop, optional
        The right to stop and settle at psi(x), see `hjbpde.events`.
    adversary : Box or Finite, optional
        Controls b of a second player who works against the first and knows the
        first one's choice: ``sup_a inf_b`` with reward, ``inf_a sup_b`` with cost.
        Functions may then name b, ``(..., mb)``, which is passed by keyword.
    modes : Modes, optional
        Modes switched between at given rates; functions may then name mode, an
        integer, which is passed by keyword.
    jumps : Jumps, optional
        Jumps of the state at random times, see `hjbpde.jumps`.
    impulse : Impulse, optional
        The right to move the state at once at a cost, see `hjbpde.events`.
    average : bool
        The long-run average instead of a discounted sum; discount is then 0.
    boundary : rule, mapping or None
        One rule for every face, or ``{(axis, "low" | "high"): rule}``; a face
        without a rule is artificial (see ``hjbpde.boundary``).
    best_control : callable, optional
        ``best_control(x, p, hess) -> (..., m)``, a maximiser of the Hamiltonian
        (minimiser with cost); checked against candidates, the better is used.
    exact : Exact, optional
    scale : float or callable, optional
        What errors are relative to; default sup|V| over the region.
    suggested_grid : Grid, optional
        A sensible default grid, set by the catalogue.

    Raises
    ------
    ProblemError
        Anything unusable, naming the field and the remedy.
    """

    drift: Callable[..., Any]
    diffusion: Any = None
    reward: Callable[..., Any] | None = None
    cost: Callable[..., Any] | None = None
    controls: ControlSet | None = None
    domain: Box | None = None
    discount: Any = 0.0
    horizon: float | None = None
    terminal: Any = None
    boundary: BoundaryRule | Mapping[Face, BoundaryRule | None] | None = None
    exit: Any = None
    stop: Any = None
    adversary: Any = None
    modes: Any = None
    jumps: Any = None
    impulse: Any = None
    average: bool = False
    best_control: Callable[..., Any] | None = None
    exact: Exact | None = None
    scale: Any = None
    name: str = ""
    suggested_grid: Grid | None = None

    def __post_init__(self) -> None:
        self._check_functions()
        self._check_domain()
        self._check_events()
        object.__setattr__(self, "_faces", self._faces_of(self.boundary))
        self._check_discount()
        self._check_data()

    def _fail(self, text: str) -> None:
        label = f" {self.name!r}" if self.name else ""
        raise ProblemError(f"ControlProblem{label}: {text}")

    def _check_functions(self) -> None:
        if (self.reward is None) == (self.cost is None):
            self._fail("give exactly one of reward= (maximise) and cost= (minimise).")
        for field in ("drift", "reward", "cost", "best_control"):
            function = getattr(self, field)
            if function is not None and not callable(function):
                self._fail(f"'{field}' must be a function, got {type(function)}.")
        for field in _OF_TIME:
            function = getattr(self, field)
            named = keywords(function)
            if "b" in named and self.adversary is None:
                self._fail(f"'{field}' names b, but adversary= is missing.")
            if "mode" in named and self.modes is None:
                self._fail(f"'{field}' names mode, but modes= is missing.")
            if "t" in named and self.horizon is None:
                self._fail(
                    f"'{field}' names t, but the problem has no horizon: "
                    "time-dependent data need horizon=T and terminal=g."
                )
        if self.adversary is not None and not any(
            "b" in keywords(getattr(self, field)) for field in _OF_TIME
        ):
            self._fail(
                "'adversary' is given, but no function names b: it could do nothing. "
                "Let drift, diffusion or the payoff take b by keyword, f(x, a, b), or "
                "leave adversary out."
            )
        diffusion = self.diffusion
        if diffusion is not None and not callable(diffusion):
            array = np.asarray(diffusion, dtype=float)
            if array.ndim not in (0, 2) or not np.isfinite(array).all():
                self._fail(
                    "'diffusion' must be a finite number, a (d, k) array, a function "
                    f"or None; got shape {array.shape}."
                )
        for field in ("controls", "adversary"):
            box = getattr(self, field)
            if box is not None and not isinstance(box, Box | Finite):
                self._fail(f"'{field}' must be Box, Finite or None.")
            if isinstance(box, Box) and any(box.periodic_axes):
                self._fail("a control box cannot be periodic.")

    def _check_domain(self) -> None:
        domain = self.domain
        if not isinstance(domain, Box) or domain.varies:
            self._fail("'domain' must be a Box with constant bounds.")
        assert isinstance(domain, Box)
        if not (np.isfinite(domain.low).all() and np.isfinite(domain.high).all()):
            self._fail(
                f"the domain {domain} is unbounded: cut it where the state rarely "
                "goes and leave that face without a rule (artificial)."
            )
        if self.diffusion is not None and not callable(self.diffusion):
            shape = np.shape(self.diffusion)
            if shape and shape[0] != domain.dimension:
                self._fail(
                    f"'diffusion' has {shape[0]} rows for {domain.dimension} states."
                )

    def _check_events(self) -> None:
        fault = fault_of_events(self) or fault_of_jumps(self)
        if fault is not None:
            self._fail(fault)

    def _check_data(self) -> None:
        for field, function in self._data():
            if self.horizon is None and "t" in keywords(function):
                self._fail(
                    f"the data of '{field}' name t, but the problem has no horizon: "
                    "time-dependent data need horizon=T and terminal=g."
                )
        if self.exit is not None and "t" in keywords(self.exit.region):
            self._fail(
                "'exit': a region that moves in time is taken by no method; its value "
                "may name t, and so may a stopping payoff (a moving obstacle)."
            )

    def _check_discount(self) -> None:
        if self.average or callable(self.discount):
            return
        rho = float(self.discount)
        if not np.isfinite(rho) or rho < 0:
            self._fail(f"'discount' must be a finite rate >= 0, got {rho:g}.")
        if rho == 0 and not self.may_end:
            self._fail(
                "'discount' is 0, and nothing may end the process: no horizon, no "
                "exit, no right to stop, no noise that carries it to a face with "
                "Dirichlet data. The value may be infinite. Give discount > 0 (1e-6, "
                "say), or average=True for the long run."
            )

    def _faces_of(self, boundary: Any) -> dict[Face, BoundaryRule | None]:
        assert self.domain is not None
        periodic = self.domain.periodic_axes
        open_faces = [
            (axis, side)
            for axis in range(len(periodic))
            for side in ("low", "high")
            if not periodic[axis]
        ]
        if boundary is None or isinstance(boundary, _RULES):
            return dict.fromkeys(open_faces, boundary)
        if not isinstance(boundary, Mapping):
            self._fail("'boundary' must be None, one rule, or a mapping of faces.")
        faces: dict[Face, BoundaryRule | None] = dict.fromkeys(open_faces)
        for face, rule in boundary.items():
            if face not in faces:
                self._fail(
                    f"'boundary' names the face {face!r}; the faces are {open_faces} "
                    "(a periodic axis has none)."
                )
            if rule is not None and not isinstance(rule, _RULES):
                self._fail(f"the rule of face {face!r} is {rule!r}, not a rule.")
            faces[face] = rule
        return faces

    # --- what every reader of the problem asks -------------------------------

    @property
    def dimension(self) -> int:
        """Number of states d."""
        assert self.domain is not None
        return self.domain.dimension

    @property
    def n_controls(self) -> int:
        """Number of controls m."""
        return 0 if self.controls is None else self.controls.dimension

    @property
    def sign(self) -> float:
        """+1 with reward, -1 with cost: ``sign * V`` is always maximised."""
        return 1.0 if self.reward is not None else -1.0

    @property
    def faces(self) -> dict[Face, BoundaryRule | None]:
        """The rule of every face of a non-periodic axis, None where artificial."""
        return dict(self.__dict__["_faces"])

    @property
    def artificial_axes(self) -> tuple[bool, ...]:
        """For every axis, whether one of its faces is artificial."""
        return tuple(
            any(rule is None for (k, _), rule in self.faces.items() if k == axis)
            for axis in range(self.dimension)
        )

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The rights to stop, none, one, or one a side."""
        return stops_of(self.stop)

    @property
    def dates(self) -> tuple[float, ...]:
        """Calendar times at which somebody may stop who may not always."""
        return tuple(sorted({d for stop in self.stops for d in stop.dates or ()}))

    def stops_at(self, t: float) -> tuple[Stop, ...]:
        """The rights to stop that hold at calendar time t, their payoffs held there."""
        slack = 1e-12 * float(self.horizon or 0.0)
        return tuple(s for s in self.at_time(t).stops if s.acts_at(t, slack))

    @property
    def special(self) -> frozenset[str]:
        """Fields in use that not every method takes, and "dates" of a right to stop."""
        fields = ("horizon", "exit", "stop", "modes", "adversary", "jumps", "impulse")
        used = {field for field in fields if getattr(self, field) is not None}
        used |= {"average"} if self.average else set()
        return frozenset(used | ({"dates"} if self.dates else set()))

    @property
    def may_end(self) -> bool:
        """Whether the process may end for good, so that nothing need be discounted.

        At a horizon, in an exit region, by a right to stop, or where noise carries it
        to a face with Dirichlet data.
        """
        given = any(isinstance(rule, Dirichlet) for rule in self.faces.values())
        ends = (
            self.horizon is not None or self.exit is not None or self.stop is not None
        )
        return ends or (given and self.diffusion is not None)

    def require_only(self, what: str, *fields: str) -> None:
        """Refuse special fields that `what` does not know.

        Raises
        ------
        MethodMismatch
            Naming the fields.
        """
        unknown = sorted(self.special - set(fields))
        if unknown:
            raise MethodMismatch(
                f"{what} does not know the field {', '.join(map(repr, unknown))} of "
                "this problem; it takes discounted stationary problems"
                + (f" and {', '.join(fields)}." if fields else ".")
            )

    @property
    def depends_on_time(self) -> bool:
        """Whether some coefficient names the keyword t."""
        jumps_do = self.jumps is not None and self.jumps.depends_on_time
        return jumps_do or any("t" in keywords(getattr(self, f)) for f in _OF_TIME)

    @property
    def data_depend_on_time(self) -> bool:
        """Whether face data, the exit's value or a stopping payoff name t."""
        return any("t" in keywords(f) for _, f in self._data())

    def _data(self) -> list[tuple[str, Any]]:
        """Functions of x beside the coefficients, with the field they belong to."""
        rules = [r for r in self.faces.values() if isinstance(r, Dirichlet | Robin)]
        found: list[tuple[str, Any]] = [("boundary", rule.g) for rule in rules]
        found += [("stop", stop.payoff) for stop in self.stops]
        return found + ([] if self.exit is None else [("exit", self.exit.value)])

    def terminal_at(self, x: Any) -> Any:
        """g(x) at the horizon, shape ``(...)``."""
        xp = namespace(x)
        if callable(self.terminal):
            return self._shaped("terminal", self.terminal(x), x, ())
        return xp.full(tuple(x.shape[:-1]), float(self.terminal), dtype=x.dtype)

    def at_time(self, t: float) -> ControlProblem:
        """The same problem with every function held at calendar time t."""
        at: dict[str, Any] = {f: held(getattr(self, f), t=t) for f in _OF_TIME}
        at["boundary"] = {f: held_rule(r, t=t) for f, r in self.faces.items()}
        at["exit"], at["stop"] = held_events(self.exit, self.stop, t=t)
        at["jumps"] = None if self.jumps is None else self.jumps.held(t=t)
        return replace(self, **at)

    def slice_at(self, t: float, rate: float) -> ControlProblem:
        """The stationary problem of one implicit step: data at t, discount + rate.

        Horizon, terminal and stopping rights are dropped: the method adds the value
        of the step before, and the obstacle, to the rows.
        """

        now = self.at_time(t)
        ended = {"horizon": None, "terminal": None, "stop": None, "exact": None}
        return replace(now, discount=raised(now.discount, rate), **ended)

    def in_mode(self, k: int, rate: Any = 0.0) -> ControlProblem:
        """The stationary problem of mode k alone, discounted by `rate` more.

        ``rate`` is a number or ``rate(x)``: with the total rate of leaving mode k,
        adding ``sum_j q_kj V_j`` to the payoff gives the whole problem of that mode.
        """
        of = (*_OF_TIME, "best_control", "terminal")
        at: dict[str, Any] = {f: held(getattr(self, f), mode=k) for f in of}
        at["discount"] = raised(at["discount"], rate)
        at["boundary"] = {f: held_rule(r, mode=k) for f, r in self.faces.items()}
        at["exit"], at["stop"] = held_events(self.exit, self.stop, mode=k)
        return replace(self, **at, modes=None, exact=None)

    def drift_at(self, x: Any, a: Any) -> Any:
        """f(x, a), broadcast to ``(..., d)``."""
        return self._shaped("drift", self.drift(x, a), x, (self.dimension,))

    def payoff_at(self, x: Any, a: Any) -> Any:
        """The running reward or cost, in its own sign, shape ``(...)``."""
        field = "reward" if self.reward is not None else "cost"
        return self._shaped(field, getattr(self, field)(x, a), x, ())

    def diffusion_at(self, x: Any, a: Any) -> Any:
        """sigma(x, a), shape ``(..., d, k)``."""
        xp, d = namespace(x), self.dimension
        sigma = self.diffusion
        if callable(sigma):
            out = sigma(x, a)
            shape = tuple(getattr(out, "shape", ()))
            if len(shape) < 2 or shape[-2] != d:
                self._fail(
                    f"'diffusion' returned shape {shape} for states of shape "
                    f"{tuple(x.shape)}; it must be (..., {d}, k), one column a noise."
                )
            return self._shaped("diffusion", out, x, shape[-2:])
        matrix = np.zeros((d, 1)) if sigma is None else np.asarray(sigma, dtype=float)
        if matrix.ndim == 0:
            matrix = float(matrix) * np.eye(d)
        return xp.broadcast_to(
            constant(matrix, like=x), (*tuple(x.shape[:-1]), *matrix.shape)
        )

    def discount_at(self, x: Any) -> Any:
        """rho(x), shape ``(...)``."""
        xp = namespace(x)
        if callable(self.discount):
            return self._shaped("discount", self.discount(x), x, ())
        return xp.full(tuple(x.shape[:-1]), float(self.discount), dtype=x.dtype)

    def _shaped(self, field: str, out: Any, x: Any, tail: tuple[int, ...]) -> Any:
        xp, lead = namespace(x), tuple(x.shape[:-1])
        if not hasattr(out, "shape"):
            out = constant(out, like=x)
        shape, wanted = tuple(out.shape), (*lead, *tail)
        if shape == wanted:
            return out
        column = (
            not tail and shape == (*lead, 1) and not (len(lead) == 0 or lead[-1] == 1)
        )
        try:
            if column:
                raise ValueError
            return xp.broadcast_to(out, wanted)
        except (ValueError, RuntimeError):
            hint = (
                " A scalar function must not keep a last axis of length 1: index "
                "with x[..., 0]."
                if column
                else ""
            )
            self._fail(
                f"'{field}' returned shape {shape} for states of shape "
                f"{tuple(x.shape)}; expected {wanted}.{hint}"
            )
