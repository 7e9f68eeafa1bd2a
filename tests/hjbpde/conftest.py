"""Systems of linear equations as the solver meets them."""

from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.linear import Rows
from hjbpde.methods.state import make_state
from hjbpde.tabulate import fixed_policy_tables


@pytest.fixture
def rows_of():
    """`rows_of(problem, grid, policy, scheme)`: rows and right-hand side."""

    def build(problem, grid, policy=None, scheme=None) -> tuple[Rows, np.ndarray]:
        x = grid.nodes().reshape(-1, grid.dimension)
        m = problem.n_controls
        a = np.zeros((len(x), m)) if policy is None else policy(x)
        faces = Faces.of(problem, grid)
        tables = fixed_policy_tables(problem, grid, faces, a)
        code = (scheme or hjb.Hybrid()).code
        state = make_state(faces, tables, code)
        return state.folded(tables.under(state.a))

    return build


@pytest.fixture
def convection():
    """`convection(shape, noise, periodic)`: a rotating drift with little noise."""

    def build(shape, noise=0.3, periodic=None, boundary=None):
        d = len(shape)
        speed = 1.0 if periodic is None else np.pi

        def drift(x, a):
            turned = np.roll(x, 1, axis=-1) * np.where(np.arange(d) % 2, -1, 1)
            return np.sin(speed * turned)

        problem = hjb.ControlProblem(
            drift=drift,
            diffusion=noise,
            reward=lambda x, a: np.cos(speed * x).sum(-1),
            domain=hjb.Box([-1.0] * d, [1.0] * d, periodic=periodic),
            discount=0.2,
            boundary=boundary,
        )
        assert problem.domain is not None
        return problem, hjb.Grid(problem.domain, shape)

    return build


@pytest.fixture
def assert_agreement():
    """`assert_agreement(problem, shape, method)` with `own`, or with the default.

    Both values lie within the sum of their bars at 99 % of the nodes of the region, at
    all times and in all modes. What the method does not take is skipped with its own
    reason in sight.
    """

    def agree(problem, shape, method, own=None):
        try:
            other = hjb.solve(problem, shape, method)
        except hjb.MethodMismatch as reason:
            pytest.skip(str(reason))
        ours = hjb.solve(problem, shape, own)
        inside = ours.region.contains(ours.grid.nodes(), 1e-12)
        one, two = (found.value[..., inside] for found in (ours, other))
        there = np.isfinite(one) & np.isfinite(two)
        room = (ours.error_bar + other.error_bar)[..., inside]
        assert there.all() or np.mean(there) > 0.7
        assert np.mean(np.isfinite(room[there])) >= (1.0 if there.all() else 0.75)
        # Nodes in an exit region carry data: bars of 0, and rounding.
        apart = np.abs(one[there] - two[there]) - 1e-13 * np.abs(one[there])
        assert np.mean(apart <= room[there]) >= 0.99

    return agree


@pytest.fixture
def judge():
    """`judge(problem, value, shape, method, **options)`: how a solution does.

    Coverage, median bar/error and the largest error against value(x, t, mode), over
    all nodes, modes and times but the horizon.
    """

    def judged(problem, value, shape, method, **options):
        solution: Any = hjb.solve(problem, shape, method, **options)
        x, timed = solution.grid.nodes(), problem.horizon is not None
        times = solution.times[:-1] if timed else [0.0]
        modes = range(1 if problem.modes is None else problem.modes.n)
        wanted = np.array([[value(x, t, k) for k in modes] for t in times])
        shape = (-1, len(modes), *solution.grid.shape)
        found, bar = solution.value.reshape(shape), solution.error_bar.reshape(shape)
        error = np.abs(found[: len(times)] - wanted)
        small = 1e-12 * np.abs(wanted).max()
        seen, bar = error > small, bar[: len(times)]
        covered = np.mean(error <= bar + small)
        return covered, np.median(bar[seen] / error[seen]), error.max()

    return judged


@pytest.fixture
def cubic_reading():
    """`cubic_reading(axis, values, y)`: the cubic through the four nodes around y."""

    def read(axis, values, y):
        first = np.clip(np.searchsorted(axis, y, side="right") - 2, 0, len(axis) - 4)
        near = slice(first, first + 4)
        powers = np.vander(axis[near] - y, increasing=True)
        return np.linalg.solve(powers, values[near])[0]

    return read
