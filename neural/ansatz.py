"""V(x) = lift(x) + bump(x) net(z): the boundary data hold by construction.

The bump is the product of the distances to the faces whose value is given, and of a
function that is 0 on the surface of an exit, so that V = lift there whatever the
weights. On other faces nothing is forced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .features import FeatureValue
from .networks import MLP
from .value_network import network_arrays, network_from

Array = NDArray[np.float64]
BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Bump:
    """B(z) = size R prod_i (1 + z_i)^low_i (1 - z_i)^high_i on the box [-1, 1]^d.

    Parameters
    ----------
    held : (d, 2)
        1 where the low or high face of an axis has a given value, else 0.
    size : float
        In the units of V, so that the network's output is of order 1.
    region : FeatureValue, optional
        R, which is 0 on the surface of an exit; default 1.
    """

    held: Array
    size: float = 1.0
    region: FeatureValue | None = None

    def jet(self, z: Array) -> tuple[Array, Array, Array]:
        """B (n,), its gradient (n, d) and Hessian (n, d, d), all in z."""
        B, dB, ddB = self._faces(z)
        if self.region is None:
            return B, dB, ddB
        half = self.region.basis.half
        x = self.region.basis.centre + half * z
        R, dR = self.region.value(x), self.region.gradient(x) * half
        ddR = self.region.hessian(x) * half[:, None] * half
        cross = dB[:, :, None] * dR[:, None, :]
        bend = B[:, None, None] * ddR + cross + cross.swapaxes(1, 2)
        bend = bend + R[:, None, None] * ddB
        return B * R, B[:, None] * dR + R[:, None] * dB, bend

    def _faces(self, z: Array) -> tuple[Array, Array, Array]:
        """The same without R."""
        n, d = z.shape
        low, high = self.held[:, 0], self.held[:, 1]
        up, down = np.where(low > 0, 1 + z, 1.0), np.where(high > 0, 1 - z, 1.0)
        factor, slope = up * down, low * down - high * up
        bend = np.broadcast_to(-2.0 * low * high, z.shape)
        gradient, hessian = np.empty((n, d)), np.empty((n, d, d))
        for i in range(d):
            gradient[:, i] = _product(factor, {i: slope[:, i]})
            hessian[:, i, i] = _product(factor, {i: bend[:, i]})
            for j in range(i):
                mixed = _product(factor, {i: slope[:, i], j: slope[:, j]})
                hessian[:, i, j] = hessian[:, j, i] = mixed
        return self.size * factor.prod(1), self.size * gradient, self.size * hessian


def _product(factor: Array, instead: Mapping[int, Array]) -> Array:
    """Product over axes with some of the factors replaced."""
    out = np.ones(len(factor))
    for i in range(factor.shape[1]):
        out = out * instead.get(i, factor[:, i])
    return out


@dataclass(frozen=True, eq=False)
class Frame:
    """Lift and bump at states x (n, d): what no weight of the network changes."""

    lift: FeatureValue
    bump: Bump
    x: Array

    @cached_property
    def z(self) -> Array:
        """The states on the box [-1, 1]^d."""
        return (self.x - self.lift.basis.centre) / self.lift.basis.half

    @cached_property
    def jet(self) -> tuple[Array, Array, Array]:
        """The bump with its gradient and Hessian in z."""
        return self.bump.jet(self.z)

    @cached_property
    def value(self) -> Array:
        """The lift, (n,)."""
        return self.lift.value(self.x)

    @cached_property
    def gradient(self) -> Array:
        """Its gradient, (n, d)."""
        return self.lift.gradient(self.x)

    @cached_property
    def hessian(self) -> Array:
        """Its Hessian, (n, d, d)."""
        return self.lift.hessian(self.x)


@dataclass(frozen=True, eq=False)
class AnsatzNetwork:
    """A value model, see `value_model.ValueModel`; float64 throughout.

    Parameters
    ----------
    net : MLP, one output
    lift : FeatureValue
        Meets the data of the faces in `bump`; else the quadratic the network
        corrects.
    bump : Bump
    frames : tuple of Frame
        At sets of states that a run asks about at every step, see `beside`.
    """

    net: MLP
    lift: FeatureValue
    bump: Bump
    frames: tuple[Frame, ...] = ()

    def beside(self, *sets: Array) -> AnsatzNetwork:
        """The same network, lift and bump found once at each of the sets (n, d).

        A set is known by its array, which nobody writes into.
        """
        return replace(self, frames=tuple(Frame(self.lift, self.bump, x) for x in sets))

    def frame(self, x: Array) -> Frame:
        """Lift and bump at x (n, d)."""
        for own in self.frames:
            if own.x is x:
                return own
        return Frame(self.lift, self.bump, x)

    @property
    def centre(self) -> Array:
        """Centre of the box, (d,)."""
        return self.lift.basis.centre

    @property
    def half(self) -> Array:
        """Half its width, (d,)."""
        return self.lift.basis.half

    def value(self, x: Array) -> Array:
        """V at x (n, d), shape (n,)."""
        at = self.frame(x)
        with torch.no_grad():
            u = self.net(_tensor(at.z))[:, 0].numpy()
        return at.value + at.jet[0] * u

    def gradient(self, x: Array) -> Array:
        """grad V at x (n, d), shape (n, d)."""
        at = self.frame(x)
        B, dB, _ = at.jet
        with torch.no_grad():
            u, p = (v.numpy() for v in self.net.value_and_gradient(_tensor(at.z)))
        mine = B[:, None] * p + u[:, None] * dB
        return at.gradient + mine / self.half

    def hessian(self, x: Array) -> Array:
        """hess V at x (n, d), shape (n, d, d)."""
        if len(x) <= BLOCK:
            return self._hessian(x)
        return np.concatenate(
            [self._hessian(x[k : k + BLOCK]) for k in range(0, len(x), BLOCK)]
        )

    def _hessian(self, x: Array) -> Array:
        at = self.frame(x)
        B, dB, ddB = at.jet
        with torch.no_grad():
            u, p, h = (v.numpy() for v in self.net.jet(_tensor(at.z)))
        cross = dB[:, :, None] * p[:, None, :]
        mine = B[:, None, None] * h + cross + cross.swapaxes(1, 2)
        mine = mine + u[:, None, None] * ddB
        return at.hessian + mine / (self.half[:, None] * self.half)

    def arrays(self) -> dict[str, Array]:
        """Weights, lift and faces."""
        lift = {f"lift.{name}": v for name, v in self.lift.arrays().items()}
        bump = {"held": self.bump.held, "size": np.array([self.bump.size])}
        if self.bump.region is not None:
            region = self.bump.region.arrays()
            bump |= {f"region.{name}": v for name, v in region.items()}
        return {**bump, **lift, **network_arrays(self.net)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> AnsatzNetwork:
        """The inverse of `arrays`."""
        lift, region = (
            {k[len(part) :]: v for k, v in arrays.items() if k.startswith(part)}
            for part in ("lift.", "region.")
        )
        rest = {k: v for k, v in arrays.items() if "." not in k}
        bump = Bump(
            arrays["held"],
            float(arrays["size"][0]),
            FeatureValue.from_arrays(region) if region else None,
        )
        return cls(network_from(rest), FeatureValue.from_arrays(lift), bump)

    def copy(self) -> AnsatzNetwork:
        """The same value with weights of its own."""
        return replace(self, net=network_from(network_arrays(self.net)))


@dataclass(frozen=True, eq=False)
class NetworkOperator:
    """``c0 N + c1 . grad N + c2/2 tr(S S' hess N)`` of the network N at z (n, d).

    Parameters
    ----------
    z, c1 : (n, d)
    c0, c2 : (n,)
    S : (n, d, k)
    """

    z: Array
    c0: Array
    c1: Array
    c2: Array
    S: Array

    def taylor(self, net: MLP) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The operator's values (n,) by forward streams, and each layer's streams.

        A layer maps ``t -> s' W t`` for every column t of S and
        ``G -> s' W G + c2/2 s'' sum (W t)^2``, from ``G = c1``.
        """
        h, G = _tensor(self.z), _tensor(self.c1)
        along = _tensor(self.S.swapaxes(1, 2))
        c0, c2 = _tensor(self.c0), _tensor(self.c2)
        layers = []
        for W, b in zip(net.weights[:-1], net.biases[:-1], strict=True):
            streams = torch.addmm(b, h, W.T), along @ W.T, G @ W.T
            layers.append((h, along, G, *streams))
            h, first, second = net.activation.jet(streams[0])
            bend = 0.5 * c2[:, None] * second * (streams[1] * streams[1]).sum(1)
            G, along = first * streams[2] + bend, first[:, None] * streams[1]
        layers.append((h, along, G))
        W, b = net.weights[-1][0], net.biases[-1][0]
        return c0 * (h @ W + b) + G @ W, layers

    def jacobian(self, net: MLP) -> tuple[Array, Array]:
        """Derivatives (n, P) of the values by the weights, and the values (n,).

        One backward sweep gives every sample's sensitivity to the streams; a
        weight's derivative is that times what entered the layer.
        """
        values, layers = self.taylor(net)
        inner = [s for layer in layers[:-1] for s in layer[3:]]
        out = torch.autograd.grad(
            values.sum(), inner, allow_unused=True, materialize_grads=True
        )
        blocks = []
        for k, (h, along, G, *_) in enumerate(layers[:-1]):
            dh, da, dG = out[3 * k : 3 * k + 3]
            weight = dh[:, :, None] * h[:, None, :] + dG[:, :, None] * G[:, None, :]
            weight = weight + da.transpose(1, 2) @ along
            blocks += [weight.reshape(len(h), -1), dh]
        h, _, G = layers[-1]
        c0 = _tensor(self.c0)[:, None]
        blocks += [c0 * h + G, c0]
        return torch.cat(blocks, 1).detach().numpy(), values.detach().numpy()


def weights_of(net: MLP) -> Array:
    """All weights and biases in the order of `NetworkOperator.jacobian`, (P,)."""
    pairs = zip(net.weights, net.biases, strict=True)
    parts = [v.detach().reshape(-1) for pair in pairs for v in pair]
    return torch.cat(parts).numpy().copy()


def set_weights(net: MLP, flat: Array) -> None:
    """The inverse of `weights_of`, in place."""
    k = 0
    with torch.no_grad():
        for pair in zip(net.weights, net.biases, strict=True):
            for v in pair:
                v.copy_(_tensor(flat[k : k + v.numel()]).reshape(v.shape))
                k += v.numel()


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
