"""Models and networks written in torch alone, made readable for everything else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hjbpde.errors import HJBError, ProblemError
from hjbpde.greedy import greedy_control
from hjbpde.problem import ControlProblem
from hjbpde.real_numbers import real_array
from hjbpde.sets import Box, ControlSet

from .networks import refuse_training_mode

Array = NDArray[np.float64]


def from_torch(
    model: Any,
    *,
    controls: ControlSet | None,
    domain: Box,
    discount: float,
    **fields: Any,
) -> ControlProblem:
    """A ControlProblem from the article's torch class; nothing is rewritten.

    Parameters
    ----------
    model : object
        Methods ``drift(x, a) -> (batch, d)``, ``diffusion(x, a) -> (batch, d, k)``
        and ``reward(x, a) -> (batch, 1)`` (or ``cost``) on tensors x (batch, d) and
        a (batch, m). A ``(batch,)`` reward is taken too. Its tensors are copied to
        float64, on the device where they are: in float32 the structure of the problem
        drowns in round-off.
    controls, domain, discount
        As in ControlProblem; further fields (boundary, name, exact, ...) likewise.

    Returns
    -------
    ControlProblem whose functions take NumPy arrays and tensors, any leading shape.

    Raises
    ------
    ProblemError
        A missing method, or one that fails or returns the wrong shape, named.
    """
    if not isinstance(domain, Box):
        raise ProblemError("from_torch: domain must be a Box with constant bounds.")
    payoff = [name for name in ("reward", "cost") if hasattr(model, name)]
    for name in ("drift", "diffusion"):
        if not callable(getattr(model, name, None)):
            raise ProblemError(
                f"from_torch: {type(model).__name__} has no method {name}(x, a)."
            )
    if len(payoff) != 1:
        raise ProblemError(
            f"from_torch: {type(model).__name__} must have one of reward(x, a) and "
            f"cost(x, a); it has {payoff or 'neither'}."
        )
    exact_copy, d = in_float64(model), domain.dimension
    device, tails = device_of(model), {"drift": (d,), "diffusion": (d, -1)}
    functions = {
        name: TorchFunction(
            name, getattr(exact_copy, name), tails.get(name, ()), device
        )
        for name in ("drift", "diffusion", payoff[0])
    }
    m = 0 if controls is None else controls.dimension
    for function in functions.values():
        function(np.tile(domain.centre, (3, 1)), _some_controls(controls, 3, m))
    return ControlProblem(
        controls=controls, domain=domain, discount=discount, **functions, **fields
    )


def _some_controls(controls: ControlSet | None, n: int, m: int) -> Array:
    if controls is None or (isinstance(controls, Box) and controls.varies):
        return np.zeros((n, m))
    return controls.sample(np.random.default_rng(0), n)


def in_float64(model: Any) -> Any:
    """A copy of `model` whose floating-point tensors are float64."""
    twin = copy.deepcopy(model)
    if isinstance(twin, torch.nn.Module):
        return twin.double()
    for name, value in list(getattr(twin, "__dict__", {}).items()):
        floats = isinstance(value, Tensor) and value.is_floating_point()
        if floats or isinstance(value, torch.nn.Module):
            setattr(twin, name, value.double())
    return twin


def device_of(model: Any) -> torch.device:
    """Where the tensors of `model` are, the first that is found; else the CPU."""
    found: list[Tensor] = []
    for value in getattr(model, "__dict__", {}).values():
        found += [value] if isinstance(value, Tensor) else []
        found += value.parameters() if isinstance(value, torch.nn.Module) else []
    if isinstance(model, torch.nn.Module):
        found += [*model.parameters(), *model.buffers()]
    return found[0].device if found else torch.device("cpu")


@dataclass(frozen=True)
class TorchFunction:
    """A method on (batch, d) tensors as a function of NumPy arrays or tensors.

    It is called on `device`; what it returns is where the arguments are.
    """

    name: str
    method: Callable[[Tensor, Tensor], Tensor]
    tail: tuple[int, ...]
    device: torch.device

    def __call__(self, x: Any, a: Any) -> Any:
        """The method's value at x (..., d), a (..., m): (..., *tail)."""
        lead = tuple(x.shape[:-1])
        if isinstance(x, Tensor):
            out = self._on(x, a)
            return out.reshape(*lead, *out.shape[1:])
        with torch.no_grad():
            tensors = (torch.from_numpy(np.array(v, dtype=np.float64)) for v in (x, a))
            out = self._on(*tensors)
        return out.numpy().reshape(*lead, *out.shape[1:])

    def _on(self, x: Tensor, a: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(self.device)
        b = a.reshape(-1, a.shape[-1]).to(self.device)
        n = len(flat)
        try:
            out = self.method(flat, b)
        except HJBError:
            raise
        except Exception as cause:
            raise ProblemError(
                f"from_torch: '{self.name}' raised {type(cause).__name__} on tensors x "
                f"{tuple(flat.shape)}, a {tuple(b.shape)} in {flat.dtype}: {cause}. "
                "Constants inside must follow x.dtype."
            ) from cause
        if not isinstance(out, Tensor):
            raise ProblemError(
                f"from_torch: '{self.name}' returned no tensor: {out!r}."
            )
        wanted = (n, *self.tail)
        if not self.tail and tuple(out.shape) == (n, 1):
            out = out[:, 0]
        good = out.dim() == len(wanted) and all(
            w in (-1, s) for s, w in zip(out.shape, wanted, strict=True)
        )
        if not good:
            shape = "(batch, 1)" if not self.tail else f"(batch, {self._words()})"
            raise ProblemError(
                f"from_torch: '{self.name}' returned shape {tuple(out.shape)} for a "
                f"batch of {n}; expected {shape}."
            )
        return out.to(x.device)

    def _words(self) -> str:
        return ", ".join("k" if s < 0 else str(s) for s in self.tail)


@dataclass(frozen=True, eq=False)
class TorchCandidate:
    """A value network (n, d) -> (n, 1) or (n,) asked at NumPy points (..., d).

    The gradient is taken in float64 wherever the module can be copied there; the
    value keeps the module's own precision.
    """

    module: torch.nn.Module
    problem: ControlProblem
    twin: torch.nn.Module = field(repr=False)
    dtype: torch.dtype
    device: torch.device

    def value_at(self, x: Any) -> Array:
        """V at x (..., d), shape (...), in the problem's sense."""
        flat, lead = self._flat(x)
        tensor = torch.as_tensor(flat, dtype=self.dtype, device=self.device)
        with torch.no_grad():
            out = self._shaped(self.module(tensor), len(flat))
        found = out.double().cpu().numpy()
        _refuse_nan("value", found, flat)
        return found.reshape(lead)

    def gradient_at(self, x: Any) -> Array:
        """grad V at x (..., d), shape (..., d)."""
        flat, lead = self._flat(x)
        return self._derivatives(flat, False)[0].reshape(*lead, -1)

    def hessian_at(self, x: Any) -> Array:
        """hess V at x (..., d), shape (..., d, d)."""
        flat, lead = self._flat(x)
        d = flat.shape[1]
        return self._derivatives(flat, True)[1].reshape(*lead, d, d)

    def control_at(self, x: Any) -> Array:
        """The greedy policy of the value at x (..., d), shape (..., m)."""
        flat, lead = self._flat(x)
        noisy = callable(self.problem.diffusion)
        p, hess = self._derivatives(flat, noisy)
        a = greedy_control(self.problem, flat, p, hess if noisy else None)
        return a.reshape(*lead, a.shape[-1])

    def _derivatives(self, x: Array, second: bool) -> tuple[Array, Array]:
        parameter = next(self.twin.parameters(), None)
        dtype = self.dtype if parameter is None else parameter.dtype
        tensor = torch.as_tensor(x, dtype=dtype, device=self.device)
        tensor = tensor.clone().requires_grad_(True)
        with torch.enable_grad():
            out = self._shaped(self.twin(tensor), len(x)).sum()
            if not out.requires_grad:
                raise ProblemError(
                    "as_candidate: the module's output does not depend on x through "
                    "torch operations, so it has no gradient."
                )
            p = torch.autograd.grad(
                out, tensor, create_graph=second, materialize_grads=True
            )[0]
            rows = [
                torch.autograd.grad(
                    p[:, i].sum(), tensor, retain_graph=True, materialize_grads=True
                )[0]
                for i in range(x.shape[1])
                if second and p.requires_grad
            ]
        hess = torch.stack(rows, 1) if rows else p.new_zeros(*p.shape, p.shape[1])
        slope, bend = (v.detach().double().cpu().numpy() for v in (p, hess))
        _refuse_nan("gradient", slope, x)
        return slope, bend

    def _shaped(self, out: Any, n: int) -> Tensor:
        shape = tuple(getattr(out, "shape", ()))
        if not isinstance(out, Tensor) or shape not in ((n,), (n, 1)):
            raise ProblemError(
                f"as_candidate: the module returned shape {shape} for {n} states; a "
                f"value network must return ({n}, 1) or ({n},), one number a state."
            )
        if not out.is_floating_point():
            raise ProblemError(
                f"as_candidate: the module returned {out.dtype} numbers, which have no "
                "gradient; return floating point, best torch.float64."
            )
        return out.reshape(n)

    def _flat(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        x = real_array(x, "as_candidate: x")
        if x.ndim == 0 or x.shape[-1] != self.problem.dimension:
            raise ProblemError(
                f"as_candidate: points of shape {x.shape} for a problem in "
                f"{self.problem.dimension} states."
            )
        return np.ascontiguousarray(x.reshape(-1, x.shape[-1])), x.shape[:-1]


def _refuse_nan(what: str, found: Array, x: Array) -> None:
    bad = np.isnan(found.reshape(len(x), -1)).any(1)
    if bad.any():
        raise ProblemError(
            f"as_candidate: the module's {what} is NaN at x = {x[bad][0]} "
            f"({bad.sum()} of {len(x)} states). Look for a logarithm or root outside "
            "its range, or weights that training made NaN."
        )


def _twin_of(module: torch.nn.Module, d: int, device: torch.device) -> torch.nn.Module:
    """A float64 copy, or the module itself where that cannot be made or asked."""
    try:
        twin = copy.deepcopy(module).double()
        with torch.no_grad():
            twin(torch.zeros(2, d, dtype=torch.float64, device=device))
    except Exception:  # whatever a module of its own kind raises
        return module  # its own precision has to do
    return twin


def as_candidate(module: Any, problem: ControlProblem) -> Any:
    """`module` with value_at, gradient_at and control_at on NumPy points (..., d).

    Parameters
    ----------
    module : torch.nn.Module or a solution
        A value network ``(n, d) -> (n, 1)`` or ``(n,)`` in the problem's own sense,
        of any dtype and on any device; anything that already has value_at is
        returned as it is.

    Raises
    ------
    ProblemError
        Neither of these; an output of another shape; a module that fails.
    """
    if hasattr(module, "value_at"):
        return module
    if not isinstance(module, torch.nn.Module):
        raise ProblemError(
            f"as_candidate: {type(module).__name__} is neither a torch module nor a "
            "solution with value_at."
        )
    refuse_training_mode("as_candidate", module)
    assert problem.domain is not None
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    dtype = torch.float64 if first is None else first.dtype
    device = torch.device("cpu") if first is None else first.device
    twin = _twin_of(module, problem.dimension, device)
    candidate = TorchCandidate(module, problem, twin, dtype, device)
    try:
        # Two states: an output (2, 1) or (2,) cannot be mistaken for a scalar.
        candidate.value_at(
            problem.domain.inner(0.5).sample(np.random.default_rng(0), 2)
        )
    except HJBError:
        raise
    except Exception as cause:
        raise ProblemError(
            f"as_candidate: the module failed on states of shape (2, "
            f"{problem.dimension}): {type(cause).__name__}: {cause}."
        ) from cause
    return candidate
