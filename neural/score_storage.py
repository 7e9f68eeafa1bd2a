"""Learned scores in one safetensors file, as `storage` does for values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from hjbpde.errors import ProblemError
from hjbpde.report import Report

from .forward_process import linear
from .reverse_diffusion import ReverseDiffusion
from .score_control import LearnedScore
from .score_network import ScoreNetwork
from .storage import LABEL, VERSION, read_file, write_file


def save_score(learned: LearnedScore, path: str | Path) -> Path:
    """Write `learned` to `path`, all or nothing."""
    header = {
        "label": LABEL,
        "version": VERSION,
        "kind": "score",
        "process": repr(learned.problem.process),
        "horizon": learned.problem.horizon,
        "first_time": learned.first_time,
        "report": learned.report.to_dict(),
    }
    arrays = learned.network.arrays()
    clean = {k: np.ascontiguousarray(v, dtype=np.float64) for k, v in arrays.items()}
    return write_file(Path(path), save(clean, {"hjbpde": json.dumps(header)}))


def load_score(path: str | Path, problem: ReverseDiffusion) -> LearnedScore:
    """A score from `LearnedScore.save`, for the problem it was learned on.

    Raises
    ------
    ProblemError
        A missing, truncated or foreign file, or another process or horizon.
    """
    arrays, header = read_file(Path(path))
    if header.get("kind") != "score":
        raise ProblemError(f"{path} holds no score; use neural.load for values.")
    same = (repr(problem.process), problem.horizon)
    if same != (header["process"], header["horizon"]):
        raise ProblemError(
            f"load_score: {path} was learned for {header['process']} up to "
            f"{header['horizon']:g}, the problem has {same[0]} up to {same[1]:g}."
        )
    process = linear(problem.process, "load_score")
    network = ScoreNetwork.from_arrays(arrays, process)
    report = Report.from_dict(header["report"])
    return LearnedScore(problem, network, float(header["first_time"]), report)
