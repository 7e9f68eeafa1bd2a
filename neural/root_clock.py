"""A value of (x, t) read on the clock on which free boundaries are nearly straight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .time_state import root_clock
from .value_network import ValueNetwork

Array = NDArray[np.float64]


def on_plain_clock(y: Array, horizon: float) -> Array:
    """(x, t) at y = (x, s) (n, d + 1), t = T (1 - s^2)."""
    return np.c_[y[:, :-1], horizon * (1.0 - y[:, -1] ** 2)]


def on_root_clock(x: Array, horizon: float) -> Array:
    """(x, s) at (x, t) (n, d + 1)."""
    return np.c_[x[:, :-1], root_clock(x[:, -1], horizon)]


@dataclass(frozen=True, eq=False)
class OnRootClock:
    """``W(x, T (1 - s^2))`` at y = (x, s), s = -sqrt(1 - t/T), of a network W(x, t).

    A value model, see `value_model.ValueModel`. Paths run on the plain clock, rules
    for stopping on this one (`time_state.rooted`).
    """

    network: ValueNetwork
    horizon: float

    def value(self, x: Array) -> Array:
        """W at x = (x, s) (n, d + 1), shape (n,)."""
        return self.network.value(on_plain_clock(x, self.horizon))

    def gradient(self, x: Array) -> Array:
        """Its gradient in (x, s), (n, d + 1): ``W_s = -2 T s W_t``."""
        slope = self.network.gradient(on_plain_clock(x, self.horizon))
        slope[:, -1] *= self._pace(x)
        return slope

    def hessian(self, x: Array) -> Array:
        """Its Hessian in (x, s), (n, d + 1, d + 1)."""
        timed, pace = on_plain_clock(x, self.horizon), self._pace(x)
        hess = self.network.hessian(timed)
        hess[:, -1] *= pace[:, None]
        hess[:, :, -1] *= pace[:, None]
        hess[:, -1, -1] -= 2.0 * self.horizon * self.network.gradient(timed)[:, -1]
        return hess

    def _pace(self, x: Array) -> Array:
        """dt/ds."""
        return -2.0 * self.horizon * x[:, -1]

    def arrays(self) -> dict[str, Array]:
        """Weights, scales and the horizon."""
        return {**self.network.arrays(), "horizon": np.array([self.horizon])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> OnRootClock:
        """The inverse of `arrays`."""
        rest = {k: v for k, v in arrays.items() if k != "horizon"}
        return cls(ValueNetwork.from_arrays(rest), float(arrays["horizon"][0]))
