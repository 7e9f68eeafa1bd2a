"""Check, before training, that user functions work on torch tensors as on NumPy.

One definition serves the grid and the network, but array code can lose the gradient
or the precision on tensors without a word. Every function is called on float64
tensors that ask for gradients and compared with NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Robin
from hjbpde.coefficients import evaluate
from hjbpde.errors import HJBError, ProblemError
from hjbpde.given_data import given_at
from hjbpde.probe import control_range, random_control
from hjbpde.problem import ControlProblem
from hjbpde.sets import Finite

Array = NDArray[np.float64]
CAUSES = (
    "Usual causes: np.sin(x) instead of hjbpde.namespace(x).sin(x); a captured NumPy "
    "matrix instead of hjbpde.constant(A, like=x); xp.zeros or where(c, .1, .2), "
    "which are float32 in torch; a positional axis instead of axis=."
)


def probe(problem: ControlProblem, seed: int = 0) -> tuple[str, ...]:
    """Call every function on NumPy arrays and on tensors, and compare.

    Returns
    -------
    What was checked, in words.

    Raises
    ------
    ProblemError
        A function that fails, is not finite, differs by more than 1e-12 (relative)
        between the two, loses float64, or has a broken gradient; named, with the
        usual causes.
    """
    rng = np.random.default_rng(seed)
    assert problem.domain is not None
    x = problem.domain.inner(0.98).sample(rng, 32)
    a = sample_controls(problem, x, rng)
    evaluate(problem, x, a)
    field = "reward" if problem.reward is not None else "cost"
    _compare("drift", problem.drift, problem.drift_at, (x, a))
    _compare(field, getattr(problem, field), problem.payoff_at, (x, a))
    if callable(problem.diffusion):
        _compare("diffusion", problem.diffusion, problem.diffusion_at, (x, a))
    if callable(problem.discount):
        _compare("discount", problem.discount, problem.discount_at, (x,))
    _check_faces(problem, x)
    return ("functions agree on NumPy and torch to 1e-12, gradients are finite",)


def _check_faces(problem: ControlProblem, x: Array) -> None:
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet | Robin) and callable(rule.g):
            _check_numbers(f"g of face {face}", rule.g(x))
            if not np.isfinite(given_at(rule.g, x)).all():
                raise ProblemError(f"the data of face {face} are not finite.")


def check_ends(problem: ControlProblem, seed: int = 0) -> None:
    """What is paid where the process ends, which is asked on NumPy arrays only.

    Raises
    ------
    ProblemError
        'terminal', 'exit' or 'stop' of less than double precision, or not real.
    """
    assert problem.domain is not None
    x = problem.domain.inner(0.98).sample(np.random.default_rng(seed), 32)
    asked: list[tuple[str, Any]] = [("terminal", problem.terminal)]
    if problem.exit is not None:
        asked += [("exit.region", problem.exit.region)]
        asked += [("exit.value", problem.exit.value)]
    asked += [("stop", stop.payoff) for stop in problem.stops]
    for field, function in asked:
        if callable(function):
            _check_numbers(field, function(x))


def _check_numbers(field: str, out: Any) -> None:
    """Refuse NumPy answers of less than double precision, or not real."""
    kind = getattr(out, "dtype", np.dtype(float))
    if (
        kind in (np.dtype(float), np.dtype(np.longdouble))
        or np.dtype(kind).kind in "iub"
    ):
        return
    raise ProblemError(
        f"'{field}' returned {kind} for float64 arrays: precision is lost, or it is no "
        "real number. Return float64; usual causes: astype, np.float32 constants, "
        "zeros of another dtype, a root or power of a negative number."
    )


def sample_controls(
    problem: ControlProblem, x: Array, rng: np.random.Generator
) -> Array:
    """Random admissible controls at x (n, d), shape (n, m)."""
    if problem.controls is None:
        return np.zeros((len(x), 0))
    if isinstance(problem.controls, Finite):
        return problem.controls.sample(rng, len(x))
    low, high = control_range(problem, x)
    return np.ascontiguousarray(random_control(low, high, rng).T)


def _compare(
    field: str, raw: Any, shaped: Callable[..., Any], arguments: tuple[Array, ...]
) -> None:
    on_arrays = shaped(*arguments)
    _check_numbers(field, on_arrays)
    expected = np.asarray(on_arrays, dtype=float)
    tensors = [torch.tensor(v, requires_grad=True) for v in arguments]
    try:
        given = raw(*tensors)
        out = shaped(*tensors)
    except HJBError:
        raise
    except Exception as cause:
        raise ProblemError(
            f"'{field}' works on NumPy arrays but raised {type(cause).__name__} on "
            f"torch tensors: {cause}. {CAUSES}"
        ) from cause
    if not isinstance(given, torch.Tensor | float | int):
        raise ProblemError(
            f"'{field}' returned {type(given).__name__} for torch tensors: the "
            f"gradient is lost. {CAUSES}"
        )
    if out.dtype != torch.float64:
        raise ProblemError(
            f"'{field}' returned {out.dtype} for float64 tensors: precision is lost. "
            f"{CAUSES}"
        )
    gap = np.abs(out.detach().numpy() - expected)
    worst = float((gap / (1.0 + np.abs(expected))).max(initial=0.0))
    if not worst <= 1e-12:
        raise ProblemError(
            f"'{field}' gives other numbers on torch tensors than on NumPy arrays "
            f"(relative difference {worst:.2e}). {CAUSES}"
        )
    _check_gradient(field, out, tensors, arguments, shaped)


def _check_gradient(
    field: str,
    out: torch.Tensor,
    tensors: list[torch.Tensor],
    arguments: tuple[Array, ...],
    shaped: Callable[..., Any],
) -> None:
    """Autograd's derivative along (1, ..., 1) of each argument against a difference."""
    grads: tuple[Any, ...] = (None,) * len(tensors)
    if out.requires_grad:
        grads = torch.autograd.grad(out.sum(), tensors, allow_unused=True)
    h = 1e-5
    for k, (name, grad) in enumerate(zip("xa", grads, strict=False)):
        if grad is not None and not bool(torch.isfinite(grad).all()):
            raise ProblemError(
                f"the gradient of '{field}' in {name} on torch tensors is not finite. "
                "Usual cause: where(y > 0, sqrt(y), 0) at y <= 0; make the argument "
                "safe before the root, logarithm or power."
            )
        ends = []
        for step in (h, -h):
            moved = list(arguments)
            moved[k] = moved[k] + step
            ends.append(np.asarray(shaped(*moved), dtype=float).sum())
        quotient = (ends[0] - ends[1]) / (2 * h)
        along = 0.0 if grad is None else float(grad.sum())
        reach = 0.0 if grad is None else float(grad.abs().sum())
        noise = 1e-9 * float(out.detach().abs().sum()) / h
        # Loose: a kink between the two ends is allowed, a cut graph is not.
        if abs(along - quotient) > 0.05 * (reach + abs(quotient)) + noise:
            raise ProblemError(
                f"the gradient of '{field}' in {name} is lost on torch tensors: "
                f"autograd gives {along:.3g}, differences {quotient:.3g}. {CAUSES}"
            )
