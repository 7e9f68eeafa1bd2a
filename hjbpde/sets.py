"""Sets of states and controls: boxes and finite sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import namespace
from .errors import ProblemError
from .real_numbers import real_array

Bound = Any
"""A number, a sequence of d numbers, or a function of x giving ``(..., m)``."""


def _vector(bound: Bound, what: str) -> NDArray[np.float64]:
    array = np.atleast_1d(real_array(bound, f"Box: {what}"))
    if array.ndim != 1:
        raise ProblemError(
            f"Box: {what} must be a number or a flat sequence, one entry an axis; "
            f"got shape {array.shape}."
        )
    if np.isnan(array).any():
        raise ProblemError(f"Box: {what} holds NaN: {array.tolist()}.")
    array = array.copy()
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Box:
    """The product of intervals ``low_i <= y_i <= high_i``.

    Parameters
    ----------
    low, high : float, sequence of float, or callable
        Bounds. As a set of controls they may be functions ``low(x) -> (..., m)``
        and may be infinite where the maximiser is closed-form.
    periodic : sequence of bool, optional
        Axes (of a domain) whose two ends are one point.

    Raises
    ------
    ProblemError
        Reversed, empty or NaN bounds, naming the axis.
    """

    low: Bound
    high: Bound
    periodic: Sequence[bool] | bool | None = None

    def __post_init__(self) -> None:
        if callable(self.low) or callable(self.high):
            if self.periodic is not None:
                raise ProblemError("Box: a periodic box needs constant bounds.")
            return
        low, high = _vector(self.low, "low"), _vector(self.high, "high")
        try:
            low, high = np.broadcast_arrays(low, high)
        except ValueError:
            raise ProblemError(
                f"Box: low has {low.size} entries and high has {high.size}; "
                "give one of each an axis."
            ) from None
        bad = np.flatnonzero(~(low < high))
        if bad.size:
            axis = int(bad[0])
            raise ProblemError(
                f"Box: axis {axis} is reversed or empty: low {low[axis]:g} is not "
                f"below high {high[axis]:g}. Swap or widen the bounds."
            )
        periodic = np.zeros(low.size, bool)
        if self.periodic is not None:
            try:
                periodic = np.broadcast_to(np.asarray(self.periodic, bool), low.shape)
            except ValueError:
                raise ProblemError(
                    f"Box: periodic has {np.size(self.periodic)} entries for "
                    f"{low.size} axes."
                ) from None
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "periodic", tuple(bool(p) for p in periodic))

    @property
    def varies(self) -> bool:
        """Whether a bound is a function of the state."""
        return callable(self.low) or callable(self.high)

    @property
    def dimension(self) -> int:
        """Number of axes; unknown (ProblemError) when both bounds are functions."""
        for bound in (self.low, self.high):
            if not callable(bound):
                return int(np.size(bound))
        raise ProblemError(
            "Box: both bounds are functions, so the number of controls is unknown "
            "before the problem is probed."
        )

    @property
    def periodic_axes(self) -> tuple[bool, ...]:
        """Whether each axis is periodic; empty where the bounds are functions."""
        return self.periodic if isinstance(self.periodic, tuple) else ()

    @property
    def width(self) -> NDArray[np.float64]:
        """``high - low``, shape (d,)."""
        return np.asarray(self.high) - np.asarray(self.low)

    @property
    def centre(self) -> NDArray[np.float64]:
        """Midpoint, shape (d,)."""
        return 0.5 * (np.asarray(self.low) + np.asarray(self.high))

    def bounds_at(self, x: Any) -> tuple[Any, Any]:
        """Low and high at states x (..., d), each ``(..., m)`` or broadcastable."""
        xp = namespace(x)

        def evaluate(bound: Bound) -> Any:
            if callable(bound):
                return bound(x)
            return xp.asarray(np.array(bound), dtype=x.dtype)

        return evaluate(self.low), evaluate(self.high)

    def contains(self, y: NDArray[np.float64], slack: float = 0.0) -> NDArray[np.bool_]:
        """Whether points y (..., d) lie inside, periodic axes always."""
        inside = (y >= np.asarray(self.low) - slack) & (
            y <= np.asarray(self.high) + slack
        )
        if self.periodic is not None:
            inside = inside | np.asarray(self.periodic)
        return np.asarray(inside.all(axis=-1))

    def wrap(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points with periodic coordinates brought into ``[low, high)``."""
        if not any(self.periodic_axes):
            return y
        low, width = np.asarray(self.low), self.width
        return np.where(np.asarray(self.periodic), low + (y - low) % width, y)

    def clip(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Nearest points of a constant box."""
        return np.clip(y, np.asarray(self.low), np.asarray(self.high))

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """n points, uniform in a finite box; infinite sides are cut at +-1."""
        low = np.where(np.isfinite(self.low), self.low, -1.0)
        high = np.where(np.isfinite(self.high), self.high, np.maximum(low, 0) + 1.0)
        low = np.minimum(low, high - 1e-12)
        return low + (high - low) * rng.random((n, low.size))

    def inner(self, share: float, axes: Sequence[bool] | None = None) -> Box:
        """The middle `share` of the box along `axes` (all by default)."""
        keep = np.ones(self.dimension, bool) if axes is None else np.asarray(axes)
        cut = np.where(keep, 0.5 * (1 - share), 0.0) * self.width
        return Box(np.asarray(self.low) + cut, np.asarray(self.high) - cut)

    def __repr__(self) -> str:
        if self.varies:
            return "Box(functions of x)"
        low, high = np.asarray(self.low).tolist(), np.asarray(self.high).tolist()
        tail = f", periodic={self.periodic}" if any(self.periodic_axes) else ""
        return f"Box({low}, {high}{tail})"


@dataclass(frozen=True, eq=False)
class Finite:
    """Finitely many controls.

    Parameters
    ----------
    points : array_like, shape (n, m) or (n,)
        The admissible controls, one a row.
    """

    points: Any

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=float)
        if points.ndim == 1:
            points = points[:, None]
        if points.ndim != 2 or points.shape[0] == 0:
            raise ProblemError(
                f"Finite: points must be (n, m) with n >= 1; got {points.shape}."
            )
        if not np.isfinite(points).all():
            raise ProblemError("Finite: every control must be finite.")
        points = points.copy()
        points.setflags(write=False)
        object.__setattr__(self, "points", points)

    @property
    def dimension(self) -> int:
        """Number of entries of one control."""
        return self.points.shape[1]

    def clip(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """The nearest point of the set to each y (..., m)."""
        distance = ((y[..., None, :] - self.points) ** 2).sum(-1)
        return self.points[distance.argmin(-1)]

    def sample(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        """n points of the set, drawn with replacement."""
        return self.points[rng.integers(len(self.points), size=n)]


ControlSet = Box | Finite
StateFunction = Callable[[Any], Any]
