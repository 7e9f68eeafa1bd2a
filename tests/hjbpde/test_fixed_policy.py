"""Fixed policies in time, beside the best one (kind: law, exact)."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.fixed_policy import march_beside

NAMES = ("liquidation", "uncertain-volatility", "american-put")


def beside(name, rule, steps=32, times=(0.0,)):
    problem = hjb.catalogue.get(name)
    grid = hjb.Grid(problem.domain, 101)
    return problem, grid, march_beside(problem, grid, rule, np.array(times), steps)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NAMES)
def test_no_policy_and_no_stopping_rule_beats_the_best(name, seed):
    rng, allowed = np.random.default_rng(seed), hjb.catalogue.get(name).controls

    def rule(t, control, stops):
        share = rng.uniform(size=(*stops.shape, 1))
        moved = (0.5 + share) * control
        if isinstance(allowed, hjb.Finite):
            moved = allowed.clip(moved)
        return moved, stops ^ (share[..., 0] < 0.1)

    problem, _, found = beside(name, rule)
    loss = problem.sign * (found.best - found.own)
    assert loss.min() >= -1e-9 * np.abs(found.best).max()
    assert loss[0].max() > 1e-6 * np.abs(found.best).max()


@pytest.mark.parametrize("name", NAMES)
def test_the_best_policy_loses_nothing(name):
    _, _, found = beside(name, lambda t, control, stops: (control, stops))
    assert np.abs(found.best - found.own).max() < 1e-8 * np.abs(found.best).max()


OFF_AXES = {
    "correlated noise": {"diffusion": np.array([[0.4, 0.0], [0.25, 0.3]])},
    "jumps": {"jumps": hjb.Jumps(0.5, [[0.3, 0.0], [-0.2, 0.1]], [0.5, 0.5])},
    "moving jumps": {"jumps": hjb.Jumps(lambda x, t: 0.3 + t, [[0.3, 0.2]], [1.0])},
}


@pytest.mark.parametrize("name", OFF_AXES)
def test_rates_to_nodes_off_the_axes_are_felt_by_both(name):
    fields = {"diffusion": 0.3, **OFF_AXES[name]}
    problem = hjb.ControlProblem(
        drift=lambda x, a: a - 0.3 * x,
        reward=lambda x, a: x[..., 0] * x[..., 1] - 0.5 * (a**2).sum(-1),
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        boundary=hjb.Reflecting(),
        discount=0.1,
        horizon=1.0,
        terminal=lambda x: x[..., 0] * x[..., 1],
        **fields,
    )
    grid = hjb.Grid(problem.domain, (17, 15))
    found = march_beside(problem, grid, lambda t, a, s: (a, s), np.array([0.0]), 16)
    assert np.abs(found.best - found.own).max() < 1e-8 * np.abs(found.best).max()


def test_a_constant_volatility_is_worth_what_black_and_scholes_say():
    """A call at sigma = .2 (Black and Scholes 1973, equation 13), first order."""
    call = hjb.catalogue.get("european-call", sigma=0.2)
    errors = []
    for n in (101, 201, 401):
        problem = hjb.ControlProblem(
            drift=lambda x, a: 0.03 - 0.5 * a * a,
            diffusion=lambda x, a: a[..., None],
            reward=lambda x, a: 0 * x[..., 0],
            controls=hjb.Finite([0.1, 0.2, 0.3]),
            domain=call.domain,
            discount=0.03,
            horizon=1.0,
            terminal=call.terminal,
        )
        grid = hjb.Grid(problem.domain, n)
        found = march_beside(
            problem, grid, lambda t, a, s: (0 * a + 0.2, s), np.array([0.0]), n // 2
        )
        x = grid.nodes()
        near = np.abs(x[..., 0] - np.log(100)) < 0.5
        assert call.exact is not None
        errors.append(np.abs(found.own[0] - call.exact.value(x))[near].max())
    assert errors[-1] < 0.1
    assert 0.7 < np.log2(errors[0] / errors[2]) / 2 < 2.1  # first order in h and dt


def test_a_problem_without_a_horizon_is_refused():
    with pytest.raises(hjb.MethodMismatch, match=r"hjb\.evaluate"):
        beside("lqr", lambda t, a, s: (a, s))
