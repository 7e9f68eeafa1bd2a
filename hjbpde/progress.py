"""Progress bars, shown only when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def bar_over(
    items: Iterable[Any], labels: Sequence[Any], show: bool, title: str
) -> Iterator[tuple[Any, Any]]:
    """Items with their labels, and a bar on the terminal when `show`."""
    pairs = list(zip(items, labels, strict=True))
    if not show:
        yield from pairs
        return
    from rich.progress import Progress, TimeElapsedColumn

    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), transient=True
    ) as progress:
        task = progress.add_task(title, total=len(pairs))
        for item, label in pairs:
            progress.update(task, description=f"{title} {label}")
            yield item, label
            progress.advance(task)
