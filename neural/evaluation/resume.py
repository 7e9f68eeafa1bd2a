"""A Monte Carlo run on disk after every policy, and a run that goes on from there.

The file holds all that the next policy depends on: weights, Adam's moments, the last
batches of targets and the state of the random numbers. A resumed run therefore gives
the bits of an uninterrupted one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from hjbpde.errors import ProblemError

from ..checkpoint import adam_arrays, set_adam
from ..networks import MLP, as_array
from ..storage import LABEL, VERSION, read_file, write_file
from ..value_network import Link, PolicyNetwork, ValueNetwork
from .face_penalty import face_penalties

if TYPE_CHECKING:
    from .training import Training

Array = NDArray[np.float64]


def keep_run(run: Training, path: Path) -> None:
    """Write `run`, which has evaluated and improved at least once, all or nothing."""
    assert run.model is not None
    arrays: dict[str, Array] = {}
    for name, net, adam in _parts(run):
        for k, weight in enumerate(net.parameters()):
            arrays[f"{name}.{k}"] = as_array(weight)
        arrays |= adam_arrays(name, adam)
    if isinstance(run.policy, PolicyNetwork):
        arrays["offset"], arrays["spread"] = run.policy.offset, run.policy.spread
    link = run.model.link
    header = {
        "label": LABEL,
        "version": VERSION,
        "kind": "run",
        "identity": identity(run),
        "link": [link.shift, link.scale, link.exponential],
        "random": run.rng.bit_generator.state,
        "faces": run.faces_random,
        "history": run.history,
        "settled": run.settled,
        "status": run.status,
        "scale": run.scale,
        "warm_up_noise": run.warm_up_noise,
        "gradient_norms": run.gradient_norms,
    }
    clean = {k: np.ascontiguousarray(v, dtype=np.float64) for k, v in arrays.items()}
    write_file(path, save(clean, {"hjbpde": json.dumps(header)}))


def resume_run(run: Training, path: Path) -> None:
    """Bring a run that has just begun to where `path` left it; no file, no change.

    Raises
    ------
    ProblemError
        A truncated or foreign file, or one of another problem, method or seed.
    """
    if not path.exists():
        return
    arrays, header = read_file(path)
    if header.get("kind") != "run" or header["identity"] != identity(run):
        raise ProblemError(
            f"MonteCarlo: the checkpoint {path} belongs to another problem, method or "
            "seed; remove it or give another path."
        )
    for name, net, adam in _parts(run):
        _restore(name, net, adam, arrays)
    box, link = run.problem.domain, header["link"]
    assert box is not None
    half = 0.5 * box.width
    run.model = ValueNetwork(
        run.value_net, box.centre, half, Link(link[0], link[1], bool(link[2]))
    )
    if "offset" in arrays:
        run.policy = PolicyNetwork(
            run.policy_net, run.problem, box.centre, half,
            arrays["offset"], arrays["spread"],
        )  # fmt: skip
    faces = np.random.default_rng()
    faces.bit_generator.state = run.faces_random = header["faces"]
    run.penalties = face_penalties(run.problem, run.model, faces)
    run.rng.bit_generator.state = header["random"]
    run.history, run.warm_up_noise = header["history"], header["warm_up_noise"]
    run.gradient_norms = header.get("gradient_norms", [])
    run.settled, run.status = header["settled"], header["status"]
    run.scale = header["scale"]
    run.keep()


def identity(run: Training) -> str:
    """What a checkpoint must share with the run that takes it up."""
    box = run.problem.domain
    options = repr(run.options)
    return f"{run.problem.name!r} on {box}, {options}, seed {run.seed}"


def _parts(run: Training) -> list[tuple[str, MLP, torch.optim.Adam]]:
    return [
        ("value", run.value_net, run.value_adam),
        ("policy", run.policy_net, run.policy_adam),
    ]


def _restore(
    name: str, net: MLP, adam: torch.optim.Adam, arrays: dict[str, Any]
) -> None:
    with torch.no_grad():
        for k, weight in enumerate(net.parameters()):
            weight.copy_(torch.from_numpy(arrays[f"{name}.{k}"]))
    set_adam(name, adam, arrays)
