"""What Residual, QLearning and ScoreControl refuse, and that they say what to do."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
import verification

LQR = hjb.catalogue.get("lqr")
SMALL = neural.Residual(hidden=(6,), max_policies=1)


def learn(problem=LQR, start=None, evaluation=SMALL, **options):
    return neural.solve(problem, neural.PolicyIteration(evaluation, start), **options)


def changed(**fields):
    return dataclasses.replace(LQR, **fields)


def in_torch_only(change):
    """Drift x + a, spoilt on tensors."""

    def drift(x, a):
        f = x + a
        return change(f) if isinstance(f, torch.Tensor) else f

    return changed(drift=drift)


# --- residual --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (lambda x: x[:, 0], "start returned shape"),
        (lambda x: np.nan * x, "not in the control set"),
        (lambda x: x @ np.ones(7), "start failed on states of shape"),
    ],
)
def test_unusable_start_is_refused(start, words):
    with pytest.raises(hjb.ProblemError, match=words):
        learn(start=start)


def test_inadmissible_start_is_refused():
    problem = hjb.catalogue.get("lqr", alpha=0.5)
    with pytest.raises(hjb.ProblemError, match="Start from a policy that stabilises"):
        learn(problem, lambda x: 0.0 * x)


def test_start_that_nothing_would_read_is_refused():
    direct = dataclasses.replace(SMALL, direct=True)
    with pytest.raises(hjb.ProblemError, match="leave start=None"):
        learn(start=lambda x: 0.0 * x, evaluation=direct)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (hjb.Box(-9.0, 9.0), "reaches outside"),
        (hjb.Box([-0.1] * 2, [0.1] * 2), "region has 2 axes"),
        ((-1, 1), r"give an hjb\.Box"),
    ],
)
@pytest.mark.parametrize("method", [neural.PolicyIteration(SMALL), neural.QLearning()])
def test_region_outside_the_domain_is_refused(method, region, words):
    with pytest.raises(hjb.ProblemError, match=words):
        neural.solve(LQR, method, region=region)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.float(), "'drift' returned torch.float32"),
        (lambda f: f.long(), "'drift' returned torch.int64"),
        (lambda f: f.detach(), "gradient of 'drift' in x is lost"),
        (lambda f: f.detach().numpy(), "'drift' returned ndarray"),
    ],
)
@pytest.mark.parametrize("timed", [False, True])
def test_function_that_loses_gradient_or_precision_is_named(change, words, timed):
    problem = in_torch_only(change)
    if timed:
        problem = dataclasses.replace(
            problem, horizon=1.0, terminal=lambda x: x[..., 0] ** 2
        )
    with pytest.raises(hjb.ProblemError, match=words):
        learn(problem)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": 5}, "give the widths"),
        ({"hidden": "ab"}, "give the widths"),
        ({"hidden": (2.5,)}, "a width in hidden = 2.5"),
        ({"adam_steps": 2.5}, "adam_steps = 2.5; give a whole number, 0 or more"),
        ({"max_policies": True}, "max_policies = True"),
        ({"points_per_weight": np.inf}, "points_per_weight = inf"),
        ({"learning_rate": np.nan}, "learning_rate = nan"),
        ({"tolerance": "a"}, "tolerance = 'a'"),
        ({"checkpoint": 3}, "checkpoint = 3; give the path of a file"),
    ],
)
def test_unusable_options_of_residual_are_refused(options, words):
    with pytest.raises(hjb.ProblemError, match=words):
        neural.Residual(**options)


def test_folder_is_no_checkpoint(tmp_path):
    for make in (neural.Residual, neural.ScoreControl):
        with pytest.raises(hjb.ProblemError, match="is a folder"):
            make(checkpoint=tmp_path)


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(hjb.ProblemError, match="seed"):
        learn(seed=seed)
    with pytest.raises(hjb.ProblemError, match="seed"):
        neural.ScoreControl().solve(neural.reverse_diffusion(), seed=seed)


def test_what_is_no_method_or_problem_is_refused():
    with pytest.raises(hjb.ProblemError, match="evaluation is <class"):
        neural.PolicyIteration(neural.Residual)  # type: ignore[arg-type]
    with pytest.raises(hjb.ProblemError, match="neural.solve: method is"):
        neural.solve(LQR, neural.ScoreControl())  # type: ignore[arg-type]
    with pytest.raises(hjb.ProblemError, match="takes a ReverseDiffusion"):
        neural.ScoreControl().solve(LQR)  # type: ignore[arg-type]


def test_nothing_is_written_by_a_run_that_is_refused(tmp_path):
    evaluation = dataclasses.replace(SMALL, checkpoint=tmp_path / "run")
    with pytest.raises(hjb.ProblemError, match="float32"):
        learn(in_torch_only(lambda f: f.float()), evaluation=evaluation)
    assert not list(tmp_path.iterdir())


def test_checkpoint_is_not_taken_for_a_solution(tmp_path):
    path = tmp_path / "run"
    learn(evaluation=dataclasses.replace(SMALL, checkpoint=path))
    with pytest.raises(hjb.ProblemError, match="give it as checkpoint="):
        neural.load(path)
    with pytest.raises(hjb.ProblemError, match="holds no score"):
        neural.load_score(path, neural.reverse_diffusion())


def test_direct_residual_bears_faces_that_gain_or_lose_their_say():
    """Rows of an artificial face come and go with the policy tried on a step."""
    options = {"direct": True, "hidden": (6,), "max_policies": 2}
    learned = learn(evaluation=neural.Residual(**options))
    assert np.isfinite(learned.report.residuals).all()


# --- Q-learning ------------------------------------------------------------------

RNG = np.random.default_rng(0)
X, A = RNG.standard_normal((2, 600, 1))
GOOD = {
    "states": X,
    "controls": A,
    "payoffs": -0.05 * (X[:, 0] ** 2 + A[:, 0] ** 2),
    "next_states": X + 0.05 * A + 0.1 * RNG.standard_normal((600, 1)),
    "dt": 0.05,
}
NETWORKS = neural.QNetworks(hidden=(4,), sweeps=1, steps=2)


def transitions(**fields):
    return neural.Transitions(**{**GOOD, **fields})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"states": np.where(np.arange(600)[:, None] == 3, np.nan, X)}, r"states\[3\]"),
        ({"dt": 0}, "dt = 0"),
        ({"dt": -0.1}, "dt = -0.1"),
        ({"dt": None}, "dt = None"),
        ({"states": X[:, 0]}, r"use x\[:, None\]"),
        ({"next_states": X[:5]}, "next_states has shape"),
        ({"payoffs": X}, "payoffs has shape"),
        ({"states": torch.ones(600, 1, dtype=torch.int64)}, r"give float64: states\."),
        ({"states": 3.0}, "one row a transition"),
        ({"states": X[:0]}, "at least one"),
        ({"states": [["a"]] * 600}, "no array of real numbers"),
        ({"states": [[1.0], [1.0, 2.0]]}, "no array of real numbers"),
        ({"states": X + 1j}, "no array of real numbers"),
    ],
)
def test_unusable_transitions_are_refused(fields, words):
    with pytest.raises(hjb.ProblemError, match=words):
        transitions(**fields)


def test_float_tensors_are_transitions():
    found = transitions(states=torch.tensor(X, requires_grad=True))
    assert np.array_equal(found.states, X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dt": 0.0}, "dt = 0.0; give a finite number > 0"),
        ({"dt": None}, "dt = None"),
        ({"samples": 2}, "samples = 2; give a whole number, 8 or more"),
        ({"samples": 100.5}, "samples = 100.5"),
        ({"spread": np.inf}, "spread = inf"),
    ],
)
def test_unusable_options_of_q_learning_are_refused(options, words):
    with pytest.raises(hjb.ProblemError, match=words):
        neural.QLearning(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": (0,)},
        {"hidden": "a"},
        {"sweeps": 1.5},
        {"learning_rate": np.nan},
        {"weight_decay": np.nan},
    ],
)
def test_unusable_options_of_q_networks_are_refused(options):
    with pytest.raises(hjb.ProblemError, match=next(iter(options))):
        neural.QNetworks(**options)


def test_transitions_that_are_elsewhere_are_refused():
    far = transitions(states=X + 99, next_states=GOOD["next_states"] + 99)
    method = neural.QLearning(neural.LittleQ(1), transitions=far)
    with pytest.raises(hjb.ProblemError, match="only 0% of the transitions"):
        neural.solve(LQR, method)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"controls": hjb.Box([-1.0] * 2, [1.0] * 2)}, "controls = Box"),
        ({"controls": hjb.Finite([[0.0], [1.0]])}, "controls = Finite"),
        ({"controls": None}, "controls = None"),
        ({"domain": hjb.Box([-9.0] * 2, [9.0] * 2)}, "domain = Box"),
        ({"discount": 0.0}, "discount = 0.0"),
    ],
)
def test_unusable_sets_of_a_fit_are_refused(sets, words):
    given = {"controls": hjb.Box(-1.0, 1.0), "domain": hjb.Box(-9.0, 9.0)}
    given = {**given, "discount": 0.1, **sets}
    with pytest.raises(hjb.ProblemError, match=words):
        neural.QLearning(neural.LittleQ(1)).fit(transitions(), **given)  # type: ignore[arg-type]


def test_payoffs_whose_squares_overflow_are_refused():
    huge = transitions(payoffs=1e300 * X[:, 0])
    method = neural.QLearning(neural.LittleQ(1, NETWORKS), transitions=huge)
    with pytest.raises(hjb.ProblemError, match="larger unit"):
        neural.solve(LQR, method)


# --- scores ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 2.5},
        {"batch": 0},
        {"pool": -1},
        {"pool": 0.5},
        {"hidden": (0,)},
        {"learning_rate": np.nan},
        {"first_time": 0.0},
        {"checkpoint": 3},
    ],
)
def test_unusable_options_of_score_control_are_refused(options):
    with pytest.raises(hjb.ProblemError, match=next(iter(options))):
        neural.ScoreControl(**options)


def test_process_without_marginals_has_no_exact_score():
    general = neural.GeneralForward(
        lambda y, t: -y, lambda t: 1.0, lambda y, t: 0.0 * y[..., 0] - 1.0
    )
    target = neural.reverse_diffusion().target
    problem = neural.ReverseDiffusion(target, general)
    asked = (
        lambda: problem.score(np.zeros((2, 1)), 0.5),
        lambda: neural.ScoreControl().solve(problem),
        lambda: problem.start(3, np.random.default_rng(0)),
    )
    for ask in asked:
        with pytest.raises(hjb.ProblemError, match=r"or compare with neural.fokker"):
            ask()


def test_draws_that_do_not_vary_are_refused():
    with pytest.raises(hjb.ProblemError, match="all points are the same"):
        neural.Samples(np.ones((50, 1)))


class Network(torch.nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change, self.scale = change, torch.nn.Parameter(torch.ones(1))

    def forward(self, y, t):
        return self.change(y * self.scale)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y[:, 0], "returned shape"),
        (lambda y: y.long(), "the module returned torch.int64"),
        (lambda y: (y, y), "the module returned tuple"),
        (lambda y: y * torch.nan, "not finite at y"),
        (lambda y: y @ torch.ones(7), "failed on states"),
    ],
)
def test_unusable_score_network_is_refused(change, words):
    with pytest.raises(hjb.ProblemError, match=words):
        verification.check_score(Network(change), neural.reverse_diffusion())


@pytest.mark.parametrize(
    ("y", "t", "words"),
    [
        (np.zeros((2, 1)), 9.0, "not one time"),
        (np.zeros((2, 1)), np.nan, "not one time"),
        (np.zeros((2, 1)), np.ones(2), "not one time"),
        (np.zeros((2, 2)), 0.5, "must be"),
        (np.full((2, 1), np.nan), 0.5, "is not finite"),
    ],
)
def test_unusable_question_to_a_score_is_refused(y, t, words):
    method = neural.ScoreControl(hidden=(4,), steps=2, batch=4, states=8, pool=0)
    learned = method.solve(neural.reverse_diffusion())
    with pytest.raises(hjb.ProblemError, match=words):
        learned.score(y, t)
    for count in (0, 2.5):
        with pytest.raises(hjb.ProblemError, match="samples: n"):
            learned.samples(count)  # type: ignore[arg-type]
