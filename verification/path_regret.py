"""What a policy costs where no chain of the grid can tell: along its own paths.

Without noise and discount a monotone scheme needs every policy to reach the exit from
every node, which few do. The candidate's paths are followed instead, and what they
pay is compared with the reference's value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Grid

from .reference import is_quiet, running
from .regret import Losses, Regret, within
from .ruling import BLIND
from .slopes import find_kinks, near_places
from .strategy import NearestPolicy
from .subject import Subject

Array = NDArray[np.float64]

STARTS = 1024
PATIENCE = 1.5
"""How much longer than the best's longest path a path may take."""
PART_OF_CELL = 0.5
"""Share of a cell that a step crosses at most."""


def nearest_policy(problem: ControlProblem, grid: Grid, a: Array) -> NearestPolicy:
    """The policy on the nodes; where the process has ended, that of the nearest node
    where it runs, for the last stretch before the surface of the exit."""
    ended = ~running(problem, grid.nodes())
    near: Any = distance_transform_edt(
        ended, return_distances=False, return_indices=True
    )
    return NearestPolicy(grid, a[tuple(near)])


def follows_paths(problem: ControlProblem) -> bool:
    """Whether the problem ends at an exit, for sure and without discount."""
    rho, ends = problem.discount, problem.special == {"exit"}
    return ends and is_quiet(problem) and not callable(rho) and rho == 0


def path_losses(subject: Subject, reference: Any, grid: Grid, region: Box) -> Losses:
    """The regret at up to `STARTS` nodes, by paths under the candidate's policy.

    Euler's method, half a cell a step, each with the control of the nearest node;
    outside the region the reference's. The bar is the reference's, what the paths of
    its own policy miss of its value, and the change from nodes and steps twice as
    coarse; nodes where it is infinite, and kinks of the value, are left out. Paths
    that do not reach the exit in `PATIENCE` times the longest that the best can take
    lose everything.
    """
    problem, nodes = subject.problem, grid.nodes()
    inside = within(grid, region) & running(problem, nodes)
    policy, moved = np.array(reference.control), np.zeros_like(reference.control)
    policy[inside], moved[inside] = subject.control(nodes[inside])
    if not np.isfinite(policy).all():
        bad = Regret(grid, inside, policy, None, moved, None, None, "not finite")
        return Losses((bad,), None)
    starts = _starts(grid)
    x = starts.nodes()
    judged = within(starts, region) & running(problem, x)
    judged &= np.isfinite(reference.value_at(x)) & np.isfinite(reference.error_at(x))
    # On a kink the best control is not one, and a path may rest there for ever.
    kinks = find_kinks(reference, grid, region)[0]
    judged[judged] = ~near_places(x[judged], kinks, grid)
    loss, bar = np.zeros(starts.shape), np.zeros(starts.shape)
    loss[judged], bar[judged] = _lost(problem, reference, (grid, policy), x[judged])
    followed = judged & np.isfinite(bar)
    shown = NearestPolicy(grid, policy)(x.reshape(-1, x.shape[-1]))
    shown, moved = shown.reshape(*starts.shape, -1), np.abs(moved)
    if followed.sum() <= BLIND * judged.sum():
        note = "not even the reference's policy reaches the exit along paths."
        lost = Regret(starts, judged, shown, None, moved, None, None, note)
        return Losses((lost,), None)
    bar[~followed], loss[~followed] = 0.0, 0.0
    return Losses((Regret(starts, followed, shown, None, moved, loss, bar),), None)


def _starts(grid: Grid) -> Grid:
    while grid.size > STARTS:
        grid = grid.coarsened()
    return grid


def _lost(
    problem: ControlProblem, reference: Any, own: tuple[Grid, Array], x: Array
) -> tuple[Array, Array]:
    """What the policy on the nodes loses from x (n, d), and its bar, both (n,)."""
    (grid, policy), truth = own, reference.value_at(x)
    coarse = grid.coarsened()
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    fine = paid(problem, nearest_policy(problem, grid, policy), reference, x)
    half = nearest_policy(problem, coarse, policy[kept])
    rough = paid(problem, half, reference, x)
    theirs = nearest_policy(problem, grid, reference.control)
    best = paid(problem, theirs, reference, x)
    bar = reference.error_at(x) + _apart(fine, rough) + np.abs(truth - best)
    return np.maximum(problem.sign * (truth - fine), 0.0), bar


def _apart(one: Array, other: Array) -> Array:
    """|one - other|, 0 where both are infinite."""
    same = ~np.isfinite(one) & ~np.isfinite(other)
    return np.abs(np.where(same, 0.0, one) - np.where(same, 0.0, other))


def paid(
    problem: ControlProblem, policy: NearestPolicy, reference: Any, x: Array
) -> Array:
    """What paths from x (n, d) pay until the exit, (n,); infinite if they miss it."""
    grid = policy.grid
    nodes = grid.nodes()[running(problem, grid.nodes())]
    a = policy(nodes)
    rate = float(np.abs(np.asarray(problem.payoff_at(nodes, a))).min())
    speed = np.abs(np.asarray(problem.drift_at(nodes, a)))
    steps = np.array([np.diff(axis).min() for axis in grid.axes])
    dt = PART_OF_CELL / float((speed / steps).max())
    longest = float(np.abs(reference.value_at(x)).max())
    horizon = PATIENCE * longest / max(rate, 1e-300)
    horizon = float(np.clip(horizon, dt, 1e4 * dt))
    paths = hjb.simulate(problem, policy, x, horizon, dt, len(x), 0)
    last = paths.states[:, -1]
    arrived = np.isfinite(paths.ended) & ~running(problem, last)
    return np.where(arrived, paths.rewards[:, -1], -problem.sign * np.inf)
