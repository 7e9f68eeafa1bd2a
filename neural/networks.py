"""Multilayer perceptrons whose derivatives are written out, not traced.

For a layer ``h = s(W g + b)`` first and second derivatives go forward with the
value: ``dh = s'(z) W dg`` and ``ddh = s'(z) W ddg + s''(z) (W dg)(W dg)'``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hjbpde.errors import ProblemError


@dataclass(frozen=True)
class Activation:
    """s with two derivatives.

    `value` maps z to s alone, `jet` to (s, s', s''), sharing work between them.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    jet: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def _tanh(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.tanh(z)
    first = 1.0 - s * s
    return s, first, -2.0 * s * first


def _sine(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = torch.sin(z)
    return s, torch.cos(z), -s


def _softplus(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    first = torch.sigmoid(z)
    return torch.nn.functional.softplus(z), first, first * (1.0 - first)


TANH = Activation("tanh", torch.tanh, _tanh)
SINE = Activation("sine", torch.sin, _sine)
SOFTPLUS = Activation("softplus", torch.nn.functional.softplus, _softplus)


def check_tensors(owner: str, precision: Any, device: Any) -> None:
    """Refuse a precision or a device that nothing can be trained in.

    Raises
    ------
    ProblemError
        Neither float32 nor float64; a device that torch does not know or has not.
    """
    if precision not in (torch.float32, torch.float64):
        raise ProblemError(
            f"{owner}: precision = {precision!r}; give torch.float64 or torch.float32."
        )
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, TypeError, AssertionError) as cause:
        raise ProblemError(
            f"{owner}: nothing can be put on device {device!r} ({cause}). Give 'cpu', "
            "or 'cuda' where torch.cuda.is_available()."
        ) from cause


def refuse_training_mode(owner: str, module: nn.Module) -> None:
    """Refuse a network to be judged that answers at random or by its batch.

    Raises
    ------
    ProblemError
        Dropout or batch normalisation in training mode; the layer is named.
    """
    moody = nn.modules.dropout._DropoutNd | nn.modules.batchnorm._BatchNorm
    for name, layer in module.named_modules():
        if isinstance(layer, moody) and layer.training:
            raise ProblemError(
                f"{owner}: layer {name!r} ({type(layer).__name__}) is in training mode "
                "and answers at random, or by the batch it is asked in. Call "
                "module.eval() first."
            )


def gradient_size(weights: Iterable[Tensor]) -> float:
    """The length of the loss gradient that the last step left behind; 0 before one."""
    grads = [w.grad for w in weights if w.grad is not None]
    if not grads:
        return 0.0
    return float(torch.stack([(g**2).sum() for g in grads]).sum().sqrt())


def layer_share(weights: Iterable[Tensor]) -> float:
    """The least gradient of a layer's matrix over the largest; 1 before a step.

    It falls like a power of the depth where a deep network passes nothing on.
    """
    grads = [w.grad for w in weights if w.grad is not None and w.ndim == 2]
    sizes = [float(g.norm()) for g in grads]
    if not sizes or not max(sizes) > 0:
        return 1.0
    return min(sizes) / max(sizes)


def like(net: nn.Module, values: NDArray[np.float64]) -> Tensor:
    """`values` as a tensor of the dtype and on the device of a network's weights."""
    weight = next(net.parameters())
    # A copy where memory is not the array's own: broadcast, or not to be written to.
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return tensor.to(dtype=weight.dtype, device=weight.device)


def as_array(values: Tensor) -> NDArray[np.float64]:
    """A tensor's numbers in float64."""
    return values.detach().cpu().double().numpy()


class MLP(nn.Module):
    """x (n, inputs) -> (n, outputs), smooth, with a linear last layer.

    Parameters
    ----------
    inputs, outputs : int
    hidden : sequence of int
        Widths of the hidden layers.
    activation : Activation
        TANH, SINE or SOFTPLUS: twice differentiable, or L^a V would not exist.
    generator : torch.Generator, optional
        Source of the initial weights (normal, variance 1/inputs of each layer).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        hidden: Sequence[int] = (64, 64),
        activation: Activation = TANH,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.activation = activation
        widths = [inputs, *hidden, outputs]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for a, b in pairwise(widths):
            scale = a**-0.5
            W = torch.randn(b, a, generator=generator, dtype=torch.float64) * scale
            bias = torch.rand(b, generator=generator, dtype=torch.float64) * 2 - 1
            last = len(self.weights) == len(widths) - 2
            self.weights.append(nn.Parameter(W))
            self.biases.append(nn.Parameter(bias * 0.0 if last else bias))

    def forward(self, x: Tensor) -> Tensor:
        """The network's outputs, shape (n, outputs)."""
        h = x
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation.value(torch.addmm(b, h, W.T))
        return torch.addmm(self.biases[-1], h, self.weights[-1].T)

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """First output (n,) and its gradient (n, inputs): one sweep each way."""
        h, slopes = x, []
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h, first, _ = self.activation.jet(torch.addmm(b, h, W.T))
            slopes.append(first)
        out = h @ self.weights[-1][0] + self.biases[-1][0]
        back = self.weights[-1][0].expand(len(x), -1)
        for W, first in zip(reversed(self.weights[:-1]), reversed(slopes), strict=True):
            back = (back * first) @ W
        return out, back

    def jet(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First output (n,), gradient (n, d), Hessian (n, d, d), going forward."""
        n, d = x.shape
        h = x
        first = torch.eye(d, dtype=x.dtype, device=x.device).expand(n, d, d)
        second = x.new_zeros(n, d * d, d)
        for W, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h, s1, s2 = self.activation.jet(torch.addmm(b, h, W.T))
            along = first @ W.T
            pairs = (along[:, :, None] * along[:, None, :]).reshape(n, d * d, -1)
            second = (second @ W.T) * s1[:, None] + s2[:, None] * pairs
            first = along * s1[:, None]
        W, b = self.weights[-1][0], self.biases[-1][0]
        return h @ W + b, first @ W, (second @ W).reshape(n, d, d)
