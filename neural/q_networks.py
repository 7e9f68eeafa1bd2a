"""The little q-function with networks: fitted sweeps over one set of transitions.

One network gives, at a state, the maximum m(x), the maximiser mu(x) and a triangular
L(x) of the Hamiltonian

    h(x, a) = r + (L^a - rho) V = m(x) - 1/2 |L(x)' (a - mu(x))|^2,

so that mu is the actor and ``q = h - m <= 0`` by construction; a second one gives V.
Exact where the drift is affine and the payoff quadratic in a (and the noise free of
it); elsewhere the best concave quadratic at every state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hjbpde.errors import ProblemError
from hjbpde.progress import bar_over, last_number

from .checkpoint import Checkpoint, NetworkRun
from .networks import MLP, as_array, gradient_size, layer_share, like
from .options import check_count, check_number, check_widths
from .quadratic_q import Scales, monomials, with_one
from .transitions import Transitions
from .value_network import as_answered

Array = NDArray[np.float64]


FLOOR = 0.25
"""Least noise ascribed to a row, over the mean."""


@dataclass(frozen=True)
class QNetworks:
    """Sizes and schedule of the networks.

    Parameters
    ----------
    hidden : sequence of int
        Widths of every network's hidden layers.
    sweeps : int
        Rounds over the data: little-q sweeps, or epochs of the article's form.
    steps : int
        Adam steps of each network in one sweep.
    batch : int
        Transitions in one step.
    learning_rate : float
        At the start; falls fiftyfold over the run.
    weight_decay : float
        Of AdamW, per unit of learning rate.
    """

    hidden: Sequence[int] = (32, 32)
    sweeps: int = 60
    steps: int = 100
    batch: int = 1024
    learning_rate: float = 5e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_widths("QNetworks", self.hidden)
        for name in ("sweeps", "steps", "batch"):
            check_count("QNetworks", name, getattr(self, name))
        check_number("QNetworks", "learning_rate", self.learning_rate)
        check_number("QNetworks", "weight_decay", self.weight_decay, equal=True)

    def rate(self, sweep: int) -> float:
        """The learning rate of one sweep."""
        return self.learning_rate * 50.0 ** (-sweep / max(self.sweeps - 1, 1))


@dataclass(frozen=True, eq=False)
class Batch:
    """Transitions as scaled tensors; rates in units of their own spread.

    States and controls are what networks read, in their dtype. Rates are float64, as
    targets are until they are fitted: ``(e^(-rho dt) V' - V) / dt`` in float32 would
    round e^(-rho dt), an error of 6e-8 / dt in rho.
    """

    now: Tensor
    then: Tensor
    later: Tensor | None
    control: Tensor
    rate: Tensor
    unit: float
    dt: float

    @classmethod
    def of(
        cls, t: Transitions, order: int, sign: float, scales: Scales, **kind: Any
    ) -> Batch:
        """Scaled copies of the rows, of a dtype and on a device.

        ProblemError where the squares of rates overflow.
        """
        rate = sign * t.rates(order)
        with np.errstate(over="ignore"):
            unit = float(np.std(rate)) or 1.0
        if not np.isfinite(unit):
            raise ProblemError(
                f"QLearning: payoffs reach {np.abs(rate).max():.1e} per unit of time, "
                "whose square is no float64 number. State them in a larger unit."
            )
        inputs = [
            torch.from_numpy(rows).to(**kind)
            for rows in (
                scales.state(t.states),
                scales.state(t.next_states),
                scales.control(t.controls),
            )
        ]
        now, then, control = inputs
        later = None
        if order == 2:
            later = torch.from_numpy(scales.state(t.later_states)).to(now)
        rates = torch.from_numpy(rate / unit).to(now.device)
        return cls(now, then, later, control, rates, unit, t.dt)


class Hamiltonian(torch.nn.Module):
    """h(z, b) = m(z) - 1/2 |L(z)' (b - mu(z))|^2."""

    def __init__(
        self, d: int, m: int, hidden: Sequence[int], generator: torch.Generator
    ):
        super().__init__()
        self.m = m
        self.net = MLP(d, 1 + m + m * (m + 1) // 2, hidden, generator=generator)
        with torch.no_grad():
            self.net.weights[-1].mul_(0.1)

    def parts(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """m (n,), mu (n, m) and L (n, m, m)."""
        out, m = self.net(z), self.m
        i, j = torch.tril_indices(m, m)
        L = out.new_zeros(len(z), m, m)
        L[:, i, j] = out[:, 1 + m :]
        diagonal = torch.nn.functional.softplus(torch.diagonal(L, dim1=1, dim2=2))
        L = torch.tril(L, -1) + torch.diag_embed(diagonal + 1e-3)
        return out[:, 0], out[:, 1 : 1 + m], L

    def forward(self, z: Tensor, b: Tensor) -> Tensor:
        """h (n,)."""
        top, best, L = self.parts(z)
        gap = torch.einsum("nij,ni->nj", L, b - best)
        return top - 0.5 * (gap**2).sum(-1)


@dataclass(frozen=True, eq=False)
class NetworkAnswer:
    """V = unit * value(z) and b = mu(z), networks in float64 on the CPU."""

    value: MLP
    actor: MLP
    unit: float
    changes: tuple[float, ...]
    gradients: tuple[float, float]
    layer_share: float


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a training loop is given.

    Parameters
    ----------
    data : Batch
    options : QNetworks
    rho : float
    box : pair of (m,) tensors
        Bounds of b.
    generator : torch.Generator
    file : Checkpoint
        Written after every sweep.
    progress : bool
    """

    data: Batch
    options: QNetworks
    rho: float
    box: tuple[Tensor, Tensor]
    generator: torch.Generator
    file: Checkpoint
    progress: bool


def train_little_q(given: Fitting) -> NetworkAnswer:
    """Sweeps of: fit h to ``r + D V``; then ``V <- V + tau max_a h``.

    D is the first- or second-order difference of e^(-rho t) V along the transition.
    The mean of max_a h moves the constant of V at once by ``mean / rho`` (it would
    contract by ``1 - rho tau`` a sweep only).
    """
    data, options, generator = given.data, given.options, given.generator
    hamiltonian, value = _networks(data, options, generator)
    nets = {"hamiltonian": hamiltonian, "value": value}
    fits = {name: _adam(net, options) for name, net in nets.items()}
    tau, changes, norms, n = _relaxation(data), [], [], len(data.rate)
    logs = {"changes": changes, "norms": norms}
    run = NetworkRun(given.file, nets, fits, generator, logs=logs)
    done, kept = run.resume()
    weights = like(value, kept.get("weights", np.ones(n)))
    sweeps, inputs = range(done, options.sweeps), (data.now, data.control)
    for sweep, _ in bar_over(
        sweeps, sweeps, given.progress, "sweep", lambda: last_number("spread", changes)
    ):
        for fit in fits.values():
            fit.param_groups[0]["lr"] = options.rate(sweep)
        with torch.no_grad():
            target = data.rate + _difference(value, data, given.rho)
        fit_h = mean_square(hamiltonian, inputs, target.to(data.now), weights)
        norms.append(descend(fit_h, fits["hamiltonian"], options, n, generator))
        with torch.no_grad():
            weights = inverse_noise(data, target - hamiltonian(*inputs))
            best = torch.clamp(hamiltonian.parts(data.now)[1], *given.box)
            top = hamiltonian(data.now, best)
            value.biases[-1].add_(top.mean() / given.rho)
            wanted = value(data.now)[:, 0] + tau * (top - top.mean())
        fit_v = mean_square(value, (data.now,), wanted, torch.ones_like(wanted))
        descend(fit_v, fits["value"], options, n, generator)
        changes.append(float(top.std() / data.rate.std()))
        run.keep(sweep + 1, weights=as_array(weights))
    actor = _actor_of(as_answered(hamiltonian.net), hamiltonian.m)
    # NumPy's extremes keep NaN, Python's lose it.
    spread = float(np.min(norms)), float(np.max(norms))
    share = layer_share(hamiltonian.parameters())
    nets = as_answered(value), actor
    return NetworkAnswer(*nets, data.unit, tuple(changes), spread, share)


def _networks(
    data: Batch, options: QNetworks, generator: torch.Generator
) -> tuple[Hamiltonian, MLP]:
    """The Hamiltonian, and V starting at 0."""
    d, m = data.now.shape[1], data.control.shape[1]
    hamiltonian = Hamiltonian(d, m, options.hidden, generator)
    value = MLP(d, 1, options.hidden, generator=generator)
    with torch.no_grad():
        value.weights[-1].zero_()
    return hamiltonian.to(data.now), value.to(data.now)


def inverse_noise(data: Batch, residual: Tensor) -> Tensor:
    """Mean squared residual over its quadratic fit in (x, a): weights of order 1.

    The noise of a target is ``|sigma' grad V| / sqrt(dt)``, so states where V is flat
    know the constant of V best.
    """
    w = np.hstack([with_one(as_array(data.now)), as_array(data.control)])
    squares, basis = as_array(residual) ** 2, monomials(w)
    fitted = basis @ np.linalg.lstsq(basis, squares, rcond=1e-10)[0]
    mean = max(float(squares.mean()), 1e-300)
    weights = torch.from_numpy(mean / np.maximum(fitted, FLOOR * mean))
    return weights.to(data.now)


def _relaxation(data: Batch) -> float:
    """A quarter of the time in which the fastest states cross half the box."""
    speed = ((data.then - data.now) ** 2).mean().sqrt() / data.dt
    return 0.25 / max(float(speed), 1e-12)


def _difference(value: MLP, data: Batch, rho: float) -> Tensor:
    fade = np.exp(-rho * data.dt)
    now, then = value(data.now).double(), value(data.then).double()
    if data.later is None:
        return ((fade * then - now) / data.dt)[:, 0]
    later = value(data.later).double()
    return ((-1.5 * now + 2.0 * fade * then - 0.5 * fade**2 * later) / data.dt)[:, 0]


def _adam(net: torch.nn.Module, options: QNetworks) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), weight_decay=options.weight_decay)


def mean_square(
    net: torch.nn.Module,
    inputs: tuple[Tensor, ...],
    target: Tensor,
    weights: Tensor,
) -> Callable[[Tensor], Tensor]:
    """The weighted mean squared error on some rows, as a function of the rows."""

    def loss(k: Tensor) -> Tensor:
        out = net(*(v[k] for v in inputs))
        return (weights[k] * (out.reshape(len(out)) - target[k]) ** 2).mean()

    return loss


def descend(
    loss: Callable[[Tensor], Tensor],
    fit: torch.optim.Optimizer,
    options: QNetworks,
    n: int,
    generator: torch.Generator,
) -> float:
    """Adam steps on random batches; the size of the last gradient."""
    for _ in range(options.steps):
        rows = torch.randint(n, (min(options.batch, n),), generator=generator)
        fit.zero_grad()
        loss(rows).backward()
        fit.step()
    return gradient_size(fit.param_groups[0]["params"])


def _actor_of(net: MLP, m: int) -> MLP:
    """The outputs 1 .. m of the Hamiltonian's network as a network of its own."""
    hidden = [len(W) for W in net.weights[:-1]]
    actor = MLP(net.weights[0].shape[1], m, hidden, net.activation)
    with torch.no_grad():
        for k, (W, b) in enumerate(zip(net.weights, net.biases, strict=True)):
            last = k == len(net.weights) - 1
            actor.weights[k].copy_(W[1 : 1 + m] if last else W)
            actor.biases[k].copy_(b[1 : 1 + m] if last else b)
    return actor
