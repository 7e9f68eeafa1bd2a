"""Finite decision problems against printed answers, and chains against their HJB."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.mdp import (
    MDP,
    bounds,
    modified_policy_iteration,
    policy_iteration,
    value_iteration,
)

SOLVERS = (value_iteration, policy_iteration, modified_policy_iteration)


def solved(problem, *arguments) -> hjb.GridSolution:
    """A stationary solution, typed as one."""
    found = hjb.solve(problem, *arguments)
    assert isinstance(found, hjb.GridSolution)
    return found


def taxicab():
    """Howard, Dynamic Programming and Markov Processes (1960), the taxicab example."""
    rows = [
        [([0.5, 0.25, 0.25], [10, 4, 8]), ([0.5, 0, 0.5], [14, 0, 18]),
         ([0.25, 0.25, 0.5], [10, 2, 8])],
        [([1 / 16, 3 / 4, 3 / 16], [8, 2, 4]), ([1 / 16, 7 / 8, 1 / 16], [8, 16, 8]),
         ([1 / 8, 3 / 4, 1 / 8], [6, 4, 2])],
        [([0.25, 1 / 8, 5 / 8], [4, 6, 4]), None,
         ([3 / 4, 1 / 16, 3 / 16], [4, 0, 8])],
    ]  # fmt: skip
    P, r = np.zeros((3, 3, 3)), np.full((3, 3), -np.inf)
    for a, action in enumerate(rows):
        for x, row in enumerate(action):
            if row is not None:
                P[a, x], r[x, a] = row[0], np.dot(*row)
    return MDP(P, r, 0.9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_taxicab_earns_what_howard_printed(solver):
    found = solver(taxicab())
    assert found.value == pytest.approx([121.65, 135.31, 122.84], abs=0.005)
    assert found.policy.tolist() == [1, 1, 1]
    assert (found.lower <= found.value + 1e-9).all()
    assert (found.value <= found.upper + 1e-9).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_states_have_the_value_in_puterman(solver):
    """Section 3.1 with discount .95: staying costs 1 for ever, so V(1) = -20."""
    P = [[[0.5, 0.5], [0, 1]], [[0, 1], [0, 1]]]
    found = solver(MDP(P, [[5, 10], [-1, -np.inf]], 0.95))
    assert found.value == pytest.approx([-4.5 / 0.525, -20], abs=1e-7)
    assert found.policy.tolist() == [0, 0]


def test_bounds_hold_at_every_sweep_of_a_random_problem():
    rng = np.random.default_rng(4)
    P = rng.random((3, 8, 8))
    mdp = MDP(P / P.sum(2, keepdims=True), rng.normal(size=(8, 3)), 0.9)
    exact, value = policy_iteration(mdp).value, rng.normal(size=8)
    widths = []
    for _ in range(20):
        improved, _ = mdp.greedy(value)
        low, high = bounds(mdp, value, improved)
        assert (low <= exact + 1e-12).all() and (exact <= high + 1e-12).all()
        widths.append((high - low).max())
        value = improved
    assert widths[-1] < 1e-3 * widths[0]


def test_rows_that_end_are_bounded_by_the_contraction():
    """One state left with chance .5 at every step: V = 1 / (1 - .9 * .5)."""
    mdp = MDP([[[0.5]]], [[1.0]], 0.9)
    found = value_iteration(mdp)
    assert found.value[0] == pytest.approx(1 / 0.55, abs=1e-9)
    assert mdp.contraction == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("P", "r", "gamma", "words"),
    [
        ([[[0.5, 0.6], [0, 1]]], [[1], [1]], 0.9, "state 0 under action 0 sum to 1.1"),
        ([[[1.5, -0.5], [0, 1]]], [[1], [1]], 0.9, "row of state 0"),
        ([[[1, 0], [0, 1]]], [[1], [1]], 1.1, "discount"),
        ([[[1, 0], [0, 1]]], [[1], [np.nan]], 0.9, "state 1, action 0"),
        ([[[1, 0], [0, 1]]], [[1], [-np.inf]], 0.9, "state 1 has no action"),
        ([[[1, 0], [0, 1]]], [1, 1], 0.9, "reward has shape"),
        ([[[1, 0], [0, 1]]], [[1], [1]], [0.9, 0.9, 0.9], "discount has shape"),
    ],
)
def test_what_is_no_decision_problem_is_refused(P, r, gamma, words):
    with pytest.raises(hjb.ProblemError, match=words):
        MDP(P, r, gamma)


def test_a_chain_that_never_ends_has_no_undiscounted_value():
    mdp = MDP([[[1.0]]], [[1.0]], 1.0)
    with pytest.raises(hjb.NotConverged, match="neither discounted nor ever left"):
        policy_iteration(mdp)
    with pytest.raises(hjb.NotConverged, match="after 5 iterations") as caught:
        value_iteration(mdp, max_iterations=5)
    assert caught.value.solution.iterations == 5


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("manufactured", (31, 31), {"dimension": 2}),
        ("lqr", 101, {}),
    ],
)
def test_the_chain_of_the_policy_has_the_value_of_the_scheme(name, shape, parameters):
    problem = hjb.catalogue.get(name, **parameters)
    solution = solved(problem, shape, hjb.PolicyIteration(order=1))
    for dt in (None, 1e-4):
        mdp = solution.as_mdp(dt=dt)
        assert all((P.data >= 0).all() for P in mdp.transition)
        value = problem.sign * mdp.evaluate(np.zeros(mdp.n_states, int))
        gap = np.abs(value - solution.value.ravel()).max()
        assert gap < 1e-7 * np.abs(solution.value).max()


def test_a_finite_set_of_controls_gives_the_same_value_through_the_chain():
    problem = hjb.ControlProblem(
        drift=lambda x, a: a - 0.2 * x,
        diffusion=0.2,
        cost=lambda x, a: x[..., 0] ** 2 + 0.1 * abs(a[..., 0]),
        controls=hjb.Finite([[-1.0], [0.0], [1.0]]),
        domain=hjb.Box(-2.0, 2.0),
        discount=0.5,
        boundary=hjb.Reflecting(),
    )
    solution = solved(problem, 101, hjb.PolicyIteration(order=1))
    mdp = solution.as_mdp(controls=3)
    found = policy_iteration(mdp)
    assert -found.value == pytest.approx(solution.value, abs=1e-9)
    chosen = np.array([-1.0, 0.0, 1.0])[found.policy]
    assert np.mean(chosen == solution.control[:, 0]) > 0.95
    assert modified_policy_iteration(mdp, 200, 1e-8).value == pytest.approx(
        found.value, abs=1e-7
    )


def test_controls_that_leave_are_forbidden_in_the_chain():
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 1.0),
        discount=1.0,
        boundary=hjb.StateConstraint(),
    )
    solution = solved(problem, 41, hjb.PolicyIteration(order=1))
    mdp = solution.as_mdp(controls=[[-1.0], [1.0]])
    assert np.isneginf(mdp.reward[0, 0]) and np.isneginf(mdp.reward[-1, 1])
    assert np.isfinite(mdp.reward[1:-1]).all()


def test_a_step_too_long_names_the_longest():
    solution = solved(
        hjb.catalogue.get("manufactured"), 41, hjb.PolicyIteration(order=1)
    )
    longest = solution.as_mdp().dt
    with pytest.raises(hjb.ProblemError, match=f"at most {longest:.6g}"):
        solution.as_mdp(dt=2 * longest)
    with pytest.raises(hjb.ProblemError, match="shape"):
        solution.as_mdp(controls=[1.0, 2.0])


def test_a_face_that_feeds_back_is_no_chain():
    solution = solved(hjb.catalogue.get("merton"), 41)
    with pytest.raises(hjb.ProblemError, match="no Markov chain"):
        solution.as_mdp()
