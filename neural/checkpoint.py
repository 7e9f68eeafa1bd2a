"""A run on disk as it goes, and a run that goes on where the file left it.

A file holds all that the next step depends on: weights, Adam's moments, the state of
the random numbers. A resumed run therefore gives the bits of one never interrupted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from hjbpde.errors import ProblemError

from .storage import LABEL, VERSION, read_file, write_file

Array = NDArray[Any]
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
SAME = 1e-9
"""Relative difference of two problems' numbers below which they are one problem."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The file of one run, replaced as a whole or not at all.

    Parameters
    ----------
    path : Path or None
        None: nothing is kept and nothing taken up.
    owner : str
        The learner, for messages.
    identity : str
        Options and seed: a file of others is refused.
    numbers : (n,)
        What the problem's functions or the data are at fixed places. Functions have
        no names to compare; these numbers must agree to 1e-9.
    """

    path: Path | None
    owner: str
    identity: str
    numbers: Array

    @classmethod
    def at(
        cls, path: str | Path | None, owner: str, identity: str, numbers: Array
    ) -> Checkpoint:
        """One at a path as users give it."""
        place = None if path is None else Path(path)
        return cls(place, owner, identity, np.asarray(numbers, dtype=float).ravel())

    def keep(self, arrays: Mapping[str, Array], state: Mapping[str, Any]) -> None:
        """Write the state of the run, unless it has broken: the last good one stays."""
        if self.path is None or not all(_is_finite(v) for v in arrays.values()):
            return
        header = {
            "label": LABEL,
            "version": VERSION,
            "kind": "run",
            "owner": self.owner,
            "identity": self.identity,
            "state": dict(state),
        }
        whole = {"problem": self.numbers, **arrays}
        clean = {name: np.ascontiguousarray(v) for name, v in whole.items()}
        write_file(self.path, save(clean, {"hjbpde": json.dumps(header)}))

    def resume(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Arrays and state of the file, None where there is no file.

        Raises
        ------
        ProblemError
            A truncated or foreign file, or one of another learner, option, seed or
            problem.
        """
        if self.path is None or not self.path.exists():
            return None
        arrays, header = read_file(self.path)
        remedy = "remove it or give another path."
        if header.get("kind") != "run" or header.get("owner") != self.owner:
            raise ProblemError(
                f"{self.owner}: the file {self.path} is no checkpoint of "
                f"{self.owner}; {remedy}"
            )
        if header["identity"] != self.identity:
            raise ProblemError(
                f"{self.owner}: the checkpoint {self.path} was written with other "
                f"options or another seed; it has {header['identity']}, this run "
                f"{self.identity}. Use the same, or {remedy}"
            )
        theirs = arrays.pop("problem")
        if theirs.shape != self.numbers.shape or not np.allclose(
            theirs, self.numbers, rtol=SAME, atol=SAME
        ):
            raise ProblemError(
                f"{self.owner}: the checkpoint {self.path} belongs to another problem "
                f"or other data; {remedy}"
            )
        return arrays, header["state"]


@dataclass(frozen=True, eq=False)
class NetworkRun:
    """A training loop on a file.

    Parameters
    ----------
    file : Checkpoint
    nets : mapping of networks
    fits : mapping of their Adams
    generator : torch.Generator, optional
    rng : numpy.random.Generator, optional
    logs : mapping of lists of numbers
        Grow as the loop goes; filled in place by `resume`.
    """

    file: Checkpoint
    nets: Mapping[str, torch.nn.Module]
    fits: Mapping[str, torch.optim.Optimizer]
    generator: torch.Generator | None = None
    rng: np.random.Generator | None = None
    logs: Mapping[str, list[float]] = field(default_factory=dict)

    def keep(self, done: int, **more: Array) -> None:
        """Write everything after `done` rounds, and `more` arrays with it."""
        arrays = dict(more)
        for name, net in self.nets.items():
            arrays |= network_arrays(f"net.{name}", net)
        for name, fit in self.fits.items():
            arrays |= adam_arrays(f"fit.{name}", fit)
        if self.generator is not None:
            arrays["generator"] = self.generator.get_state().numpy().copy()
        random = None if self.rng is None else self.rng.bit_generator.state
        logs = {name: list(log) for name, log in self.logs.items()}
        self.file.keep(arrays, {"done": done, "random": random, "logs": logs})

    def resume(self) -> tuple[int, dict[str, Array]]:
        """Bring networks, Adams, random numbers and logs to where the file left them.

        Returns how many rounds are done, and the arrays of the file; 0 and none
        without a file.
        """
        found = self.file.resume()
        if found is None:
            return 0, {}
        arrays, state = found
        for name, net in self.nets.items():
            set_network(f"net.{name}", net, arrays)
        for name, fit in self.fits.items():
            set_adam(f"fit.{name}", fit, arrays)
        if self.generator is not None:
            self.generator.set_state(torch.from_numpy(arrays["generator"].copy()))
        if self.rng is not None:
            self.rng.bit_generator.state = state["random"]
        for name, log in self.logs.items():
            log[:] = state["logs"][name]
        return int(state["done"]), arrays


def network_arrays(name: str, net: torch.nn.Module) -> dict[str, Array]:
    """The weights of a network, named after it."""
    weights = net.state_dict().items()
    return {f"{name}.{k}": v.detach().cpu().numpy().copy() for k, v in weights}


def set_network(name: str, net: torch.nn.Module, arrays: Mapping[str, Array]) -> None:
    """The inverse of `network_arrays`, in place."""
    with torch.no_grad():
        for k, v in net.state_dict().items():
            v.copy_(torch.from_numpy(arrays[f"{name}.{k}"].copy()))


def adam_arrays(name: str, fit: torch.optim.Optimizer) -> dict[str, Array]:
    """Adam's moments of every weight that has taken a step."""
    return {
        f"{name}.{k}.{moment}": fit.state[w][moment].cpu().numpy().copy()
        for k, w in enumerate(fit.param_groups[0]["params"])
        if w in fit.state
        for moment in MOMENTS
    }


def set_adam(
    name: str, fit: torch.optim.Optimizer, arrays: Mapping[str, Array]
) -> None:
    """The inverse of `adam_arrays`, in place."""
    for k, w in enumerate(fit.param_groups[0]["params"]):
        if f"{name}.{k}.step" in arrays:
            state = {
                m: torch.from_numpy(arrays[f"{name}.{k}.{m}"].copy()).to(w)
                for m in MOMENTS
            }
            # Adam counts its steps in float32, a scalar that stays on the CPU.
            state["step"] = state["step"].to("cpu", torch.float32).reshape(())
            fit.state[w] = state


def _is_finite(values: Array) -> bool:
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
