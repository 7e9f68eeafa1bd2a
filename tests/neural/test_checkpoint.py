"""Killed runs go on from their file with the bits of runs never killed."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.checkpoint import Checkpoint, adam_arrays, set_adam
from neural.evaluation import adam as adam_module
from neural.evaluation.residual_run import ResidualRun
from neural.score_targets import Stream


def same(one, two):
    x = one.region.sample(np.random.default_rng(0), 100)
    assert np.array_equal(one.value_at(x), two.value_at(x))
    assert np.array_equal(one.control_at(x), two.control_at(x))
    assert one.report.residuals == two.report.residuals
    assert one.report.checks == two.report.checks
    assert one.report.status == two.report.status


# --- residual --------------------------------------------------------------------


def residual(problem, path=None, seed=3, **options):
    evaluation = neural.Residual(hidden=(8, 8), checkpoint=path, **options)
    return neural.solve(problem, neural.PolicyIteration(evaluation), seed=seed)


def interval(price=1.0):
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: price + 0.0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.1,
        boundary=hjb.Dirichlet(0.0),
    )


def moving():
    return hjb.ControlProblem(
        drift=lambda x, a, t: a - 0.5 * (1 + t) * x,
        diffusion=0.4,
        cost=lambda x, a: x[..., 0] ** 2 + a[..., 0] ** 2,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-1.0], [1.0]),
        horizon=1.0,
        terminal=lambda x: hjb.namespace(x).cos(x[..., 0]),
    )


@pytest.mark.parametrize("calls", [1, 3, 7])
@pytest.mark.parametrize("direct", [True, False])
def test_residual_killed_between_policies_and_levels_goes_on(
    tmp_path, killed, calls, direct
):
    schedule = neural.NoiseSchedule(levels=3)
    options = {"schedule": schedule, "direct": direct, "max_policies": 3}
    whole, path = residual(interval(), **options), tmp_path / "run"
    with killed(ResidualRun, "_record", calls):
        residual(interval(), path, **options)
    assert path.exists() == (calls > 0)
    same(residual(interval(), path, **options), whole)
    # The file of a run that has ended gives its answer again.
    same(residual(interval(), path, **options), whole)


@pytest.mark.parametrize("calls", [50, 130, 240])
def test_residual_killed_in_adam_goes_on(tmp_path, killed, calls):
    options = {"adam_steps": 230, "max_policies": 2}
    problem = hjb.catalogue.get("manufactured", boundary=None)
    whole, path = residual(problem, **options), tmp_path / "run"
    owner, name = adam_module, "mean_square_residual"
    if calls > 230:
        owner, name, calls = ResidualRun, "_record", 0
    with killed(owner, name, calls):
        residual(problem, path, **options)
    same(residual(problem, path, **options), whole)


def test_residual_with_a_horizon_goes_on(tmp_path, killed):
    whole, path = residual(moving(), max_policies=3), tmp_path / "run"
    with killed(ResidualRun, "_record", 2):
        residual(moving(), path, max_policies=3)
    same(residual(moving(), path, max_policies=3), whole)


def test_checkpoint_does_not_change_the_answer(tmp_path):
    plain = residual(interval(), max_policies=2)
    same(residual(interval(), tmp_path / "run", max_policies=2), plain)


def test_file_of_another_run_is_refused(tmp_path):
    path, problem = tmp_path / "run", interval()
    residual(problem, path, max_policies=2)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        residual(problem, path, max_policies=3)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        residual(problem, path, 4, max_policies=2)
    wider = dataclasses.replace(problem, domain=problem.domain.inner(0.9))
    for other in (interval(1.1), wider):
        with pytest.raises(hjb.ProblemError, match="another problem"):
            residual(other, path, max_policies=2)


def test_truncated_or_foreign_file_is_refused(tmp_path):
    path, problem = tmp_path / "run", hjb.catalogue.get("lqr")
    solution = residual(problem, path, max_policies=1)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(hjb.ProblemError, match="truncated"):
        residual(problem, path, max_policies=1)
    solution.save(path)
    with pytest.raises(hjb.ProblemError, match="no checkpoint of Residual"):
        residual(problem, path, max_policies=1)


def test_broken_state_does_not_replace_a_good_one(tmp_path):
    file = Checkpoint.at(tmp_path / "run", "Residual", "same", np.zeros(1))
    file.keep({"w": np.ones(2)}, {"k": 1})
    file.keep({"w": np.array([1.0, np.nan])}, {"k": 2})
    arrays, state = file.resume() or ({}, {})
    assert np.array_equal(arrays["w"], np.ones(2))
    assert state == {"k": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_adam_comes_back_with_its_moments():
    def steps(net, fit, n):
        for _ in range(n):
            fit.zero_grad()
            (net(torch.ones(3, 2, dtype=torch.float64)) ** 2).sum().backward()
            fit.step()

    def fresh():
        net = torch.nn.Linear(2, 1, dtype=torch.float64)
        with torch.no_grad():
            net.weight.fill_(0.3)
            net.bias.fill_(-0.2)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1)

    one, fit = fresh()
    steps(one, fit, 3)
    arrays = adam_arrays("fit", fit)
    two, again = fresh()
    two.load_state_dict(one.state_dict())
    set_adam("fit", again, arrays)
    steps(one, fit, 4)
    steps(two, again, 4)
    assert torch.equal(one.weight, two.weight)


# --- Q-learning ------------------------------------------------------------------

NETWORKS = neural.QNetworks(hidden=(8,), sweeps=4, steps=10)
FORMS = [
    neural.LittleQ(1, NETWORKS),
    neural.LittleQ(2, NETWORKS),
    neural.TemporalDifference(NETWORKS),
]


def q_learning(form, path=None, seed=2, dt=0.05):
    method = neural.QLearning(form, samples=800, dt=dt, checkpoint=path)
    return neural.solve(hjb.catalogue.get("lqr"), method, seed=seed)


@pytest.mark.parametrize("form", FORMS, ids=["first", "second", "td"])
@pytest.mark.parametrize("calls", [1, 3])
def test_q_networks_go_on_from_their_last_sweep(tmp_path, killed, form, calls):
    whole, path = q_learning(form), tmp_path / "run"
    with killed(neural.QNetworks, "rate", 2 * calls):
        q_learning(form, path)
    assert path.exists()
    again = q_learning(form, path)
    same(again, whole)
    assert again.report.details == whole.report.details
    same(q_learning(form, path), whole)


def test_q_learning_refuses_a_file_of_another_run(tmp_path):
    path = tmp_path / "run"
    q_learning(FORMS[0], path)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        q_learning(FORMS[1], path)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        q_learning(FORMS[0], path, seed=5)
    with pytest.raises(hjb.ProblemError, match="other data"):
        q_learning(FORMS[0], path, dt=0.1)
    with pytest.raises(hjb.ProblemError, match="no checkpoint of Residual"):
        residual(hjb.catalogue.get("lqr"), path)


def test_linear_quadratic_class_takes_no_checkpoint():
    with pytest.raises(hjb.ProblemError, match="checkpoint= is for networks"):
        neural.QLearning(checkpoint="run")


# --- scores ----------------------------------------------------------------------


def score(path=None, pool=0, seed=1, problem=None, **options):
    method = neural.ScoreControl(
        hidden=(8,), steps=100, batch=16, states=160, pool=pool, checkpoint=path,
        **options,
    )  # fmt: skip
    return method.solve(problem or neural.reverse_diffusion(), seed=seed)


@pytest.mark.parametrize("pool", [0, 5000])
@pytest.mark.parametrize("calls", [31, 85])
def test_score_training_goes_on(tmp_path, killed, pool, calls):
    """Killed before and within the steps whose weights are averaged."""
    whole, path = score(pool=pool), tmp_path / "run"
    with killed(Stream, "next", calls):
        score(path, pool)
    y = np.linspace(-3, 3, 40)[:, None]
    for _ in range(2):
        again = score(path, pool)
        assert np.array_equal(again.score(y, 0.3), whole.score(y, 0.3))
        assert again.report.residuals == whole.report.residuals
        assert again.report.details == whole.report.details


def test_score_training_refuses_a_file_of_another_run(tmp_path):
    path = tmp_path / "run"
    score(path)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        score(path, learning_rate=1e-3)
    with pytest.raises(hjb.ProblemError, match="other options or another seed"):
        score(path, seed=2)
    shorter = dataclasses.replace(neural.reverse_diffusion(), horizon=2.0)
    with pytest.raises(hjb.ProblemError, match="another problem"):
        score(path, problem=shorter)
