"""Every example runs, and its numbers agree with something it did not use."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import hjbpde as hjb

pytestmark = pytest.mark.repository
FOLDER = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated(problem, policy, x0, horizon, dt, paths):
    """Mean discounted payoff and four standard errors."""
    found = hjb.simulate(problem, policy, x0, horizon, dt, paths, seed=5)
    final = found.rewards[:, -1]
    return final.mean(), 4 * final.std() / np.sqrt(paths)


def test_every_example_has_a_test():
    tested = Path(__file__).read_text()
    for path in FOLDER.glob("*.py"):
        assert f'load("{path.stem}")' in tested, path


def test_main_use_agrees_with_the_riccati_equation():
    """rho P = q + 2 alpha P - P^2/r, positive root; V(1) = -P/2 - sigma^2 P/(2 rho)."""
    pytest.importorskip("torch")
    module = load("main_use")
    rho, alpha, r, sigma = 0.1, -0.5, 0.1, 0.3
    slope = rho - 2 * alpha
    P = r * (-slope + np.sqrt(slope**2 + 4 / r)) / 2
    wanted = -0.5 * P - sigma**2 * P / (2 * rho)
    assert float(module.truth.value_at(np.ones(1))) == pytest.approx(wanted, abs=1e-7)
    assert module.verdict.status == "agree"


def test_own_problem_agrees_with_simulation_and_with_a_wider_box():
    module = load("own_problem")
    wide = hjb.ControlProblem(
        drift=module.drift,
        diffusion=np.diag([0.3, 0.1]),
        cost=module.cost,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box([-3.0, -3.0], [3.0, 3.0]),
        discount=0.4,
    )
    other = hjb.solve(wide, (97, 97))
    gap = abs(float(other.value_at(module.cold)) - module.value)
    assert gap <= module.bar + float(other.error_at(module.cold))
    final = module.paths.rewards[:, -1]
    slack = 4 * final.std() / np.sqrt(len(final)) + 0.02 * module.value
    assert abs(final.mean() - module.value) < slack


def test_the_fishery_earns_what_its_value_says():
    module = load("fishery")
    solution = module.solution
    mean, slack = simulated(
        module.problem, solution.interpolated_control, [0.5], 25.0, 0.02, 400
    )
    assert abs(mean - module.at_half) < slack + 0.02 * module.at_half
    # Eating the sustainable harvest for ever is one policy, without the noise.
    assert module.at_half > 0.98 * np.sqrt(module.sustainable) / 0.3
    assert module.harvest > module.sustainable
    assert solution.value[0] == pytest.approx(0, abs=1e-12)
    assert (np.diff(solution.value) > 0).all()


def test_measured_orders_are_those_of_theory():
    module = load("orders")
    assert abs(module.orders["upwind"] - 1) < 0.05
    assert abs(module.orders["order 2"] - 2) < 0.1
    assert module.orders["order 4"] > 3.7


@pytest.mark.slow
def test_the_verdict_tells_the_wrong_network_from_the_right_one():
    """The viscosity solution is (1 - exp(-rho d)) / rho, d the distance to the ends."""
    pytest.importorskip("torch")
    module = load("eikonal_kinks")
    assert module.wrong.status == "differ"
    assert module.right.status == "agree"
    assert module.errors[0] > 0.1
    assert module.errors[1] < 1e-2


def test_the_random_walk_reaches_the_scheme_and_the_equation():
    module = load("chain_limit")
    assert abs(module.time_order - 1) < 0.05
    assert abs(module.space_order - 1) < 0.2
    assert module.time_errors[-1] < 1e-3
    assert module.space_errors[-1] < 2e-3
    assert module.own_gap < 1e-10


def test_second_order_q_learning_agrees_and_plain_q_collapses():
    """The gain of the Riccati equation; q is fitted exactly, so its maximiser stays."""
    pytest.importorskip("torch")
    module = load("q_learning_step")
    assert module.verdict.status == "agree"
    bias, spread = module.spread_over_seeds(2, 0.05, 2)
    assert abs(bias) + spread < 0.03
    assert module.collapse(0.001, steps=300) > 0.5
    assert module.collapse(None, steps=300) < 0.2


def test_generation_as_control_agrees_with_the_grid_and_its_identity():
    pytest.importorskip("torch")
    module = load("score_control")
    assert module.identity.holds
    assert module.identity.distance > 0.4
    assert module.grid_error < 5e-3


@pytest.mark.slow
def test_pursuers_are_charged_what_the_best_evader_takes_from_them():
    """Against -clip(x / (T - t)) the evader runs at .6 and ends at .6 exp(-(1 - x)/.6).

    Up to x = 1 on either axis: x / (T - t) grows by .6 dt / (T - t) until it is 1.
    """
    pytest.importorskip("torch")
    module = load("pursuit")
    x = np.linspace(0, 1, 1001)
    caught = np.maximum(x - 0.4, 0) ** 2
    loses = 2 * np.max((0.6 * np.exp(-(1 - x) / 0.6)) ** 2 - caught)
    network, hopeful = module.judged.values()
    assert hopeful.status == "differ"
    assert hopeful.regret * hopeful.scale == pytest.approx(loses, rel=0.15)
    grid = module.truth.grid.nodes()[module.region.contains(module.truth.grid.nodes())]
    gap = np.abs(module.learned(grid, 0.0) - module.exact(grid, 0.0)).max()
    assert (gap > 2e-2 * network.scale) == (network.status == "differ")
    assert network.regret < 5e-3
    at_start = module.truth.value[0] - module.exact(module.truth.grid.nodes(), 0.0)
    assert (np.abs(at_start) <= module.truth.error_bar[0] + 1e-12).all()
