"""Air3D, 51 x 40 x 50, WENO5 and SSP-RK3 in float64: time and agreement with a peer.

The peer is hj-reachability (JAX). It is no dependency of ours: make an environment of
its own with ``python -m venv peer`` and ``peer/bin/pip install hj-reachability jax``,
then name its interpreter in the variable PEER_PYTHON. Without it only our own time is
taken. Both run on one core, warm, with the same steps, dissipation and ghost nodes, in
turns; processor time is compared, since other work on the machine stretches wall time,
and the ratio is the median of those of the turns.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import hjbpde as hjb
from hjbpde.methods.explicit import Marched, march_explicit
from hjbpde.methods.game import game_of

from .measuring import Measured

HORIZON = 2.8
COMPARED = 2.0
"""Time to go at which values are compared: later both amplify round-off by 1e12 at
the face x = 20, where lines are continued away from zero (each against itself with
terminal values changed by 1e-15, too)."""
TURNS = 5
TARGET_RATIO = 5.0
AGREEMENT = 1e-6
METHOD = hjb.ExplicitMarching(
    scheme=hjb.WENO5(epsilon=1e-6),
    hamiltonian=hjb.LaxFriedrichs(hjb.LaxFriedrichs.CONTROLS),
    cfl=0.75,
    even_steps=False,
    tube=hjb.Tube.LEAST,
    ends=hjb.End.AWAY_FROM_ZERO,
)
PEER = """
import os, sys, time
os.environ["XLA_FLAGS"] = (
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np, hj_reachability as hj

box = hj.sets.Box(np.array([-6.0, -10.0, 0.0]), np.array([20.0, 10.0, 2 * np.pi]))
grid = hj.Grid.from_lattice_parameters_and_boundary_conditions(
    box, (51, 40, 50), periodic_dims=2
)
V = jnp.linalg.norm(grid.states[..., :2], axis=-1) - 5
settings = hj.SolverSettings.with_accuracy(
    "very_high", value_postprocessor=lambda t, v: jnp.minimum(v, V)
)
def run(horizon):
    return hj.step(settings, CAR, grid, 0.0, V, -horizon, progress_bar=False)
CAR = hj.systems.Air3d()
np.save(sys.argv[1], np.asarray(run(float(sys.argv[3]))))
print("ready", flush=True)
for _ in sys.stdin:
    start = time.process_time()
    run(float(sys.argv[2])).block_until_ready()
    print(time.process_time() - start, flush=True)
"""


@contextmanager
def peer_beside(python: str, path: Path) -> Iterator[subprocess.Popen]:
    """The peer, warm, its values at COMPARED saved; a line asks it for one run."""
    command = [python, "-c", PEER, str(path), str(HORIZON), str(COMPARED)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as peer:
        if peer.stdout.readline() != "ready\n":
            raise RuntimeError(f"{python} did not get ready; see its message above.")
        yield peer
        peer.stdin.close()


def peer_seconds(peer: subprocess.Popen) -> float:
    """Processor time of one run of the peer."""
    peer.stdin.write("\n")
    peer.stdin.flush()
    return float(peer.stdout.readline())


def ours(horizon: float) -> Marched:
    """March our catalogue problem with the peer's choices."""
    problem = hjb.catalogue.get("air3d", horizon=horizon)
    grid = hjb.Grid(problem.domain, (51, 40, 50))
    terminal = np.asarray(problem.terminal_at(grid.nodes()))
    game = game_of(problem, grid)
    return march_explicit(game.hamiltonian, grid, terminal, [0.0, horizon], METHOD)


def own_seconds() -> tuple[float, Marched]:
    """Processor time of one run of ours, and what came of it."""
    start = time.process_time()
    marched = ours(HORIZON)
    return time.process_time() - start, marched


def turns(python: str | None) -> tuple[list[float], Marched, list[Measured]]:
    """Our times, what came of the last run, and how it compares where a peer is."""
    if python is None:
        runs = [own_seconds() for _ in range(TURNS)]
        return [seconds for seconds, _ in runs], runs[-1][1], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.npy"
        with peer_beside(python, path) as peer:
            both = [(own_seconds(), peer_seconds(peer)) for _ in range(TURNS)]
        gap = float(np.abs(ours(COMPARED).values[0] - np.load(path)).max())
    ratio = float(np.median([theirs / own[0] for own, theirs in both]))
    compared = [
        Measured("times faster than hj-reachability", ratio, TARGET_RATIO, False),
        Measured("largest difference from it", gap, AGREEMENT),
    ]
    return [own[0] for own, _ in both], both[-1][0][1], compared


def measure() -> list[Measured]:
    """Our processor time; where there is a peer, the ratio and the largest gap."""
    ours(0.05)
    spent, marched, compared = turns(os.environ.get("PEER_PYTHON"))
    own = float(np.median(spent))
    stage = own / (3 * marched.steps * marched.values[0].size)
    return [
        Measured("Air3D, WENO5 and RK3", own, 2.0, unit="s"),
        Measured("a node and stage", 1e9 * stage, 20.0, unit="ns"),
        *compared,
    ]
