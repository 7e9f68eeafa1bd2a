"""Networks as values and policies: scaled inputs, scaled outputs, NumPy outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem

from .networks import MLP, SINE, SOFTPLUS, TANH, as_array, like
from .start import clip_controls

Array = NDArray[np.float64]
BLOCK = 4096
ACTIVATIONS = {a.name: a for a in (TANH, SINE, SOFTPLUS)}


@dataclass(frozen=True)
class Link:
    """How the network's output u becomes V.

    ``V = shift + scale u``, or ``V = scale exp(u)`` where V keeps one sign and spans
    decades (a linear output would lose the small end).
    """

    shift: float
    scale: float
    exponential: bool = False

    @classmethod
    def fitting(cls, values: Array) -> Link:
        """The link under which `values` are of order 1."""
        low, high = float(values.min()), float(values.max())
        if low * high > 0 and max(abs(low), abs(high)) > 8 * min(abs(low), abs(high)):
            size = float(np.exp(np.log(np.abs(values)).mean()))
            return cls(0.0, float(np.sign(low)) * size, True)
        spread = 0.5 * (high - low)
        return cls(0.5 * (low + high), spread if spread > 0 else max(abs(low), 1.0))

    def inverse(self, values: Array) -> Array:
        """u from V; values of the wrong sign are cut at a thousandth of the scale."""
        if self.exponential:
            return np.log(np.maximum(values / self.scale, 1e-3))
        return (values - self.shift) / self.scale


@dataclass(frozen=True, eq=False)
class ValueNetwork:
    """V(x) = link(net(z)), z = (x - centre) / half.

    Derivatives are exact: see `networks.MLP`. NumPy's float64 outside; inside the
    dtype and device of the weights.
    """

    net: MLP
    centre: Array
    half: Array
    link: Link

    def scaled(self, x: Array) -> torch.Tensor:
        """The network's input for states x (n, d)."""
        return like(self.net, (x - self.centre) / self.half)

    def value(self, x: Array) -> Array:
        """V at x (n, d), shape (n,)."""
        with torch.no_grad():
            u = np.concatenate(
                [as_array(self.net(self.scaled(part))[:, 0]) for part in _blocks(x)]
            )
        return self.linked(u)

    def gradient(self, x: Array) -> Array:
        """grad V at x (n, d), shape (n, d)."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """V (n,) and grad V (n, d) in one sweep."""
        with torch.no_grad():
            parts = [self.net.value_and_gradient(self.scaled(p)) for p in _blocks(x)]
        u = np.concatenate([as_array(part[0]) for part in parts])
        p = np.concatenate([as_array(part[1]) for part in parts]) / self.half
        values = self.linked(u)
        return values, p * self._rate(values)[:, None]

    def hessian(self, x: Array) -> Array:
        """hess V at x (n, d), shape (n, d, d)."""
        with torch.no_grad():
            parts = [self.net.jet(self.scaled(part)) for part in _blocks(x)]
        u, p, h = (
            np.concatenate([as_array(part[k]) for part in parts]) for k in range(3)
        )
        p, h = p / self.half, h / (self.half[:, None] * self.half)
        if self.link.exponential:
            h = h + p[:, :, None] * p[:, None, :]
        return h * self._rate(self.linked(u))[:, None, None]

    def asked(self, x: Array, values: Array) -> Array:
        """What the network has to say for V to be `values` (n,) at x (n, d)."""
        del x
        return self.link.inverse(values)

    def linked(self, u: Array) -> Array:
        """V from the network's output u."""
        if self.link.exponential:
            return self.link.scale * np.exp(np.clip(u, -50.0, 50.0))
        return self.link.shift + self.link.scale * u

    def _rate(self, values: Array) -> Array:
        if self.link.exponential:
            return values
        return np.full_like(values, self.link.scale)

    def arrays(self) -> dict[str, Array]:
        """Weights and scales."""
        link = self.link
        numbers = np.array([link.shift, link.scale, float(link.exponential)])
        return {
            "centre": self.centre,
            "half": self.half,
            "link": numbers,
            **network_arrays(self.net),
        }

    def copied(self) -> ValueNetwork:
        """The same value with weights of its own."""
        return ValueNetwork.from_arrays(self.arrays())

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> ValueNetwork:
        """The inverse of `arrays`."""
        shift, scale, exponential = arrays["link"]
        link = Link(float(shift), float(scale), bool(exponential))
        return cls(network_from(arrays), arrays["centre"], arrays["half"], link)


@dataclass(frozen=True, eq=False)
class PolicyNetwork:
    """a(x) = offset + spread net(z), clipped to the control set.

    `limits`, low and high (m,), are those of a policy learned without a problem.
    """

    net: MLP
    problem: ControlProblem | None
    centre: Array
    half: Array
    offset: Array
    spread: Array
    limits: tuple[Array, Array] | None = None

    def scaled(self, x: Array) -> torch.Tensor:
        """The network's input for states x (n, d)."""
        return like(self.net, (x - self.centre) / self.half)

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        with torch.no_grad():
            a = self.offset + self.spread * as_array(self.net(self.scaled(x)))
        if self.limits is not None:
            a = np.clip(a, *self.limits)
        return a if self.problem is None else clip_controls(self.problem, x, a)

    def arrays(self) -> dict[str, Array]:
        """Weights and scales."""
        names = ("centre", "half", "offset", "spread")
        scales = {name: getattr(self, name) for name in names}
        if self.limits is not None:
            scales |= {"low": self.limits[0], "high": self.limits[1]}
        return {**scales, **network_arrays(self.net)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], problem: ControlProblem | None
    ) -> PolicyNetwork:
        """The inverse of `arrays`; without problem or limits nothing is clipped."""
        names = ("centre", "half", "offset", "spread")
        limits = (arrays["low"], arrays["high"]) if "low" in arrays else None
        scales = {name: arrays[name] for name in names}
        return cls(network_from(arrays), problem, **scales, limits=limits)


def network_arrays(net: MLP) -> dict[str, Array]:
    """Weights of every layer and which activation they belong to."""
    out = {
        "activation": np.array([list(ACTIVATIONS).index(net.activation.name)], float)
    }
    for k, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
        out[f"weight{k}"] = as_array(W).copy()
        out[f"bias{k}"] = as_array(b).copy()
    return out


def network_from(arrays: Mapping[str, Array]) -> MLP:
    """The inverse of `network_arrays`."""
    n = sum(name.startswith("weight") for name in arrays)
    weights = [arrays[f"weight{k}"] for k in range(n)]
    hidden = [len(W) for W in weights[:-1]]
    activation = list(ACTIVATIONS.values())[int(arrays["activation"][0])]
    net = MLP(weights[0].shape[1], len(weights[-1]), hidden, activation)
    with torch.no_grad():
        for k in range(n):
            net.weights[k].copy_(torch.from_numpy(np.array(weights[k])))
            net.biases[k].copy_(torch.from_numpy(np.array(arrays[f"bias{k}"])))
    return net


def as_answered(net: MLP) -> MLP:
    """A copy as answers keep networks: in float64, on the CPU."""
    return network_from(network_arrays(net))


def _blocks(x: Array) -> list[Array]:
    """At most BLOCK states at a time: second derivatives need d^2 copies of a layer."""
    return [x[k : k + BLOCK] for k in range(0, max(len(x), 1), BLOCK)]
