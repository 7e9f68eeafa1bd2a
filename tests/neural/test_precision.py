"""In which numbers and where networks are trained (kinds: contract, law)."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.evaluation.training import Training
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
def test_unusable_numbers_and_devices_are_refused(option):
    with pytest.raises(hjb.ProblemError, match=next(iter(option))):
        neural.MonteCarlo(**option)


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
