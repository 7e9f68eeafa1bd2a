"""The best control of every node, by looking one step ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProblemError
from ..interpolation import Interpolant
from ..probe import base_and_step, control_range, probe
from ..resting import resting_controls
from ..sets import ControlSet, Finite
from ..tabulate import QuadraticTables, tabulate
from .lookahead import Lookahead

Array = NDArray[np.float64]
SAMPLES = {1: 17, 2: 5, 3: 4}
"""Samples an entry of a control box, by the number of entries, 3 at most."""
FEW = {1: 5, 2: 3, 3: 2}
"""The same in the steps of a march, which start from the controls a step later."""
NEAR = 0.02
"""Share of a control box around a control that is searched at first."""
SHRINK = 0.2
"""What a search around a control narrows to where the best was not at its ends."""


@dataclass(eq=False)
class Search:
    """The control set of the free nodes of one grid, and how it is searched.

    Finite sets are tried point by point. A box is sampled where it is finite, and the
    best candidate refined by parabolas, one entry after the other.
    """

    look: Lookahead
    controls: ControlSet | None
    low: Array
    high: Array
    tables: QuadraticTables | None
    rests: list[Array]
    now: Array | None = None
    """Where V depends on time, a guess of V at the start of the step."""
    first: int = 0
    """The number of the first of them among the controls of both players."""
    opposed: int = 0
    """How many of them, the last ones, minimise."""

    @classmethod
    def of(cls, look: Lookahead, march: bool = False) -> Search:
        """The search on the nodes of `look`; in a march also of closed forms in a
        finite box, which save samples in every step.

        Raises
        ------
        ProblemError
            An infinite box without closed form and without best_control.
        """
        low, high = limits(look, look.problem.controls)
        tables = closed_form(look, march)
        rests = _resting(look, low, high)
        return cls(look, look.problem.controls, low, high, tables, rests)

    def renew(self) -> None:
        """Closed form and resting controls of the time at which the step starts.

        Raises
        ------
        ProblemError
            A closed form that no longer holds.
        """
        look = self.look
        if self.tables is not None:
            self.tables = _closed_form(look, 0, self.opposed)
        self.rests = _resting(look, self.low, self.high)

    @property
    def _finite_set(self) -> Array | None:
        controls = self.controls
        return np.asarray(controls.points) if isinstance(controls, Finite) else None

    def start(self) -> Array:
        """A first admissible policy (n, m): a middle control, not a greedy one.

        The value of a policy is a value; greedy controls of a guess far below the data
        on the walls would all run there, and some would stay with that.
        """
        points = self._finite_set
        if points is not None:
            return np.repeat(points[:1], len(self.look.x), axis=0)
        return np.ascontiguousarray(base_and_step(self.low, self.high)[0])

    def improve(self, V: Array, a: Array, wide: bool) -> tuple[Array, Array]:
        """Better controls (n, m) and what they are worth, (n,).

        V has a row (N,) for every mode, continued as it is read. `wide` tries every
        sample of a box; otherwise the neighbourhood of a.
        """
        best, worth = a.copy(), self._worth(V, a)
        if self.low.shape[1] == 0:
            return best, worth
        points = self._finite_set
        if points is not None:
            for point in points:
                self._try(V, np.broadcast_to(point, a.shape), best, worth)
            return best, worth
        for guess in self._guesses(V) if wide or self.tables is not None else []:
            self._try(V, guess, best, worth)
        for rest in self.rests:
            self._try(V, np.where(np.isnan(rest), best, rest), best, worth)
        spread = self.high - self.low
        finite = np.isfinite(spread)
        if wide:
            for sample in [*self._shifted(best), *self._samples(best)]:
                self._try(V, sample, best, worth)
        m = a.shape[1]
        width = np.where(finite, spread, 1.0 + np.abs(best))
        share = 1.0 / (SAMPLES.get(m, 3) - 1) if wide else NEAR
        self._refine(V, best, worth, share * width)
        return best, worth

    def follow(self, V: Array, a: Array, enough: float) -> tuple[Array, Array]:
        """As `improve`, for the next step of a march, of which there are many.

        The closed form or else few samples of the box, and the neighbours' controls;
        the best of them is refined until a round gains less than `enough` of sup|V|.
        """
        if self.low.shape[1] == 0 or self._finite_set is not None:
            return self.improve(V, a, wide=False)
        best, worth = a.copy(), self._worth(V, a)
        for guess in [*self._guesses(V), *self._shifted(a)]:
            self._try(V, guess, best, worth)
        for rest in self.rests:
            self._try(V, np.where(np.isnan(rest), best, rest), best, worth)
        for sample in self._samples(best, FEW) if self.tables is None else []:
            self._try(V, sample, best, worth)
        spread = self.high - self.low
        width = np.where(np.isfinite(spread), spread, 1.0 + np.abs(best))
        self._refine(V, best, worth, NEAR * width, enough)
        return best, worth

    def _shifted(self, a: Array) -> list[Array]:
        """The controls of the neighbours along every axis, admissible here."""
        grid, free = self.look.grid, self.look.free
        whole = np.zeros((grid.size, a.shape[1]))
        whole[free] = a
        whole = whole.reshape(*grid.shape, -1)
        known = np.zeros(grid.size, bool)
        known[free] = True
        known = known.reshape(grid.shape)
        found = []
        for axis, turn in product(range(grid.dimension), (1, -1)):
            moved = np.roll(whole, turn, axis).reshape(grid.size, -1)[free]
            there = np.roll(known, turn, axis).ravel()[free]
            moved = np.where(there[:, None], moved, a)
            found.append(np.clip(moved, self.low, self.high))
        return found

    def _samples(self, a: Array, counts: dict[int, int] = SAMPLES) -> list[Array]:
        """Controls (n, m) on a lattice in the box, cut where it is infinite.

        There the controls in use anywhere, with as much room again, take its place:
        beside a wall, leaving and staying are two maxima far apart.
        """
        m = self.low.shape[1]
        room = np.ptp(a, axis=0) + 1e-3 * (1.0 + np.abs(a).max(axis=0))
        least, most = a.min(axis=0) - 0.5 * room, a.max(axis=0) + 0.5 * room
        low = np.where(np.isfinite(self.low), self.low, np.minimum(least, self.high))
        high = np.where(np.isfinite(self.high), self.high, np.maximum(most, self.low))
        shares = np.linspace(0.0, 1.0, counts.get(m, counts[3]))
        return [
            low + np.array(share) * (high - low) for share in product(shares, repeat=m)
        ]

    def _guesses(self, V: Array) -> list[Array]:
        """Controls that the gradient suggests: closed form, or the user's own."""
        problem, look = self.look.problem, self.look
        if self.tables is None and problem.best_control is None:
            return []
        field = Interpolant(look.grid, V[look.mode].reshape(look.grid.shape))
        p = field.gradient(look.x)
        if self.tables is not None:
            mine = slice(self.first, self.first + self.low.shape[1])
            best = _greedy(self.tables, p)[:, mine]
            return [np.clip(best, self.low, self.high)]
        hess = _hessian(field, look)
        sign = problem.sign
        best: Any = problem.best_control
        found = np.asarray(best(look.x, sign * p, sign * hess), float)
        found = np.broadcast_to(found, self.low.shape)
        return [np.clip(np.where(np.isfinite(found), found, 0.0), self.low, self.high)]

    def _worth(self, V: Array, a: Array) -> Array:
        return self.look.step(a).value(V, self.look.lattice, self.now)

    def _try(self, V: Array, a: Array, best: Array, worth: Array) -> None:
        """Keep a where it is worth more, in place."""
        found = self._worth(V, a)
        better = found > worth
        best[better], worth[better] = a[better], found[better]

    def _refine(
        self, V: Array, best: Array, worth: Array, step: Array, enough: float = 1e-12
    ) -> None:
        """Parabolas through three controls, narrower round by round, in place."""
        size = float(np.max(np.abs(V))) or 1.0
        for _ in range(6):
            before = worth.copy()
            for i in range(best.shape[1]):
                centre, middle = best.copy(), worth.copy()
                ends, values = [], []
                for side in (-1.0, 1.0):
                    a = centre.copy()
                    a[:, i] = np.clip(
                        a[:, i] + side * step[:, i], self.low[:, i], self.high[:, i]
                    )
                    found = self._worth(V, a)
                    ends.append(a[:, i] - centre[:, i])
                    values.append(found)
                    better = found > worth
                    best[better], worth[better] = a[better], found[better]
                at_end = best[:, i] != centre[:, i]
                a = centre.copy()
                move = _vertex(ends, values, middle, step[:, i])
                a[:, i] = np.clip(a[:, i] + move, self.low[:, i], self.high[:, i])
                self._try(V, a, best, worth)
                step[:, i] *= np.where(at_end, 1.0, SHRINK)
            with np.errstate(invalid="ignore"):
                gained = np.where(worth > before, worth - before, 0.0)
            if np.max(gained) <= enough * size:
                break


def _resting(look: Lookahead, low: Array, high: Array) -> list[Array]:
    """Controls that just hold the state: on a wall often the best, (n, 1) each."""
    if low.shape[1] != 1 or not any(face.inward_only for face in look.walls):
        return []
    found = resting_controls(look.problem, look.x, low[:, 0], high[:, 0])
    return [rest.T for rest in found]


def _vertex(
    ends: list[Array], values: list[Array], middle: Array, step: Array
) -> Array:
    """Where the parabola through both ends and the middle, at 0, is highest.

    0 where it is not curved downwards, or somebody is inadmissible (-inf).
    """
    s, t = ends
    apart = s * t * (s - t)
    safe = np.where(apart == 0.0, 1.0, apart)
    with np.errstate(invalid="ignore", over="ignore"):
        g, h = (value - middle for value in values)
        bend = (g * t - h * s) / safe
        slope = (h * s * s - g * t * t) / safe
        curved = (apart != 0.0) & (bend < 0.0) & np.isfinite(bend) & np.isfinite(slope)
        move = -0.5 * slope / np.where(curved, bend, 1.0)
    return np.where(curved, np.clip(move, -4.0 * step, 4.0 * step), 0.0)


def limits(look: Lookahead, controls: ControlSet | None) -> tuple[Array, Array]:
    """Bounds (n, m) of a control box on the free nodes, 0 for other sets."""
    if controls is None or isinstance(controls, Finite):
        none = np.zeros((len(look.x), 0 if controls is None else controls.dimension))
        return none, none
    box = replace(look.problem, controls=controls)
    low, high = (side.T for side in control_range(box, look.x))
    return low, high


def closed_form(
    look: Lookahead, march: bool = False, opposed: int = 0
) -> QuadraticTables | None:
    """Coefficients of a Hamiltonian with closed-form extrema, where they are needed.

    The last `opposed` controls minimise. An infinite box cannot do without; a march
    is quicker with them.

    Raises
    ------
    ProblemError
        An infinite box without closed form and without best_control.
    """
    problem = look.problem
    if problem.controls is None or isinstance(problem.controls, Finite):
        return None
    low, high = limits(look, problem.controls)
    endless = not (np.isfinite(low).all() and np.isfinite(high).all())
    if endless and problem.best_control is None:
        return _closed_form(look, 0, opposed)
    if march and probe(problem, look.grid, opposed=opposed)[0].closed_form:
        found = tabulate(problem, look.grid, look.faces, opposed=opposed)
        if isinstance(found, QuadraticTables):
            return found.taken(look.free)
    return None


def _closed_form(look: Lookahead, seed: int, opposed: int) -> QuadraticTables:
    tables = tabulate(look.problem, look.grid, look.faces, seed, opposed)
    if not isinstance(tables, QuadraticTables):
        raise ProblemError(
            "SemiLagrangian: the control box is infinite, or a closed form held at "
            f"another time, but none holds here ({tables.note}): give finite bounds, "
            "or best_control(x, p, hess)."
        )
    return tables.taken(look.free)


def _greedy(tables: QuadraticTables, p: Array) -> Array:
    """argmax of ``r1 . a - a' R a / 2 + p . B a``, (n, m), without bounds."""
    n = len(p)
    B = np.broadcast_to(tables.B, (*tables.B.shape[:2], n))
    R = np.broadcast_to(tables.R, (*tables.R.shape[:2], n)).transpose(2, 0, 1)
    pull = tables.r1 + np.einsum("nd,dmn->mn", p, B)
    # Entries that cost nothing have finite bounds, which clip them.
    R = (
        R
        + 1e-9 * np.eye(R.shape[1]) * (1.0 + np.abs(R).max(axis=(1, 2)))[:, None, None]
    )
    return np.linalg.solve(R, pull.T[..., None])[..., 0]


def _hessian(field: Interpolant, look: Lookahead) -> Array:
    """Second derivatives (n, d, d) by differences of the gradient over a cell."""
    d = look.grid.dimension
    out = np.zeros((len(look.x), d, d))
    for k, axis in enumerate(look.grid.axes):
        h = float(np.min(np.diff(axis)))
        ends = []
        for side in (-1.0, 1.0):
            x = look.x.copy()
            x[:, k] += side * h
            ends.append(look.inside(x))
        apart = np.maximum(ends[1][:, k] - ends[0][:, k], h)
        out[:, k] = (field.gradient(ends[1]) - field.gradient(ends[0])) / apart[:, None]
    return 0.5 * (out + out.transpose(0, 2, 1))
