"""What is saved comes back bit for bit; anything else is refused."""

import numpy as np
import pytest

import hjbpde as hjb
import neural

SHORT = neural.MonteCarlo(
    paths=64, dt=0.1, horizon=2.0, hidden=(16,), value_steps=20, max_policies=2
)


@pytest.mark.parametrize("evaluation", [neural.LeastSquares(), SHORT])
def test_solution_comes_back_bit_for_bit(tmp_path, evaluation):
    problem = hjb.catalogue.get("lqr")
    learned = neural.solve(problem, neural.PolicyIteration(evaluation))
    path = learned.save(tmp_path / "lqr.safetensors")
    again, bare = neural.load(path, problem), neural.load(path)
    x = learned.region.sample(np.random.default_rng(0), 40)
    for name in ("value_at", "gradient_at", "hessian_at", "control_at"):
        assert np.array_equal(getattr(learned, name)(x), getattr(again, name)(x))
    assert np.array_equal(bare.value_at(x), learned.value_at(x))
    assert again.report.to_dict() == learned.report.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["lqr.safetensors"]


def test_greedy_policy_needs_the_problem(tmp_path):
    path = neural.solve(hjb.catalogue.get("lqr")).save(tmp_path / "lqr")
    with pytest.raises(hjb.ProblemError, match="needs the problem"):
        neural.load(path).control_at(np.zeros((1, 1)))


def test_truncated_foreign_and_missing_files_are_refused(tmp_path):
    path = neural.solve(hjb.catalogue.get("lqr")).save(tmp_path / "lqr")
    cut = tmp_path / "cut"
    cut.write_bytes(path.read_bytes()[:200])
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"not ours at all")
    for bad in (cut, foreign):
        with pytest.raises(hjb.ProblemError, match="not a file of ours"):
            neural.load(bad)
    with pytest.raises(hjb.ProblemError, match="no file"):
        neural.load(tmp_path / "absent")


def test_problem_of_another_domain_is_refused(tmp_path):
    path = neural.solve(hjb.catalogue.get("lqr")).save(tmp_path / "lqr")
    with pytest.raises(hjb.ProblemError, match="was learned on"):
        neural.load(path, hjb.catalogue.get("lqr", half_width=3.0))
