"""In which numbers and where networks are trained (kinds: contract, law)."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.evaluation.training import Training
from neural.score_targets import Stream
from neural.value_network import ValueNetwork

SHORT = neural.MonteCarlo(
    paths=64, dt=0.1, horizon=2.0, hidden=(16,), value_steps=20, max_policies=2
)
X = np.linspace(-1.5, 1.5, 31)[:, None]


def learned(options, name="lqr", **parameters):
    problem = hjb.catalogue.get(name, **parameters)
    return neural.solve(problem, neural.PolicyIteration(options), seed=3)


@pytest.mark.parametrize("actor", [neural.GreedyFit(), neural.Ascent()])
def test_networks_train_in_float32_and_answer_in_float64(actor, monkeypatch):
    seen = set()
    forward = neural.MLP.forward

    def spy(net, x):
        seen.add((x.dtype, net.weights[0].dtype))
        return forward(net, x)

    exact = learned(dataclasses.replace(SHORT, actor=actor))
    monkeypatch.setattr(neural.MLP, "forward", spy)
    rough = learned(dataclasses.replace(SHORT, actor=actor, precision=torch.float32))
    assert (torch.float32, torch.float32) in seen
    assert all(x == weight for x, weight in seen)
    assert rough.value_at(X).dtype == np.float64
    # The same run but for rounding, which a few hundred steps of Adam enlarge.
    gap = np.abs(rough.value_at(X) - exact.value_at(X)).max()
    assert 0 < gap < 1e-2 * np.abs(exact.value_at(X)).max()


@pytest.mark.parametrize("name", ["merton", "unit-ball"])
def test_rules_of_faces_and_exits_are_met_in_float32(name):
    answer = learned(dataclasses.replace(SHORT, precision=torch.float32), name)
    x = answer.region.sample(np.random.default_rng(0), 20)
    assert np.isfinite(answer.value_at(x)).all()
    assert isinstance(answer.model, ValueNetwork)
    assert answer.model.net.weights[0].dtype == torch.float64


@pytest.mark.slow
def test_a_run_in_float32_goes_on_from_its_checkpoint(tmp_path, killed):
    four = dataclasses.replace(SHORT, max_policies=4, precision=torch.float32)
    whole = learned(four)
    kept = dataclasses.replace(four, checkpoint=tmp_path / "run")
    with killed(Training, "step", 2):
        learned(kept)
    assert np.array_equal(learned(kept).value_at(X), whole.value_at(X))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_networks_train_on_a_gpu():
    near = learned(SHORT)
    far = learned(dataclasses.replace(SHORT, device="cuda"))
    gap = np.abs(far.value_at(X) - near.value_at(X)).max()
    assert gap < 1e-2 * np.abs(near.value_at(X)).max()


@pytest.mark.parametrize(
    "option", [{"precision": torch.float16}, {"precision": "double"}, {"device": "gpx"}]
)
@pytest.mark.parametrize(
    "learner", [neural.MonteCarlo, neural.QLearning, neural.ScoreControl]
)
def test_unusable_numbers_and_devices_are_refused(learner, option):
    words = f"{learner.__name__}: .*{next(iter(option))}"
    with pytest.raises(hjb.ProblemError, match=words):
        learner(**option)


@pytest.mark.parametrize("option", [{"precision": torch.float32}, {"device": "meta"}])
def test_the_linear_quadratic_class_has_no_networks_to_put_anywhere(option):
    with pytest.raises(hjb.ProblemError, match=f"{next(iter(option))}= is for net"):
        neural.QLearning(**option)


# --- transitions and scores ------------------------------------------------------

NETWORKS = neural.QNetworks(hidden=(8,), sweeps=4, steps=10)
LINE = neural.reverse_diffusion()


def q_answer(form, **options):
    """V and the controls that a short run on transitions finds at X."""
    method = neural.QLearning(form(approximator=NETWORKS), samples=800, **options)
    found = neural.solve(hjb.catalogue.get("lqr"), method, seed=2)
    return np.stack([found.value_at(X), found.control_at(X)[:, 0]])


def score_answer(pool, **options):
    """The score that a short run finds at X, t = .3."""
    method = neural.ScoreControl(
        hidden=(8,), steps=100, batch=16, states=160, pool=pool, **options
    )
    return method.solve(LINE, seed=1).score(X, 0.3).T


RUNS = {
    "little q": (q_answer, neural.LittleQ, neural.QNetworks, "rate", 6),
    "td": (q_answer, neural.TemporalDifference, neural.QNetworks, "rate", 6),
    "score, fixed states": (score_answer, 5000, Stream, "next", 85),
    "score, fresh states": (score_answer, 0, Stream, "next", 85),
}
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@pytest.fixture
def tensors_seen(monkeypatch):
    """Dtype and device of what networks read and of their weights, as pairs."""
    seen, forward = set(), neural.MLP.forward

    def spy(net, x):
        weight = net.weights[0]
        seen.add(((x.dtype, x.device.type), (weight.dtype, weight.device.type)))
        return forward(net, x)

    monkeypatch.setattr(neural.MLP, "forward", spy)
    return seen


@runs
def test_transitions_and_scores_are_learned_in_float32(run, tensors_seen):
    answer, given, *_ = run
    exact = answer(given)
    assert {one for one, _ in tensors_seen} == {(torch.float64, "cpu")}
    rough, again = (answer(given, precision=torch.float32) for _ in range(2))
    assert (torch.float32, "cpu") in {one for one, _ in tensors_seen}
    assert all(one == weight for one, weight in tensors_seen)
    assert rough.dtype == np.float64
    assert np.array_equal(rough, again)
    # The same run but for rounding, which a few hundred steps of Adam enlarge.
    gap = np.abs(rough - exact).max(axis=1)
    assert (0 < gap).all()
    assert (gap < 1e-2 * np.abs(exact).max(axis=1)).all()


@runs
def test_transitions_and_scores_in_float32_go_on_from_their_file(run, tmp_path, killed):
    answer, given, owner, name, calls = run
    whole = answer(given, precision=torch.float32)
    kept = {"precision": torch.float32, "checkpoint": tmp_path / "run"}
    with killed(owner, name, calls):
        answer(given, **kept)
    assert np.array_equal(answer(given, **kept), whole)
    with pytest.raises(hjb.ProblemError, match="other options"):
        answer(given, checkpoint=tmp_path / "run")


@pytest.fixture
def read_as_zero(monkeypatch):
    """A device that computes nothing but refuses tensors of another device.

    Whatever is read back from it is 0.
    """
    home, number = torch.Tensor.cpu, torch.Tensor.__float__

    def brought_home(tensor):
        if tensor.is_meta:
            return torch.zeros_like(tensor, device="cpu")
        return home(tensor)

    def read(tensor):
        return 0.0 if tensor.is_meta else number(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", brought_home)
    monkeypatch.setattr(torch.Tensor, "__float__", read)


@runs
@pytest.mark.usefixtures("read_as_zero")
def test_training_happens_on_the_device_asked_for(run, tensors_seen):
    answer, given, *_ = run
    answer(given, device="meta", precision=torch.float32)
    trained = (torch.float32, "meta"), (torch.float32, "meta")
    answered = (torch.float64, "cpu"), (torch.float64, "cpu")
    assert tensors_seen == {trained, answered}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lqr", "merton", "unit-ball"])
@pytest.mark.usefixtures("read_as_zero")
def test_monte_carlo_trains_on_the_device_asked_for(name, tensors_seen, monkeypatch):
    """All but L-BFGS, which reads numbers off the device to search along a line.

    `Ascent` brings its controls home, where the problem's functions are asked.
    """
    monkeypatch.setattr("neural.evaluation.training.settle", lambda *_: None)
    short = neural.MonteCarlo(
        paths=16, dt=0.1, horizon=0.5, hidden=(4,), value_steps=2, policy_steps=2,
        max_policies=1, device="meta", precision=torch.float32,
    )  # fmt: skip
    learned(short, name)
    trained = (torch.float32, "meta"), (torch.float32, "meta")
    answered = (torch.float64, "cpu"), (torch.float64, "cpu")
    assert trained in tensors_seen
    assert tensors_seen <= {trained, answered}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@runs
def test_transitions_and_scores_are_learned_on_a_gpu(run):
    answer, given, *_ = run
    near, far = answer(given), answer(given, device="cuda")
    gap = np.abs(far - near).max(axis=1)
    assert (gap < 1e-2 * np.abs(near).max(axis=1)).all()


def noiseless(precision, dt):
    """The LQR without noise learned from steps of dt, and the same steps."""
    problem = dataclasses.replace(hjb.catalogue.get("lqr"), diffusion=None, exact=None)
    data = neural.sample_transitions(problem, 800, dt, seed=2, hold=3, spread=4.0)
    form = neural.LittleQ(1, NETWORKS)
    method = neural.QLearning(form, data, precision=precision)
    return neural.solve(problem, method, seed=2), data


def test_diagnose_names_a_step_too_short_for_float32():
    for precision, dt, named in (
        (torch.float64, 1e-6, False),
        (torch.float32, 5e-2, False),
        (torch.float32, 1e-6, True),
    ):
        found, _ = noiseless(precision, dt)
        names = neural.diagnose(found, show=False).names
        assert ("float32 floor" in names) == named


def test_what_rounding_does_to_differences_of_v_is_what_the_report_says():
    """eps sup|V| / dt against the same network asked in both precisions."""
    found, data = noiseless(torch.float32, 1e-4)
    model, x, later = found.model, data.states, data.next_states
    assert isinstance(model, ValueNetwork)
    fine = (model.value(later) - model.value(x)) / data.dt
    model.net.float()
    rough = (model.value(later) - model.value(x)) / data.dt
    moved = float(np.sqrt(np.mean((rough - fine) ** 2)) / np.std(data.rates(1)))
    assert 0.1 < found.report.details["rounding"] / moved < 10.0


def test_answers_of_float32_runs_come_back_from_their_files(tmp_path):
    method = neural.QLearning(
        neural.LittleQ(approximator=NETWORKS), samples=800, precision=torch.float32
    )
    learned = neural.solve(hjb.catalogue.get("lqr"), method)
    again = neural.load(learned.save(tmp_path / "q"), hjb.catalogue.get("lqr"))
    assert np.array_equal(again.value_at(X), learned.value_at(X))
    assert np.array_equal(again.control_at(X), learned.control_at(X))
    tiny = neural.ScoreControl((8,), steps=5, batch=16, pool=0, precision=torch.float32)
    score = tiny.solve(LINE)
    kept = neural.load_score(score.save(tmp_path / "score"), LINE)
    assert np.array_equal(kept.score(X, 0.4), score.score(X, 0.4))


def test_common_random_numbers_leave_policies_to_differ_by_themselves():
    """The same policy meets the same states on the same noise, and others do not."""
    common = dataclasses.replace(SHORT, common_random_numbers=True)
    problem = hjb.catalogue.get("lqr")
    for options, same in ((common, True), (SHORT, False)):
        run = Training(options, problem, lambda x: -x, np.random.default_rng(0), seed=0)
        first, second = (
            run.rollout.payoffs(lambda x: -x, None, np.ones((8, 1)), run._random())[0]
            for _ in range(2)
        )
        assert np.array_equal(first, second) == same


@pytest.mark.slow
def test_common_random_numbers_let_a_run_settle():
    """What is left of the changes between policies is no noise of the paths."""
    options = dataclasses.replace(
        SHORT, paths=128, value_steps=60, max_policies=15, control_variate=False
    )
    ends = []
    for common in (False, True):
        report = learned(
            dataclasses.replace(options, common_random_numbers=common)
        ).report
        changes = [h["value_change"] for h in report.details["history"]]
        ends.append(np.mean(changes[-5:]))
    assert ends[1] < 0.5 * ends[0]
