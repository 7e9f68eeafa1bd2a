"""Small real runs that go wrong on purpose: `neural.diagnose` says why."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural

LQR = hjb.catalogue.get("lqr")
LINE = neural.reverse_diffusion()
PATHS = neural.MonteCarlo(
    paths=32, dt=0.1, horizon=1.0, hidden=(8,), value_steps=5, max_policies=1
)
FORMS = [neural.LittleQ, neural.TemporalDifference]


def diagnosed(learned):
    """Findings by name; each has a number or a word of what was seen, and a remedy."""
    diagnosis = neural.diagnose(learned, show=False)
    assert all(f.seen and f.remedy for f in diagnosis.findings)
    return diagnosis.names


def q_run(form, problem=LQR, **options):
    networks = neural.QNetworks(**{"hidden": (8,), "sweeps": 3, "steps": 10, **options})
    method = neural.QLearning(form(approximator=networks), samples=800)
    return neural.solve(problem, method)


def score_run(**options):
    asked = {"hidden": (8,), "steps": 50, "batch": 16, "states": 160, "pool": 0}
    return neural.ScoreControl(**{**asked, **options}).solve(LINE)


def pushed(**fields):
    """dx = (a - x) dt + .3 dW, reflected at +-2."""
    given = {
        "drift": lambda x, a: a - x,
        "diffusion": 0.3,
        "reward": lambda x, a: x[..., 0] + 0.0 * a[..., 0],
        "controls": hjb.Box(-0.5, 0.2),
        "domain": hjb.Box(-2.0, 2.0),
        "discount": 0.5,
        "boundary": hjb.Reflecting(),
    }
    return hjb.ControlProblem(**{**given, **fields})


def test_one_sweep_of_q_learning_leaves_an_inadmissible_policy():
    """max_a Q = r dt after one sweep: a = 0, and the cost of x grows by e^(.3 t)."""
    growing = hjb.ControlProblem(
        drift=lambda x, a: 0.4 * x + a,
        diffusion=0.1,
        cost=lambda x, a: x[..., 0] ** 2 + 0.1 * a[..., 0] ** 2,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(-100.0, 100.0),
        discount=0.5,
    )
    data = neural.sample_transitions(growing, 1600, 0.05, hold=3, spread=100.0)
    small = hjb.Box(-0.5, 0.5)
    names = []
    for sweeps in (1, 2000):
        method = neural.QLearning(neural.TemporalDifference(max_sweeps=sweeps), data)
        names.append(diagnosed(neural.solve(growing, method, region=small)))
    assert "inadmissible policy" in names[0]
    assert "inadmissible policy" not in names[1]


def test_long_steps_make_gradients_explode():
    for form in FORMS:
        assert "exploding gradients" in diagnosed(q_run(form, learning_rate=1e6))
    assert "exploding gradients" in diagnosed(score_run(learning_rate=1e6))
    for run in (q_run(neural.LittleQ), score_run()):
        assert not {"exploding gradients", "vanishing gradients"} & {*diagnosed(run)}


@pytest.mark.slow
def test_long_steps_make_the_gradients_of_monte_carlo_explode():
    long = dataclasses.replace(PATHS, learning_rate=1e4)
    learned = neural.solve(LQR, neural.PolicyIteration(long))
    assert {"not converged", "exploding gradients"} <= {*diagnosed(learned)}


@pytest.mark.parametrize("form", FORMS)
def test_thirty_narrow_layers_pass_no_gradient_and_learn_a_constant(form):
    names = diagnosed(q_run(form, hidden=(4,) * 30, sweeps=1, steps=3))
    assert {"vanishing gradients", "constant value"} <= {*names}


def test_thirty_narrow_layers_pass_no_gradient_to_a_score():
    names = diagnosed(score_run(hidden=(4,) * 30, steps=3))
    assert "vanishing gradients" in names


@pytest.mark.parametrize("form", FORMS)
def test_weights_that_became_nan_are_named(form):
    names = diagnosed(q_run(form, learning_rate=1e300))
    assert {"not converged", "not a number"} <= {*names}


def test_a_score_that_became_nan_is_named():
    learned = score_run(learning_rate=1e300)
    assert learned.report.status == "diverged"
    assert {"not converged", "exploding gradients"} <= {*diagnosed(learned)}


def test_monte_carlo_says_why_its_first_fit_became_nan():
    long = dataclasses.replace(PATHS, learning_rate=1e300)
    with pytest.raises(hjb.ProblemError, match="smaller learning_rate"):
        neural.solve(LQR, neural.PolicyIteration(long))


def test_a_payoff_that_rewards_one_bound_everywhere_saturates_the_policy():
    assert diagnosed(neural.solve(pushed())) == ("saturated actor",)


def test_a_convex_payoff_with_noise_to_choose_has_the_wrong_curvature():
    convex = pushed(
        drift=lambda x, a: -x + 0.0 * a,
        diffusion=lambda x, a: a[..., None],
        reward=lambda x, a: x[..., 0] ** 2 - 0.1 * a[..., 0] ** 2,
        controls=hjb.Box(0.1, 0.5),
    )
    assert "wrong curvature" in diagnosed(neural.solve(convex))


def test_a_policy_learned_too_briefly_lets_paths_leave():
    unstable = hjb.catalogue.get("lqr", alpha=0.5)
    once = neural.QLearning(neural.TemporalDifference(max_sweeps=1), samples=1600)
    assert "paths leaving" in diagnosed(neural.solve(unstable, once))


class Bowl(torch.nn.Module):
    """V = slope x^2 + level, what a reader trains on the residual of the equation."""

    def __init__(self, slope):
        super().__init__()
        self.c = torch.nn.Parameter(torch.tensor([slope, 0.0], dtype=torch.float64))

    def forward(self, x):
        return self.c[0] * x[:, :1] ** 2 + self.c[1]


def trained_on_the_residual(slope):
    """L-BFGS on the mean square of rho V - max_a {r + f V' + sigma^2 V''/2}."""
    net, x = Bowl(slope), torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    fit = torch.optim.LBFGS(
        net.parameters(), max_iter=100, line_search_fn="strong_wolfe"
    )

    def loss():
        fit.zero_grad()
        V, V_x, V_xx = net(x), 2 * net.c[0] * x, 2 * net.c[0]
        a = V_x / 0.1
        best = -0.5 * (x**2 + 0.1 * a**2) + (-0.5 * x + a) * V_x + 0.045 * V_xx
        total = ((0.1 * V - best) ** 2).mean()
        total.backward()
        return total

    fit.step(loss)
    return loss().item(), neural.as_candidate(net, LQR)


def test_training_on_the_residual_alone_may_end_at_the_root_that_destabilises():
    """Both roots of the Riccati equation leave no residual; where it starts decides."""
    names = {}
    for slope in (-0.05, 0.1):
        residual, learned = trained_on_the_residual(slope)
        assert residual < 1e-8
        names[slope] = diagnosed(learned)
    assert names == {-0.05: (), 0.1: ("destabilising policy",)}
