"""Saved solutions read back, each as the kind it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .game_solution import GameSolution, StationaryGameSolution
from .grid import Grid
from .impulse_solution import ImpulseSolution
from .moded_solution import ModedSolution
from .problem import ControlProblem
from .report import Report
from .schemes import Hybrid, Upwind
from .sets import Box
from .solution import LABEL, GridSolution
from .storage import read_arrays
from .timed_moded_solution import TimedModedSolution
from .timed_solution import TimedSolution

Array = NDArray[np.float64]


def load(path: str | Path, problem: ControlProblem | None = None) -> GridSolution:
    """A solution from `GridSolution.save`; with `problem`, all of its methods.

    Raises
    ------
    ProblemError
        A truncated or foreign file, or a problem of another domain.
    """
    arrays, header = read_arrays(path, LABEL)
    periodic: list[bool] = header["periodic"]
    domain = Box(arrays["low"], arrays["high"], periodic)
    axes = [arrays[f"axis{k}"] for k in range(len(periodic))]
    grid = Grid.from_axes(axes, domain)
    if problem is not None:
        assert problem.domain is not None
        if not (
            problem.dimension == grid.dimension
            and np.array_equal(problem.domain.low, domain.low)
            and np.array_equal(problem.domain.high, domain.high)
        ):
            raise ProblemError(
                f"load: {path} was solved on {domain}, the problem given lives on "
                f"{problem.domain}."
            )
    scheme = {"Upwind": Upwind, "Hybrid": Hybrid}.get(header["scheme"], Hybrid)()
    kind, more = _kind_of(arrays)
    return kind(
        **more,
        problem=problem,
        grid=grid,
        value=arrays["value"],
        control=arrays["control"],
        error_bar=arrays["error_bar"],
        report=Report.from_dict(header["report"]),
        scheme=scheme,
        second_opinion=arrays.get("second_opinion"),
        artificial_axes=tuple(header["artificial_axes"]),
        stopping=arrays.get("stopping"),
        average=header.get("average"),
    )


def _kind_of(arrays: Mapping[str, Array]) -> tuple[type[GridSolution], dict[str, Any]]:
    """The class a saved solution has, and the fields that only it has."""
    if "modes" in arrays and "times" in arrays:
        return TimedModedSolution, {"times": arrays["times"]}
    if "modes" in arrays:
        return ModedSolution, {}
    if "target" in arrays:
        return ImpulseSolution, {"target": arrays["target"]}
    timed = {"times": arrays["times"]} if "times" in arrays else {}
    if "adversary_control" not in arrays:
        return (TimedSolution if timed else GridSolution), {**timed}
    game = {
        "adversary_control": arrays["adversary_control"],
        "isaacs_gap": float(arrays["isaacs_gap"]),
    }
    if timed:
        return GameSolution, {**timed, **game}
    swapped = arrays.get("swapped_value")
    return StationaryGameSolution, {**game, "swapped_value": swapped}
