"""How a number is taken: warm, repeated, with what it was taken on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

import hjbpde as hjb

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "scipy", "numba", "torch")


@dataclass(frozen=True)
class Measured:
    """One number with its target; ``at_most`` says on which side it must lie."""

    what: str
    value: float
    target: float
    at_most: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the number is on the right side of its target."""
        good = self.value <= self.target if self.at_most else self.value >= self.target
        return bool(good)

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        mark = "ok " if self.met else "MISS"
        return (
            f"{mark} {self.what}: {self.value:.3g} {self.unit} ({sign} {self.target:g})"
        )


def seconds(run: Callable[[], Any], repeats: int = 5) -> float:
    """The median of `repeats` runs after one warm-up."""
    run()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def relative_error(solution: hjb.GridSolution, share: float = 1.0) -> float:
    """max |V - V*| / max |V*| on the nodes of the inner `share` of the box."""
    problem = solution.problem
    assert problem is not None
    assert problem.exact is not None
    assert problem.domain is not None
    nodes = solution.grid.nodes()
    wanted = np.asarray(problem.exact.value(nodes))
    inside = problem.domain.inner(share).contains(nodes, 1e-12)
    gap = np.abs(solution.value - wanted)[inside]
    return float(gap.max() / np.abs(wanted).max())


def twins(name: str, **parameters: Any) -> list[tuple[str, float, hjb.ControlProblem]]:
    """A problem with data V* on its faces, and its twin with artificial ones.

    Data V* give the answer away on the faces. Each with its label and the share of
    the box that is judged.
    """
    exact = hjb.catalogue.get(name, **parameters)
    blind = hjb.catalogue.get(name, **parameters, boundary=None)
    return [("V* on the faces", 1.0, exact), ("artificial faces", 0.75, blind)]


def machine() -> dict[str, Any]:
    """Processor, threads, load and versions: a time means nothing without them."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": load,
        **versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def keep(row: str, numbers: list[Measured]) -> Path:
    """Write one row's numbers to a dated file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now()
    path = RESULTS / f"{now:%Y-%m-%d}-{row}.json"
    found = [{**asdict(n), "met": n.met} for n in numbers]
    text = {"row": row, "when": f"{now:%Y-%m-%d %H:%M}", "machine": machine()}
    path.write_text(json.dumps({**text, "numbers": found}, indent=2) + "\n")
    return path
