"""A solve on disk as it goes, and a solve that goes on where the file left it.

A file holds every part that is finished and where the part under way stands: all that
the next step depends on, so that a resumed solve has the bits of one never killed. It
names the problem, the grid, the method and the output times it belongs to; a file of
others is refused. The file of a finished solve stays: the same solve again only reads
it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .fingerprint import Fingerprint
from .grid import Grid
from .problem import ControlProblem
from .storage import read_arrays, write_arrays

Array = NDArray[Any]
LABEL = "hjbpde checkpoint"
SHARE = 0.03
"""Share of the time that writing unfinished parts may take."""
FIRST = 0.03
"""Seconds that the first write is expected to take."""


@dataclass(frozen=True, eq=False)
class Identity:
    """What a file must share with the solve that takes it up."""

    problem: Fingerprint
    grid: Grid
    method: str
    times: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        grid: Grid,
        method: Any,
        times: Any = (),
        **options: Any,
    ) -> Identity:
        """Of one call of `solve`: the method and all options that bits depend on."""
        words = [repr(method), *(f"{name} {_told(o)}" for name, o in options.items())]
        times = np.asarray(times, dtype=float)
        return cls(Fingerprint.of(problem), grid, ", ".join(words), times)

    def arrays(self) -> dict[str, Array]:
        """To be written."""
        axes = {f"axis{k}": axis for k, axis in enumerate(self.grid.axes)}
        return {"problem": self.problem.numbers, "times": self.times, **axes}

    def fault(self, arrays: Mapping[str, Array], header: Mapping[str, Any]) -> str:
        """What a file belongs to that is not ours, in words; empty if nothing."""
        none = np.empty(0)
        for k, axis in enumerate(self.grid.axes):
            if not np.array_equal(arrays.get(f"axis{k}", none), axis):
                return "another grid"
        theirs = Fingerprint(header.get("words", ""), arrays.get("problem", none))
        if not self.problem.matches(theirs):
            return "another problem"
        if header.get("method") != self.method:
            return f"another method or other options ({header.get('method')})"
        if not np.array_equal(arrays.get("times", none), self.times):
            return "other output times"
        return ""


def _told(option: Any) -> str:
    """An option in words, an array by its checksum."""
    if isinstance(option, np.ndarray):
        return f"{option.shape} {zlib.crc32(option.tobytes()):08x}"
    return str(option)


@dataclass(eq=False)
class Checkpoint:
    """The file of one solve, by parts; replaced as a whole or not at all.

    Without a path nothing is kept and nothing found.
    """

    path: Path | None = None
    identity: Identity | None = None
    parts: dict[str, dict[str, Array]] = field(default_factory=dict)
    cost: float = FIRST
    written: float = field(default_factory=time.monotonic)
    prefix: str = ""

    @classmethod
    def at(cls, path: str | Path, identity: Identity) -> Checkpoint:
        """The checkpoint at a path as users give it, with what the file holds.

        Raises
        ------
        ProblemError
            A truncated or foreign file, or one of another problem, grid, method, option
            or set of output times.
        """
        out = cls(Path(path), identity)
        if not Path(path).exists():
            return out
        arrays, header = read_arrays(path, LABEL)
        fault = identity.fault(arrays, header)
        if fault:
            raise ProblemError(
                f"the checkpoint {path} belongs to {fault}; remove it or give another "
                "path."
            )
        for name, values in arrays.items():
            part, _, rest = name.rpartition("/")
            if part:
                out.parts.setdefault(part, {})[rest] = values
        return out

    @property
    def due(self) -> bool:
        """Whether writing now costs no more than `SHARE` of the time since the last."""
        if self.path is None:
            return False
        return (time.monotonic() - self.written) * SHARE >= self.cost

    def keep(self, part: str, arrays: Mapping[str, Array]) -> None:
        """Put a part into the file, in place of what was kept of it before."""
        if self.path is None or self.identity is None:
            return
        start = time.monotonic()
        self.parts[part] = dict(arrays)
        flat = {
            f"{name}/{key}": values
            for name, held in self.parts.items()
            for key, values in held.items()
        }
        header = {"words": self.identity.problem.words, "method": self.identity.method}
        write_arrays(self.path, LABEL, {**self.identity.arrays(), **flat}, header)
        self.written = time.monotonic()
        self.cost = self.written - start

    def page(self, part: str) -> Page:
        """One part of the file."""
        return Page(self, f"{self.prefix}{part}")

    def branch(self, name: str) -> Checkpoint:
        """The same file for another solve of the same call: its parts are named so."""
        return replace(self, prefix=f"{self.prefix}{name}")


@dataclass(frozen=True, eq=False)
class Page:
    """One part of a checkpoint, by default of none."""

    file: Checkpoint = field(default_factory=Checkpoint)
    part: str = ""

    def found(self) -> dict[str, Array] | None:
        """What is kept of the part, if anything."""
        return self.file.parts.get(self.part)

    def keep(
        self, arrays: Callable[[], Mapping[str, Array]], finished: bool = False
    ) -> None:
        """Write the part once it is `finished`, and before where that costs little."""
        if finished or self.file.due:
            self.file.keep(self.part, arrays())
