"""Checks of options: what is wrong, and what to give instead, before work is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hjbpde.errors import ProblemError


def check_count(owner: str, name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ProblemError(
            f"{owner}: {name} = {value!r}; give a whole number, {least} or more."
        )


def check_number(
    owner: str, name: str, value: Any, above: float = 0.0, equal: bool = False
) -> None:
    """Refuse what is no finite number > `above` (>= where `equal`)."""
    real = isinstance(value, int | float | np.integer | np.floating)
    real = real and not isinstance(value, bool)
    good = real and np.isfinite(value) and (value > above or (equal and value == above))
    if not good:
        sign = ">=" if equal else ">"
        raise ProblemError(
            f"{owner}: {name} = {value!r}; give a finite number {sign} {above:g}."
        )


def check_widths(owner: str, hidden: Any, layers: int = 0) -> None:
    """Refuse hidden layers that are no sequence of at least `layers` widths >= 1."""
    try:
        widths = [] if isinstance(hidden, str) else list(hidden)
        good = not isinstance(hidden, str) and len(widths) >= layers
    except TypeError:
        widths, good = [], False
    if not good:
        raise ProblemError(
            f"{owner}: hidden = {hidden!r}; give the widths of {layers} or more hidden "
            "layers, such as (32, 32)."
        )
    for width in widths:
        check_count(owner, "a width in hidden", width)


def check_file(owner: str, path: Any) -> None:
    """Refuse what is no place for a checkpoint; None is no checkpoint."""
    if path is None:
        return
    if not isinstance(path, str | Path):
        raise ProblemError(
            f"{owner}: checkpoint = {path!r}; give the path of a file, or None."
        )
    if Path(path).is_dir():
        raise ProblemError(
            f"{owner}: checkpoint = {str(path)!r} is a folder; give the path of a file."
        )
