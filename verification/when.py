"""At which time and in which mode something holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class When:
    """A calendar time and a mode, each None where nothing depends on it."""

    time: float | None = None
    mode: int | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """Those of time and mode that there are."""
        both = self.time, self.mode
        return tuple(float(n) for n in both if n is not None)

    def places(self, x: Array) -> Array:
        """Points x (..., d) with the numbers as last columns."""
        shape = (*x.shape[:-1], len(self.numbers))
        return np.concatenate([x, np.broadcast_to(self.numbers, shape)], axis=-1)

    def read(self, place: Array) -> tuple[Array, When]:
        """The point (d,) of a place, and its own time and mode, of the same kind."""
        n = len(self.numbers)
        x, rest = place[: len(place) - n], list(place[len(place) - n :])
        time = None if self.time is None else float(rest.pop(0))
        return x, When(time, None if self.mode is None else int(rest[0]))

    def __str__(self) -> str:
        time = "" if self.time is None else f"t = {self.time:.4g}"
        mode = "" if self.mode is None else f"mode {self.mode}"
        return ", ".join(text for text in (time, mode) if text)
