"""The generator L^a V = f . grad V + 1/2 tr(sigma sigma' hess V), two ways.

`generator_autograd` is the article's nested differentiation and takes any smooth
module; `generator_taylor` sends first and second derivatives forward through an
MLP and is 1.5 to 2.5 times faster from two states on. They agree to round-off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .networks import MLP


def generator_autograd(
    V: Callable[[Tensor], Tensor], x: Tensor, f: Tensor, sigma: Tensor
) -> Tensor:
    """L^a V by differentiating the gradient once more, d + 1 backward passes.

    Parameters
    ----------
    V : callable, x (n, d) -> (n,) or (n, 1)
    x, f : (n, d)
    sigma : (n, d, k)

    Returns
    -------
    (n,), differentiable in the weights of V.

    Source: the listing of the article's section on policy improvement; equation (1)
    for the generator.
    """
    if not x.requires_grad:
        x = x.detach().requires_grad_(True)
    gradient = torch.autograd.grad(V(x).sum(), x, create_graph=True)[0]
    rows = [
        torch.autograd.grad(
            gradient[:, i].sum(), x, create_graph=True, materialize_grads=True
        )[0]
        for i in range(x.shape[1])
    ]
    noise = sigma @ sigma.transpose(-1, -2)
    bend = 0.5 * (noise * torch.stack(rows, dim=1)).sum((-2, -1))
    return (gradient * f).sum(-1) + bend


def generator_taylor(V: MLP, x: Tensor, f: Tensor, sigma: Tensor) -> Tensor:
    """L^a V of an MLP by a forward second-order Taylor pass.

    With ``t_k`` the derivative along column k of sigma and ``G`` standing for the
    generator of each unit, a layer maps ``t_k -> s' W t_k`` and
    ``G -> s' W G + 1/2 s'' sum_k (W t_k)^2``, from ``G = f`` and ``t_k = sigma_k``:
    k + 2 streams whatever d. No derivative of a derivative is traced.

    Parameters
    ----------
    V : MLP, first output
    x, f : (n, d)
    sigma : (n, d, k)

    Returns
    -------
    (n,), differentiable in the weights of V.
    """
    h, along, G = x, sigma.transpose(-1, -2), f
    for W, b in zip(V.weights[:-1], V.biases[:-1], strict=True):
        h, first, second = V.activation.jet(torch.addmm(b, h, W.T))
        along = along @ W.T
        G = first * (G @ W.T) + 0.5 * second * (along * along).sum(1)
        along = along * first[:, None]
    return G @ V.weights[-1][0]
