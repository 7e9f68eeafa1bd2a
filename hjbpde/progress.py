"""Progress bars, shown only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

SHOWN = {"residual": "residual", "value_loss": "loss"}
"""What a bar shows of the last entry of a history, and what it calls it."""


def bar_over(
    items: Iterable[Any],
    labels: Sequence[Any],
    show: bool,
    title: str,
    told: Callable[[], str] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Items with their labels, and a bar on the terminal when `show`.

    ``told()`` is what the bar says beside the label once an item is done: its loss.
    """
    pairs = list(zip(items, labels, strict=True))
    if not show:
        yield from pairs
        return
    from rich.progress import Progress, TimeElapsedColumn

    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), transient=True
    ) as progress:
        task = progress.add_task(title, total=len(pairs))
        words = ""
        for item, label in pairs:
            progress.update(task, description=f"{title} {label}{words}")
            yield item, label
            words = f", {told()}" if told is not None else ""
            progress.advance(task)


def last_of(history: Sequence[Mapping[str, Any]]) -> str:
    """Residual and loss of the last entry, relative to sup|V|, as a bar shows them."""
    last = history[-1] if history else {}
    found = (f"{SHOWN[k]} {last[k]:.1e}" for k in SHOWN if k in last)
    return ", ".join(found)


def last_number(name: str, numbers: Sequence[float]) -> str:
    """The last of a run's losses, as a bar shows it."""
    return f"{name} {numbers[-1]:.1e}" if numbers else ""
