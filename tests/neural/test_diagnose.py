"""Every symptom is made on purpose, and named; a healthy run is left in peace."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.symptoms import look

LQR = hjb.catalogue.get("lqr")


class Quadratic(torch.nn.Module):
    """V = slope x^2 + constant."""

    def __init__(self, slope, constant, dtype=torch.float64):
        super().__init__()
        self.c = torch.nn.Parameter(torch.tensor([slope, constant], dtype=dtype))

    def forward(self, x):
        return self.c[0] * x[:, :1] ** 2 + self.c[1]


def names(learned):
    return neural.diagnose(learned, show=False).names


def root(sign):
    """P with rho P = q + 2 alpha P - P^2 / r_a; the negative one is no value."""
    return 0.1 * (-1.1 + sign * np.sqrt(1.1**2 + 40.0)) / 2.0


def candidate(P, dtype=torch.float64):
    module = Quadratic(-0.5 * P, -0.09 * P / 0.2, dtype)
    return neural.as_candidate(module, LQR)


def test_a_healthy_run_is_left_in_peace(capsys):
    found = neural.diagnose(neural.solve(LQR))
    assert found.findings == ()
    assert "nothing looks wrong" in capsys.readouterr().out


def test_the_wrong_riccati_root_destabilises_at_zero_residual():
    assert names(candidate(root(1.0))) == ()
    assert "destabilising policy" in names(candidate(root(-1.0)))


def test_a_wrong_constant_is_seen_in_simulation():
    module = Quadratic(-0.5 * root(1.0), 1.0)
    assert "value and policy disagree" in names(neural.as_candidate(module, LQR))


def test_single_precision_is_recognised():
    assert names(candidate(root(1.0), torch.float32)) == ("float32 floor",)


def bounded(controls, **changes):
    return hjb.ControlProblem(
        drift=LQR.drift, diffusion=0.3, reward=lambda x, a: a[..., 0] - x[..., 0] ** 2,
        controls=controls, domain=LQR.domain, discount=0.5, **changes,
    )  # fmt: skip


def test_a_policy_on_its_bound_everywhere_is_called_saturated():
    problem = bounded(hjb.Box(-0.5, 0.2), boundary=hjb.Reflecting())
    module = Quadratic(-1e-3, 0.0)
    assert "saturated actor" in names(neural.as_candidate(module, problem))


def test_curvature_that_rewards_noise_is_seen():
    problem = hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=lambda x, a: a[..., None],
        reward=lambda x, a: -(x[..., 0] ** 2) + 0.0 * a[..., 0],
        controls=hjb.Box(0.1, 0.5), domain=LQR.domain, discount=0.5,
        boundary=hjb.Reflecting(),
    )  # fmt: skip
    assert "wrong curvature" in names(neural.as_candidate(Quadratic(0.3, 0), problem))
    assert "wrong curvature" not in names(
        neural.as_candidate(Quadratic(-0.3, 0), problem)
    )


def test_the_report_tells_time_step_from_noise():
    coarse = neural.solve(LQR, neural.QLearning(neural.LittleQ(1), dt=0.3))
    assert "time step dominates" in names(coarse)
    few = neural.solve(LQR, neural.QLearning(samples=1600, dt=0.02))
    assert "noise dominates" in names(few)


@pytest.mark.parametrize(
    ("details", "name"),
    [
        ({"gradient_norms": [1.0, 1e9]}, "exploding gradients"),
        ({"gradient_norms": [1e-14, 1.0]}, "vanishing gradients"),
    ],
)
def test_gradients_are_judged_from_the_report(details, name):
    learned = neural.solve(LQR)
    report = replace(learned.report, details=details, status="diverged")
    assert names(replace(learned, report=report)) == ("not converged", name)


def test_a_growing_payoff_means_an_infinite_value():
    """dx = x dt, cost x^2, rho = .1: e^(-rho t) x_t^2 grows like e^(1.9 t)."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.4 * x + 0.0 * a,
        cost=lambda x, a: x[..., 0] ** 2 + a[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0), domain=hjb.Box(-200.0, 200.0), discount=0.5,
    )  # fmt: skip
    flat = neural.as_candidate(Quadratic(1e-6, 0.0), problem)
    small = hjb.Box(-0.5, 0.5)
    learned = type("Given", (), {
        "problem": problem, "region": small, "report": neural.solve(LQR).report,
        "value_at": staticmethod(flat.value_at),
        "gradient_at": staticmethod(flat.gradient_at),
        "control_at": staticmethod(flat.control_at),
    })()  # fmt: skip
    assert "inadmissible policy" in names(learned)


def test_something_else_is_refused():
    with pytest.raises(hjb.ProblemError, match="no report"):
        neural.diagnose(object())


def leaving_disc(reward=0.0):
    """Brownian motion in the unit disc takes e^x cos y where it leaves."""

    def value(x):
        xp = hjb.namespace(x)
        return xp.exp(x[..., 0]) * xp.cos(x[..., 1])

    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: reward + 0.0 * x[..., 0],
        domain=hjb.Box([-1.2] * 2, [1.2] * 2),
        exit=hjb.Exit(lambda x: 1.0 - hjb.namespace(x).sum(x * x, axis=-1), value),
        boundary=hjb.Reflecting(),
    )


def with_horizon():
    return hjb.ControlProblem(
        drift=lambda x, a, t: a - (1 + t) * x,
        diffusion=0.3,
        cost=lambda x, a: x[..., 0] ** 2 + a[..., 0] ** 2,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=1.0,
        terminal=lambda x: x[..., 0] ** 2,
    )


@dataclass(frozen=True)
class Shifted:
    """A model whose value is off by 1."""

    model: object

    def value(self, x):
        return self.model.value(x) + 1.0  # type: ignore[attr-defined]

    def __getattr__(self, name):
        return getattr(self.model, name)


@pytest.mark.parametrize("problem", [leaving_disc(), with_horizon()])
def test_answers_of_other_kinds_are_questioned_too(problem):
    learned = neural.solve(problem)
    evidence = look(learned, problem, learned.region, 400, 0)
    assert evidence.residual < 1e-5
    assert not names(learned)
    wrong = replace(learned, model=Shifted(learned.model))
    assert "value and policy disagree" in names(wrong)
