"""User functions with one keyword held fixed, and discounts raised by a rate."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

from .boundary import Dirichlet, Robin
from .events import Exit, stops_of


def keywords(function: Any) -> set[str]:
    """Names of the parameters of a function; empty for anything else."""
    if not callable(function):
        return set()
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


def held(function: Any, **fixed: Any) -> Any:
    """The function with those keywords fixed that it names; others are dropped.

    What it names beyond them can still be read off it, and held later.
    """
    used = {name: v for name, v in fixed.items() if name in keywords(function)}
    if not used:
        return function

    def rest(*arguments: Any, **more: Any) -> Any:
        return function(*arguments, **{**more, **used})

    named = inspect.signature(function)
    left = [p for name, p in named.parameters.items() if name not in used]
    rest.__dict__["__signature__"] = named.replace(parameters=left)
    return rest


def raised(rho: Any, rate: Any) -> Any:
    """The discount rho + rate; either may be a number or a function of x.

    A rate of 0 leaves a discount that names the time as it is.
    """
    if not callable(rate) and rate == 0:
        return rho
    if not callable(rho) and not callable(rate):
        return float(rho) + float(rate)

    def part(of: Any, x: Any) -> Any:
        return of(x) if callable(of) else float(of)

    return lambda x: part(rho, x) + part(rate, x)


def held_rule(rule: Any, **fixed: Any) -> Any:
    """A boundary rule whose data have those keywords fixed."""
    if isinstance(rule, Dirichlet | Robin):
        return replace(rule, g=held(rule.g, **fixed))
    return rule


def held_events(exit_: Any, stop: Any, **fixed: Any) -> tuple[Any, Any]:
    """Exit and stops with those keywords fixed in region, value and payoff."""
    if exit_ is not None:
        exit_ = Exit(held(exit_.region, **fixed), held(exit_.value, **fixed))
    stops = tuple(replace(s, payoff=held(s.payoff, **fixed)) for s in stops_of(stop))
    return exit_, stops or None
