"""Learned solutions in one safetensors file: weights as tensors, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.report import Report
from hjbpde.sets import Box
from hjbpde.storage import replacing

from .ansatz import AnsatzNetwork
from .features import FeatureValue
from .level_set import stopping_from_arrays
from .payoff_network import PayoffNetwork
from .root_clock import OnRootClock
from .stopping_payoff import rights_of
from .stopping_set import StoppingSet
from .value_model import ValueModel
from .value_network import PolicyNetwork, ValueNetwork
from .waiting_set import WaitingSet

if TYPE_CHECKING:
    from .solution import LearnedSolution

Array = NDArray[np.float64]
LABEL = "hjbpde learned solution"
VERSION = 1


def save_solution(solution: LearnedSolution, path: str | Path) -> Path:
    """Write `solution` to `path`, all or nothing."""
    tensors = {f"value.{k}": v for k, v in solution.model.arrays().items()}
    if solution.actor is not None:
        tensors |= {f"actor.{k}": v for k, v in solution.actor.arrays().items()}
    if solution.stopping is not None:
        tensors |= {f"stop.{k}": v for k, v in solution.stopping.arrays().items()}
    for name in ("domain", "region"):
        box: Box = getattr(solution, name)
        tensors[f"{name}.low"] = np.asarray(box.low)
        tensors[f"{name}.high"] = np.asarray(box.high)
    d = solution.domain.dimension
    periodic = np.broadcast_to(solution.domain.periodic or False, d)
    header = {
        "label": LABEL,
        "version": VERSION,
        "model": type(solution.model).__name__,
        "actor": solution.actor is not None,
        "periodic": [bool(p) for p in periodic],
        "exit": solution.has_exit,
        "stop": solution.stopping is not None,
        "horizon": getattr(solution, "horizon", None),
        "problem": "" if solution.problem is None else solution.problem.name,
        "report": solution.report.to_dict(),
    }
    clean = {k: np.ascontiguousarray(v, dtype=np.float64) for k, v in tensors.items()}
    return write_file(Path(path), save(clean, {"hjbpde": json.dumps(header)}))


def write_file(path: Path, content: bytes) -> Path:
    """Write `content` to `path`, all or nothing."""
    with replacing(path) as file:
        file.write(content)
    return path


def load(path: str | Path, problem: ControlProblem | None = None) -> LearnedSolution:
    """A solution from `LearnedSolution.save`; with `problem`, its greedy policy too.

    Raises
    ------
    ProblemError
        A missing, truncated or foreign file, or a problem of another domain or horizon.
    """
    from .solution import LearnedSolution
    from .timed_solution import TimedLearnedSolution

    arrays, header = read_file(Path(path))
    if header.get("kind") == "score":
        raise ProblemError(f"{path} holds a score; use neural.load_score.")
    if header.get("kind") == "run":
        raise ProblemError(
            f"{path} holds a run that may not have ended; give it as checkpoint= to "
            "the method that wrote it, which goes on from there."
        )
    horizon = header.get("horizon")
    domain = Box(arrays["domain.low"], arrays["domain.high"], header["periodic"])
    region = Box(arrays["region.low"], arrays["region.high"])
    if problem is not None:
        assert problem.domain is not None
        if not (
            problem.dimension == domain.dimension
            and np.array_equal(problem.domain.low, domain.low)
            and np.array_equal(problem.domain.high, domain.high)
        ):
            raise ProblemError(
                f"neural.load: {path} was learned on {domain}, the problem given lives "
                f"on {problem.domain}."
            )
        if problem.horizon != horizon:
            raise ProblemError(
                f"neural.load: {path} was learned with horizon {horizon}, the problem "
                f"given has {problem.horizon}."
            )
    value = _part(arrays, "value.")
    model = _model(header["model"], value, problem)
    actor = None
    if header["actor"]:
        actor = PolicyNetwork.from_arrays(_part(arrays, "actor."), problem)
    report = Report.from_dict(header["report"])
    found = (problem, domain, region, report, model, actor, bool(header.get("exit")))
    stopping = None
    if header.get("stop"):
        stopping = _stopping(_part(arrays, "stop."), model)
    if horizon is None:
        return LearnedSolution(*found, stopping)
    return TimedLearnedSolution(*found, stopping, float(horizon))


def _model(
    kind: str, arrays: Mapping[str, Array], problem: ControlProblem | None
) -> ValueModel:
    if kind == PayoffNetwork.__name__:
        payoffs = None if problem is None else rights_of(problem)
        return PayoffNetwork.from_arrays(arrays, payoffs)
    known = (AnsatzNetwork, FeatureValue, OnRootClock, ValueNetwork)
    return {kind.__name__: kind for kind in known}[kind].from_arrays(arrays)


def _stopping(arrays: dict[str, Array], model: ValueModel) -> StoppingSet:
    if isinstance(model, PayoffNetwork):
        return WaitingSet(
            **vars(StoppingSet.from_arrays(arrays)), payoffs=model.payoffs, model=model
        )
    return stopping_from_arrays(arrays)


def _part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    n = len(prefix)
    return {name[n:]: v for name, v in arrays.items() if name.startswith(prefix)}


def read_file(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays and header of one of our files, checked."""
    if not path.is_file():
        raise ProblemError(f"there is no file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["hjbpde"])
        label, version = header["label"], int(header["version"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as cause:
        raise ProblemError(
            f"{path} is truncated or not a file of ours ({type(cause).__name__}: "
            f"{cause}). Nothing was loaded; pickled data are never read."
        ) from cause
    if label != LABEL:
        raise ProblemError(f"{path} holds {label!r}, expected {LABEL!r}.")
    if version > VERSION:
        raise ProblemError(f"{path} was written by a newer version (format {version}).")
    return arrays, header
