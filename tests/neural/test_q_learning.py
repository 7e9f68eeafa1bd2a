"""Q-learning from transitions: bias and spread, bad input, and the same bits twice."""

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
import verification

LQR = hjb.catalogue.get("lqr")
P_GAIN = float(-LQR.exact.control(np.ones((1, 1)))[0, 0])
SHORT = neural.QNetworks(hidden=(8,), sweeps=3, steps=5)


def gain(policy):
    """K of a linear policy."""
    return float((policy(np.zeros((1, 1))) - policy(np.ones((1, 1))))[0, 0])


def gains(form, dt, seeds):
    method = neural.QLearning(form, dt=dt)
    found = [gain(method.learn(LQR, s, False).actor) for s in range(seeds)]
    error = np.array(found) / P_GAIN - 1.0
    return error.mean(), error.std()


def test_second_order_gain_is_near_the_riccati_gain():
    bias, spread = gains(neural.LittleQ(2), 0.05, 2)
    assert abs(bias) + spread < 0.03


@pytest.mark.slow
def test_second_order_gain_is_within_two_percent_over_twenty_seeds():
    bias, spread = gains(neural.LittleQ(2), 0.05, 20)
    assert abs(bias) + spread < 0.02


@pytest.mark.slow
def test_bias_falls_at_the_order_of_the_difference():
    """From dt = .2 to .1 the bias falls by 2^order; noise is small there."""
    for order in (1, 2):
        coarse, fine = (gains(neural.LittleQ(order), dt, 6)[0] for dt in (0.2, 0.1))
        assert abs(np.log2(coarse / fine) - order) < 0.6


def test_fitted_q_in_the_exact_class_agrees_with_little_q_but_sweeps_more():
    data = neural.sample_transitions(LQR, 20_000, 0.05, seed=3)
    plain, little = (
        neural.QLearning(form, data).learn(LQR, 0, False)
        for form in (neural.TemporalDifference(), neural.LittleQ(1))
    )
    assert gain(plain.actor) == pytest.approx(gain(little.actor), rel=2e-3)
    assert len(plain.residuals) > 1.0 / (0.1 * 0.05) > 5 * len(little.residuals)


def test_the_verdict_accepts_the_policy_and_rejects_a_coarse_one():
    truth = hjb.solve(LQR, 201)
    verdicts = []
    for dt in (0.05, 0.4):
        learned = neural.solve(
            LQR, neural.QLearning(neural.LittleQ(1 if dt > 0.1 else 2), dt=dt)
        )
        policy = verification.Candidate(control=learned.control_at)
        region = LQR.domain.inner(0.75)
        verdicts.append(verification.cross_check(policy, truth, region=region))
    assert [v.status for v in verdicts] == ["agree", "differ"]
    assert verdicts[0].regret < 1e-2


def test_two_states_and_a_cost_give_the_riccati_gain():
    reward = hjb.catalogue.get("lqr", A=[[-0.5, 0.3], [0.0, -0.2]], B=np.eye(2))
    cost = hjb.ControlProblem(
        drift=reward.drift, diffusion=reward.diffusion, controls=reward.controls,
        cost=lambda x, a: -reward.reward(x, a), domain=reward.domain, discount=0.1,
    )  # fmt: skip
    learned = neural.solve(cost, neural.QLearning(samples=60_000))
    x = learned.region.sample(np.random.default_rng(0), 100)
    wanted = reward.exact.control(x)
    assert np.linalg.norm(learned.control_at(x) - wanted) < 0.05 * np.linalg.norm(
        wanted
    )
    assert np.abs(learned.value_at(x) + reward.exact.value(x)).max() < 0.2


def test_gradient_is_that_of_the_value():
    learned = neural.solve(LQR, neural.QLearning())
    x, h = np.array([[0.7]]), 1e-4
    slope = (learned.value_at(x + h) - learned.value_at(x - h)) / (2 * h)
    assert learned.gradient_at(x)[0] == pytest.approx(slope, rel=1e-6)


class Environment:
    """The LQR as a stranger sees it: Euler steps, episodes of at most 40 steps."""

    def reset(self, *, seed=None):
        self.rng, self.age = np.random.default_rng(seed), 0
        self.x = self.rng.uniform(-1.5, 1.5, 1)
        return self.x, {}

    def step(self, a):
        reward, h = 0.0, 0.005
        for _ in range(10):
            reward += -0.5 * float(self.x[0] ** 2 + 0.1 * a[0] ** 2) * h
            self.x = self.x + (-0.5 * self.x + a) * h
            self.x = self.x + 0.3 * np.sqrt(h) * self.rng.standard_normal(1)
        self.age += 1
        out = bool(abs(self.x[0]) > 3)
        return self.x, reward, out, self.age >= 40, {}


def test_an_environment_is_learned_without_a_problem(tmp_path):
    box = hjb.Box(-4.0, 4.0)
    data = neural.environment_transitions(Environment(), box, 0.05, 20_000, hold=4)
    learned = neural.QLearning().fit(
        data, controls=box, domain=hjb.Box(-2.0, 2.0), discount=0.1
    )
    assert learned.problem is None
    assert gain(learned.control_at) == pytest.approx(P_GAIN, rel=0.1)
    again = neural.load(learned.save(tmp_path / "q"))
    x = np.linspace(-2, 2, 9)[:, None]
    assert np.array_equal(again.control_at(x), learned.control_at(x))
    assert np.abs(again.control_at(x)).max() <= 4.0


@pytest.mark.parametrize("form", [neural.LittleQ, neural.TemporalDifference])
def test_the_same_seed_gives_the_same_bits(form):
    method = neural.QLearning(form(approximator=SHORT), samples=2000)
    x = np.linspace(-1, 1, 5)[:, None]
    one, two = (neural.solve(LQR, method, seed=4) for _ in range(2))
    assert np.array_equal(one.value_at(x), two.value_at(x))
    assert np.array_equal(one.control_at(x), two.control_at(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "seeds"), [(torch.float64, 3), (torch.float32, 1)]
)
def test_networks_reach_ten_percent_in_policy_and_one_percent_in_regret(
    precision, seeds
):
    truth, region = hjb.solve(LQR, 401), LQR.domain.inner(0.75)
    x = np.linspace(-1.5, 1.5, 61)[:, None]
    for seed in range(seeds):
        form = neural.LittleQ(2, neural.QNetworks())
        method = neural.QLearning(form, precision=precision)
        learned = neural.solve(LQR, method, seed=seed)
        gap = np.linalg.norm(learned.control_at(x) - LQR.exact.control(x))
        assert gap < 0.1 * np.linalg.norm(LQR.exact.control(x))
        policy = verification.Candidate(control=learned.control_at)
        verdict = verification.cross_check(policy, truth, region=region)
        assert verdict.status == "agree", verdict


ARRAYS = (np.zeros((3, 1)), np.ones((3, 1)), np.zeros(3), np.zeros((3, 1)))


def test_bad_transitions_are_refused_with_the_row():
    x, a, r, y = ARRAYS
    broken = y.copy()
    broken[1] = np.nan
    with pytest.raises(hjb.ProblemError, match=r"next_states\[1\]"):
        neural.Transitions(x, a, r, broken, 0.1)
    with pytest.raises(hjb.ProblemError, match="dt"):
        neural.Transitions(x, a, r, y, 0.0)
    with pytest.raises(hjb.ProblemError, match="payoffs has shape"):
        neural.Transitions(x, a, r[:, None], y, 0.1)
    with pytest.raises(hjb.ProblemError, match="later_payoffs"):
        neural.Transitions(x, a, r, y, 0.1, later_states=y, integrated=True)


def test_unusable_questions_are_refused():
    with pytest.raises(hjb.ProblemError, match="later_states"):
        neural.QLearning(transitions=neural.Transitions(*ARRAYS, 0.1)).learn(
            LQR, 0, False
        )
    data = neural.Transitions(*ARRAYS, 0.1)
    with pytest.raises(hjb.ProblemError, match="never changes"):
        neural.QLearning(neural.LittleQ(1), data).learn(LQR, 0, False)
    x = np.random.default_rng(0).random((200, 1))
    follow = neural.Transitions(x, -x, x[:, 0], x, 0.1)
    with pytest.raises(hjb.ProblemError, match="span"):
        neural.QLearning(neural.LittleQ(1), follow).learn(LQR, 0, False)
    with pytest.raises(hjb.ProblemError, match="dt"):
        neural.QLearning(dt=0.0)
    with pytest.raises(hjb.ProblemError, match="reset"):
        neural.environment_transitions(object(), hjb.Box(-1.0, 1.0), 0.1)
    faces = hjb.catalogue.get("lqr", boundary=hjb.Dirichlet(0.0))
    with pytest.raises(hjb.MethodMismatch, match="paths end"):
        neural.solve(faces, neural.QLearning())
