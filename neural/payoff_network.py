"""A network that is told the payoffs of stopping: what it learns is the rest.

    W(x) = mean_k psi_k(x) + link(net(z, p)),   p_k = (psi_k(x) - middle_k) / unit_k.

The value of going on is close to psi wherever stopping is at issue, and has the kinks
of psi not far from psi's: the network neither learns psi again nor smooths its kinks.

Source: Becker, Cheridito and Jentzen, "Pricing and hedging American-style options with
deep learning", J. Risk Financial Manag. 13 (2020) 158, where the payoff is one of the
network's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import ProblemError

from .networks import MLP, as_array, like
from .stopping_payoff import Payoffs
from .value_network import Link, ValueNetwork, network_from

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PayoffNetwork(ValueNetwork):
    """A value model, see `value_model.ValueModel`, for a problem with rights to stop.

    Parameters
    ----------
    net : MLP with one input a state and one a right
    middle, unit : (k,)
        Where psi of every right is centred, and its unit.
    payoffs : Payoffs or None
        None after loading without the problem; then nothing can be asked.
    """

    middle: Array
    unit: Array
    payoffs: Payoffs | None = None

    @classmethod
    def around(cls, net: MLP, payoffs: Payoffs, x: Array) -> PayoffNetwork:
        """Scaled to the box and to psi at states x (n, d); its link still to be set."""
        psi = payoffs.all_at(x)
        box, spread = payoffs.box, psi.std(0)
        unit = np.where(spread > 0, spread, np.maximum(np.abs(psi).max(0), 1.0))
        size = Link(0.0, 1.0)
        return cls(net, box.centre, 0.5 * box.width, size, psi.mean(0), unit, payoffs)

    @property
    def rights(self) -> Payoffs:
        """The payoffs.

        Raises
        ------
        ProblemError
            Loaded without the problem.
        """
        if self.payoffs is None:
            raise ProblemError(
                "this value reads the payoffs of stopping, which the problem knows: "
                "neural.load(path, problem=...)."
            )
        return self.payoffs

    def scaled(self, x: Array) -> torch.Tensor:
        """The network's input (z, p) for states x (n, d)."""
        p = (self.rights.all_at(x) - self.middle) / self.unit
        return like(self.net, np.hstack([(x - self.centre) / self.half, p]))

    def asked(self, x: Array, values: Array) -> Array:
        """What the network has to say for V to be `values` (n,) at x (n, d)."""
        return self.link.inverse(values - self.rights.all_at(x).mean(1))

    def value(self, x: Array) -> Array:
        """W at x (n, d), shape (n,)."""
        return super().value(x) + self.rights.all_at(x).mean(1)

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """W (n,) and grad W (n, d)."""
        psi, slopes = self.rights.all_at(x), self.rights.slopes(x)
        p = (psi - self.middle) / self.unit
        z = like(self.net, np.hstack([(x - self.centre) / self.half, p]))
        with torch.no_grad():
            u, by = (as_array(part) for part in self.net.value_and_gradient(z))
        d = x.shape[1]
        mine = by[:, :d] / self.half + self._through(by[:, d:], slopes)
        values = self.linked(u) + psi.mean(1)
        return values, self.link.scale * mine + slopes.mean(1)

    def hessian(self, x: Array) -> Array:
        """hess W at x (n, d), shape (n, d, d)."""
        slopes, d = self.rights.slopes(x), x.shape[1]
        with torch.no_grad():
            _, by, h = (as_array(part) for part in self.net.jet(self.scaled(x)))
        # d(z, p)/dx, (n, d + k, d)
        inputs = np.concatenate(
            [
                np.broadcast_to(np.diag(1.0 / self.half), (len(x), d, d)),
                slopes / self.unit[:, None],
            ],
            1,
        )
        out = self.link.scale * np.einsum("nai,nab,nbj->nij", inputs, h, inputs)
        share = self.link.scale * by[:, d:] / self.unit + 1.0 / len(self.unit)
        for k in range(len(self.unit)):
            here = np.full(len(x), k)
            out += share[:, k, None, None] * self.rights.derivatives(x, here)[1]
        return out

    def _through(self, by: Array, slopes: Array) -> Array:
        """What slopes by p (n, k) are as slopes by x, (n, d)."""
        return np.einsum("nk,nkd->nd", by / self.unit, slopes)

    def copied(self) -> PayoffNetwork:
        """The same value with weights of its own."""
        return PayoffNetwork.from_arrays(self.arrays(), self.payoffs)

    def arrays(self) -> dict[str, Array]:
        """Weights and scales."""
        return {**super().arrays(), "middle": self.middle, "unit": self.unit}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], payoffs: Payoffs | None = None
    ) -> PayoffNetwork:
        """The inverse of `arrays`."""
        shift, scale, exponential = arrays["link"]
        names = ("centre", "half")
        centre, half = (arrays[name] for name in names)
        link = Link(float(shift), float(scale), bool(exponential))
        net, psi = network_from(arrays), (arrays["middle"], arrays["unit"])
        return cls(net, centre, half, link, *psi, payoffs)
