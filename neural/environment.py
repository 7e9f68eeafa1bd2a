"""Transitions of a Gymnasium-style environment, checked step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import HJBError, ProblemError
from hjbpde.real_numbers import real_array
from hjbpde.sets import Box, ControlSet, Finite

from .options import check_number
from .transitions import Transitions, check_steps, explored

Array = NDArray[np.float64]
OWNER = "environment_transitions"


def environment_transitions(
    environment: Any,
    controls: ControlSet,
    dt: float,
    n: int = 20_000,
    *,
    policy: Callable[[Array, np.random.Generator], Any] | None = None,
    seed: int = 0,
    hold: int = 8,
    spread: float = 4.0,
) -> Transitions:
    """Transitions of a Gymnasium-style environment; gymnasium is not imported.

    ``reset(seed=...) -> (x, info)`` and ``step(a) -> (x, reward, terminated,
    truncated, info)``; x a flat array, the reward the payoff *integrated* over one
    step of length dt. A control is held for `hold` steps. The step that ends an
    episode is left out: its successor has no value here.

    Parameters
    ----------
    policy : callable, (x (d,), rng) -> a (m,), optional
        How controls are chosen; default uniform over the set.

    Raises
    ------
    ProblemError
        An environment without reset and step, or answers of another form.
    """
    _check_environment(environment, controls)
    check_steps(OWNER, dt, hold, n, seed)
    check_number(OWNER, "spread", spread)
    rng = np.random.default_rng(seed)
    m = explored(controls, 1, spread, np.random.default_rng(0)).shape[1]
    x, rows, fresh = _reset(environment, seed), [], seed
    for _ in range(max(n // hold, 1)):
        chosen = explored(controls, 1, spread, rng)[0]
        a = chosen if policy is None else _chosen(policy, x, rng, m)
        path, gains, over = [x], [], False
        for _ in range(hold):
            x, gain, over = _step(environment, a, len(x))
            if over:
                break
            path.append(x)
            gains.append(gain)
        if gains:
            rows.append((np.array(path), np.tile(a, (len(gains), 1)), np.array(gains)))
        if over:
            fresh += 1
            x = _reset(environment, fresh)
    return _joined(rows, dt, hold)


def _check_environment(environment: Any, controls: Any) -> None:
    for name in ("reset", "step"):
        if not callable(getattr(environment, name, None)):
            raise ProblemError(
                f"{OWNER}: {type(environment).__name__} has no {name}(); give an "
                "object with Gymnasium's reset and step."
            )
    if not isinstance(controls, Box | Finite):
        raise ProblemError(
            f"{OWNER}: controls = {controls!r}; give an hjb.Box or hjb.Finite."
        )


def _chosen(policy: Callable[..., Any], x: Array, rng: Any, m: int) -> Array:
    """The policy's control (m,) at x (d,)."""
    try:
        a = _numbers("the policy's control", policy(x, rng))
    except HJBError:
        raise
    except Exception as cause:
        raise ProblemError(
            f"{OWNER}: the policy failed at x = {x}: {type(cause).__name__}: {cause}. "
            "It is called with one state (d,) and a NumPy generator."
        ) from cause
    if len(a) != m:
        raise ProblemError(
            f"{OWNER}: the policy returned {len(a)} numbers, the control set has {m}."
        )
    return a


def _joined(rows: list[tuple[Array, Array, Array]], dt: float, hold: int) -> Any:
    need = 2 if hold >= 2 else 1
    parts = [
        Transitions.from_paths(x[None], a[None], r[None], dt, integrated=True)
        for x, a, r in rows
        if len(r) >= need
    ]
    if not parts:
        raise ProblemError(
            f"environment_transitions: no episode lasted {need} steps under one "
            "control; shorten hold or start further from termination."
        )
    names = [f.name for f in fields(Transitions) if f.name not in ("dt", "integrated")]
    joined = {
        name: None
        if getattr(parts[0], name) is None
        else np.concatenate([getattr(part, name) for part in parts])
        for name in names
    }
    return Transitions(**joined, dt=dt, integrated=True)


def _reset(environment: Any, seed: int) -> Array:
    answer = environment.reset(seed=seed)
    if not (isinstance(answer, tuple) and len(answer) == 2):
        raise ProblemError(f"{OWNER}: reset must return (x, info).")
    return _numbers("the state that reset returned", answer[0])


def _step(environment: Any, a: Array, d: int) -> tuple[Array, float, bool]:
    answer = environment.step(a)
    if not (isinstance(answer, tuple) and len(answer) == 5):
        raise ProblemError(
            f"{OWNER}: step must return (x, reward, terminated, truncated, info)."
        )
    x, reward, terminated, truncated, _ = answer
    if bool(terminated) or bool(truncated):
        return np.zeros(d), 0.0, True  # left out, whatever a crash returned
    x, paid = _numbers("the state", x), _numbers("the reward", reward)
    if len(x) != d or len(paid) != 1:
        raise ProblemError(
            f"{OWNER}: step returned {len(x)} state entries after {d} before, and "
            f"{len(paid)} numbers as reward; a state keeps its size, a reward is one."
        )
    return x, float(paid[0]), False


def _numbers(what: str, given: Any) -> Array:
    """A flat float64 copy of what an environment or a policy returned."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    array = real_array(given, f"{OWNER}: {what}").reshape(-1).copy()
    if not np.isfinite(array).all():
        raise ProblemError(
            f"{OWNER}: {what} is {array}, not finite. Find out in the environment why; "
            "a network trained on one NaN is NaN everywhere."
        )
    return array
