"""Values of finished grids on disk, so that an interrupted solve can resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .grid import Grid
from .storage import read_arrays, write_arrays

LABEL = "hjbpde checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """One file with the value on every nested grid solved so far."""

    path: Path

    def keep(self, grids: Sequence[Grid], last: int, V: NDArray[np.float64]) -> None:
        """Write the value of grid number `last` and of those before it."""
        arrays = {f"value{last}": V}
        for k, axis in enumerate(grids[-1].axes):
            arrays[f"axis{k}"] = axis
        write_arrays(self.path, LABEL, arrays, {"last": last})

    def load(self, grids: Sequence[Grid]) -> dict[int, NDArray[np.float64]]:
        """The value kept, by number of its grid; empty without a file.

        Raises
        ------
        ProblemError
            A checkpoint of another grid.
        """
        if not self.path.exists():
            return {}
        arrays, header = read_arrays(self.path, LABEL)
        for k, axis in enumerate(grids[-1].axes):
            if not np.array_equal(arrays.get(f"axis{k}", np.empty(0)), axis):
                raise ProblemError(
                    f"the checkpoint {self.path} belongs to another grid; remove it "
                    "or give another path."
                )
        last = int(header["last"])
        return {last: arrays[f"value{last}"]}
