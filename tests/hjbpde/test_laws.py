"""Laws every discounted control problem obeys, on problems drawn at random.

They hold for the monotone scheme itself (order 1), whatever the step, because its
discrete solution is the value of a controlled Markov chain.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import hjbpde as hjb

SEEDS = st.integers(0, 2**32 - 1)
MONOTONE = hjb.PolicyIteration(order=1)
CLOSE = 1e-8
RULES = [hjb.Reflecting(), None, {(0, "low"): hjb.Reflecting()}]


class Draw:
    """A random one-dimensional problem as parts that can be changed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.c = rng.normal(size=6)
        self.rho = 0.2 + rng.random()
        self.noise = 0.2 + 0.5 * rng.random()
        self.reach = 0.3 + rng.random()
        self.rule: object = hjb.Reflecting()
        self.weight = rng.random()

    def drift(self, x, a):
        return self.c[0] * np.sin(2 * x + self.c[1]) + a

    def reward(self, x, a):
        y = x[..., 0]
        bumps = self.c[2] * np.cos(y + self.c[3]) + self.c[4] * np.abs(y - self.c[5])
        return bumps - self.weight * a[..., 0] ** 2

    def problem(self, **changes) -> hjb.ControlProblem:
        fields = {
            "drift": self.drift,
            "diffusion": self.noise,
            "reward": self.reward,
            "controls": hjb.Box(-self.reach, self.reach),
            "domain": hjb.Box(-1.0, 1.5),
            "discount": self.rho,
            "boundary": self.rule,
        }
        return hjb.ControlProblem(**{**fields, **changes})

    def value(self, **changes):
        return hjb.solve(self.problem(**changes), 41, MONOTONE).value


@given(SEEDS, st.floats(-3, 3))
def test_a_constant_reward_adds_the_constant_over_the_rate(seed, c):
    draw = Draw(seed)
    more = draw.value(reward=lambda x, a: draw.reward(x, a) + c)
    gap = more - draw.value() - c / draw.rho
    assert np.abs(gap).max() < CLOSE * (1 + np.abs(more).max())


@given(SEEDS, st.floats(0.01, 100))
def test_scaling_all_payoffs_scales_the_value(seed, s):
    draw = Draw(seed)
    scaled = draw.value(reward=lambda x, a: s * draw.reward(x, a))
    gap = scaled - s * draw.value()
    assert np.abs(gap).max() < CLOSE * (s + np.abs(scaled).max())


@given(SEEDS)
def test_a_larger_reward_never_gives_a_smaller_value(seed):
    draw = Draw(seed)
    better = draw.value(
        reward=lambda x, a: draw.reward(x, a) + np.maximum(np.sin(5 * x[..., 0]), 0)
    )
    base = draw.value()
    assert (better - base).min() > -CLOSE * (1 + np.abs(base).max())
    assert (better - base).max() > 0


@given(SEEDS, st.floats(1.1, 4))
def test_a_larger_control_set_never_gives_a_smaller_value(seed, factor):
    draw = Draw(seed)
    base = draw.value()
    wide = draw.value(controls=hjb.Box(-factor * draw.reach, factor * draw.reach))
    assert (wide - base).min() > -CLOSE * (1 + np.abs(base).max())


@given(SEEDS, st.sampled_from(RULES))
def test_a_cost_is_minus_a_reward(seed, rule):
    draw = Draw(seed)
    draw.rule = rule
    as_cost = hjb.solve(
        draw.problem(reward=None, cost=lambda x, a: -draw.reward(x, a)), 41
    )
    as_reward = hjb.solve(draw.problem(), 41)
    assert np.array_equal(as_cost.value, -as_reward.value)
    assert np.array_equal(as_cost.control, as_reward.control)
    assert np.array_equal(as_cost.error_bar, as_reward.error_bar)


@given(SEEDS)
def test_boundary_data_of_a_cost_are_costs(seed):
    draw = Draw(seed)
    draw.rule = hjb.Dirichlet(2.0)
    as_reward = draw.value()
    as_cost = draw.value(
        reward=None,
        cost=lambda x, a: -draw.reward(x, a),
        boundary=hjb.Dirichlet(-2.0),
    )
    assert np.allclose(as_cost, -as_reward, atol=1e-12)
    assert as_cost[0] == -2.0


@given(SEEDS)
def test_a_mirrored_problem_has_the_mirrored_value(seed):
    draw = Draw(seed)
    mirrored = draw.value(
        drift=lambda x, a: -draw.drift(-x, -a),
        reward=lambda x, a: draw.reward(-x, -a),
        domain=hjb.Box(-1.5, 1.0),
    )
    value = draw.value()
    gap = mirrored[::-1] - value
    assert np.abs(gap).max() < CLOSE * (1 + np.abs(value).max())


@settings(max_examples=8)
@given(SEEDS)
def test_permuted_axes_permute_the_value(seed):
    rng = np.random.default_rng(seed)
    c = rng.normal(size=5)

    def problem(order):
        back = np.argsort(order)

        def drift(x, a):
            y = x[..., back]
            f = np.stack([c[0] * y[..., 1], np.sin(y[..., 0] + c[1])], -1)
            return (f + a[..., back])[..., order]

        def reward(x, a):
            y, b = x[..., back], a[..., back]
            return np.cos(c[2] * y[..., 0]) * (y[..., 1] + c[3]) - (
                b[..., 0] ** 2 + 2 * b[..., 1] ** 2
            )

        return hjb.ControlProblem(
            drift=drift,
            diffusion=np.diag(np.array([0.5, 0.8])[order]),
            reward=reward,
            controls=hjb.Box([-1, -1], [1, 1]),
            domain=hjb.Box(np.array([-1.0, -2.0])[order], np.array([1.0, 1.0])[order]),
            discount=0.7,
            boundary=hjb.Reflecting(),
        )

    one = hjb.solve(problem(np.array([0, 1])), (17, 21), MONOTONE).value
    two = hjb.solve(problem(np.array([1, 0])), (21, 17), MONOTONE).value
    assert np.abs(two.T - one).max() < CLOSE * (1 + np.abs(one).max())


@given(SEEDS)
def test_the_optimal_value_is_no_less_than_that_of_any_policy(seed):
    draw = Draw(seed)
    problem = draw.problem()
    best = hjb.solve(problem, 41, MONOTONE)
    own = hjb.evaluate(problem, 41, best.control)
    a = draw.reach * np.sin(draw.c[0] + 3 * best.grid.nodes())
    other = hjb.evaluate(problem, 41, a)
    slack = CLOSE * (1 + np.abs(best.value).max())
    assert (best.value - other.value).min() > -slack
    assert np.abs(best.value - own.value).max() < slack


@given(SEEDS)
def test_generator_rows_are_rates(seed):
    draw = Draw(seed)
    L = hjb.solve(draw.problem(), 41, MONOTONE).generator().toarray()
    off = L - np.diag(np.diag(L))
    assert off.min() >= 0
    assert np.abs(L.sum(1)).max() < 1e-10 * np.abs(L).max()


@given(SEEDS)
def test_generator_and_value_satisfy_the_discrete_equation(seed):
    """rho V = r(x, a) + L V with the generator returned, by its definition."""
    draw = Draw(seed)
    solution = hjb.solve(draw.problem(), 41, MONOTONE)
    x = solution.grid.nodes()
    right = draw.reward(x, solution.control) + solution.generator() @ solution.value
    gap = draw.rho * solution.value - right
    assert np.abs(gap).max() < CLOSE * (1 + np.abs(solution.value).max())
