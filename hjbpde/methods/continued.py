"""A problem beyond its domain as it looks from inside, without asking there.

Every function of the state is continued from the domain along the ray through its
nearest point, by the parabola through three points of that ray::

    u(c + s w) = 2 (s + 1/2) (s + 1) u(c) - 4 s (s + 1) u(c - w/2)
                 + 2 s (s + 1/2) u(c - w)

where c is the nearest point of the box and w, along what is left, is as long as c - w
stays in the box. Functions that are quadratic inside, as those of linear regulators
are, continue as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Dirichlet, Robin
from ..problem import ControlProblem
from ..sets import Box

Array = NDArray[np.float64]
FIELDS = ("drift", "diffusion", "reward", "cost", "discount", "best_control")
CONTINUED = "continued from inside"


def continued(problem: ControlProblem, domain: Box) -> ControlProblem:
    """The problem with coefficients, face data, exit and bounds on controls that are
    those of `domain` inside it and continue them elsewhere.

    Its name says so, by which files tell it from the problem itself.
    """
    fields = {name: _function(getattr(problem, name), domain) for name in FIELDS}
    for name in ("controls", "adversary"):
        fields[name] = _bounds(getattr(problem, name), domain)
    if problem.exit is not None:
        fields["exit"] = replace(
            problem.exit,
            region=_function(problem.exit.region, domain),
            value=_function(problem.exit.value, domain),
        )
    if problem.modes is not None:
        rates = _function(problem.modes.rates, domain)
        fields["modes"] = replace(problem.modes, rates=rates)
    fields["boundary"] = {
        face: _rule(rule, domain) for face, rule in problem.faces.items()
    }
    return replace(problem, **fields, name=f"{problem.name} {CONTINUED}".strip())


def _function(function: Any, domain: Box) -> Any:
    """A function of x, and of more, continued; anything else as it is."""
    if not callable(function):
        return function

    @wraps(function)
    def beyond(x: Any, *more: Any, **named: Any) -> Any:
        return _parabola(lambda y: function(y, *more, **named), x, domain)

    return beyond


def _parabola(u: Callable[[Array], Any], x: Array, domain: Box) -> Any:
    """u at states x (..., d), which is asked at states of the domain alone."""
    periodic = np.array(domain.periodic_axes)
    box = Box(
        np.where(periodic, -np.inf, domain.low), np.where(periodic, np.inf, domain.high)
    )
    nearest = box.clip(x)
    rest = x - nearest
    outside = (rest != 0.0).any(axis=-1)
    if not outside.any():
        return u(x)
    # A step so short that its reach overflows ends at the far face all the same.
    with np.errstate(divide="ignore", over="ignore"):
        reach = np.where(rest != 0.0, domain.width / np.abs(rest), np.inf).min(axis=-1)
    reach = np.where(outside, np.minimum(reach, 1e100), 1.0)
    s = np.where(outside, 1.0 / reach, 0.0)
    weights = 2.0 * (s + 0.5) * (s + 1.0), -4.0 * s * (s + 1.0), 2.0 * s * (s + 0.5)
    total: Any = 0.0
    for weight, share in zip(weights, (0.0, 0.5, 1.0), strict=True):
        y = box.clip(nearest - (share * reach)[..., None] * rest)
        value = np.asarray(u(y))
        if value.shape[: s.ndim] != s.shape:
            # Of no state: the same everywhere.
            return value
        total = total + weight.reshape(s.shape + (1,) * (value.ndim - s.ndim)) * value
    return total


def _bounds(controls: Any, domain: Box) -> Any:
    """A set of controls whose bounds are continued where they depend on the state."""
    if not isinstance(controls, Box) or not controls.varies:
        return controls
    return Box(_function(controls.low, domain), _function(controls.high, domain))


def _rule(rule: Any, domain: Box) -> Any:
    """A boundary rule whose data are continued."""
    if isinstance(rule, Dirichlet | Robin):
        return replace(rule, g=_function(rule.g, domain))
    return rule
