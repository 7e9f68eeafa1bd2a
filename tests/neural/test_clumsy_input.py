"""Every learner against the same slips: starts, functions, steps, points, networks."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
import verification

LQR = hjb.catalogue.get("lqr")
LINE = neural.reverse_diffusion()
RESIDUAL = neural.Residual(hidden=(6,), max_policies=1)
PATHS = neural.MonteCarlo(
    paths=32, dt=0.1, horizon=1.0, hidden=(8,), value_steps=5, max_policies=1
)
EVALUATIONS = {
    "LeastSquares": neural.LeastSquares(),
    "MonteCarlo": PATHS,
    "Residual": RESIDUAL,
}
METHODS = {
    **{name: neural.PolicyIteration(e) for name, e in EVALUATIONS.items()},
    "QLearning": neural.QLearning(samples=400),
}
NETWORKS = neural.QNetworks(hidden=(4,), sweeps=1, steps=2)
every_evaluation = pytest.mark.parametrize(
    "evaluation", EVALUATIONS.values(), ids=EVALUATIONS
)
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def refused(words):
    return pytest.raises(hjb.ProblemError, match=words)


# --- starting policies -------------------------------------------------------------


@every_evaluation
@pytest.mark.parametrize(
    ("start", "words"),
    [
        (lambda x: x[:, 0], r"start returned shape \(\d+,\)"),
        (lambda x: np.zeros((len(x), 3)), "start returned shape"),
        (lambda x: None, "what start returned is no array"),
        (lambda x: 1j * x, "numbers are complex"),
        (lambda x: torch.zeros(x.shape, requires_grad=True), r"x\.detach\(\)"),
        (lambda x: np.nan * x, "not in the control set"),
        (lambda x: x @ np.ones(7), "start failed on states of shape"),
        (torch.nn.Linear(1, 1), "called with NumPy arrays x"),
        (np.zeros((1, 1)), "must be a function of x"),
    ],
)
def test_unusable_start_is_refused_by_every_evaluation(evaluation, start, words):
    with refused(words):
        neural.solve(LQR, neural.PolicyIteration(evaluation, start))


@every_evaluation
def test_start_of_infinite_value_is_refused_by_every_evaluation(evaluation):
    growing = hjb.catalogue.get("lqr", alpha=0.5)
    idle = neural.PolicyIteration(evaluation, lambda x: 0.0 * x)
    with refused("not admissible.*Start from a policy that stabilises"):
        neural.solve(growing, idle)
    eager = neural.PolicyIteration(
        evaluation, lambda x: np.tile([0.5, 0.2], (len(x), 1))
    )
    with refused("not admissible.*consumes less"):
        neural.solve(hjb.catalogue.get("merton"), eager)


def test_whole_numbers_are_a_start():
    """Exact in float64, so nothing is lost; as tensors, too."""
    wanted = neural.solve(LQR, neural.PolicyIteration(start=lambda x: 0.0 * x))
    for zeros in (
        lambda x: np.zeros(x.shape, int),
        lambda x: torch.zeros(x.shape, dtype=torch.int64),
    ):
        found = neural.solve(LQR, neural.PolicyIteration(start=zeros))
        assert found.value_at(np.ones((1, 1))) == wanted.value_at(np.ones((1, 1)))


# --- functions of the problem ------------------------------------------------------


def spoilt(field, change, kind):
    """The LQR with one function changed on tensors or on arrays."""
    given = {
        "drift": LQR.drift,
        "reward": LQR.reward,
        "diffusion": lambda x, a: (0.3 + 0.1 * x + 0.0 * a)[..., None],
        "discount": lambda x: 0.1 + 0.01 * x[..., 0] ** 2,
    }[field]

    def function(*arguments):
        out = given(*arguments)
        return change(out) if isinstance(out, kind) else out

    return dataclasses.replace(LQR, exact=None, **{field: function})


ON_TENSORS = {
    "float32": (lambda v: v.float(), "returned torch.float32"),
    "int": (lambda v: v.long(), "returned torch.int64"),
    "detached": (lambda v: v.detach(), "is lost"),
    "numpy": (lambda v: v.detach().numpy(), "returned ndarray"),
}
ON_ARRAYS = {
    "float32": (lambda v: v.astype(np.float32), "returned float32"),
    "complex": (lambda v: v + 0j, "complex128"),
    "objects": (lambda v: v.astype(object), "object"),
    "nan": (lambda v: np.nan * v, "not finite"),
}


@pytest.mark.parametrize("fault", ON_TENSORS)
@pytest.mark.parametrize("field", ["drift", "reward", "diffusion", "discount"])
def test_function_that_spoils_tensors_is_named(field, fault):
    change, words = ON_TENSORS[fault]
    with refused(f"'{field}'.*{words}"):
        neural.solve(spoilt(field, change, torch.Tensor))


@pytest.mark.parametrize("fault", ON_ARRAYS)
@pytest.mark.parametrize("field", ["drift", "reward"])
def test_function_that_spoils_arrays_is_named(field, fault):
    change, words = ON_ARRAYS[fault]
    with refused(f"'{field}'.*{words}"):
        neural.solve(spoilt(field, change, np.ndarray))


@every_method
def test_every_learner_names_the_function_before_it_works(method):
    for change, words in ON_TENSORS.values():
        with refused(f"'drift'.*{words}"):
            neural.solve(spoilt("drift", change, torch.Tensor), method)


def single(x):
    return (-(x[..., 0] ** 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("terminal", {"horizon": 1.0, "terminal": single}),
        ("exit.region", {"exit": hjb.Exit(lambda x: 1.0 + single(x))}),
        ("exit.value", {"exit": hjb.Exit(lambda x: 1 - x[..., 0] ** 2, single)}),
        ("stop", {"stop": single}),
        ("g of face", {"boundary": hjb.Dirichlet(single)}),
    ],
)
def test_what_is_paid_at_ends_is_float64_or_named(name, fields):
    with refused(f"'{name}.*returned float32"):
        neural.solve(dataclasses.replace(LQR, exact=None, **fields))


# --- regions -----------------------------------------------------------------------


def test_region_of_whole_numbers_is_taken():
    learned = neural.solve(LQR, region=hjb.Box(torch.tensor([-1]), [1]))
    assert np.array_equal(learned.region.low, [-1.0])


@every_method
def test_region_outside_the_domain_is_refused_by_every_learner(method):
    with refused("reaches outside"):
        neural.solve(LQR, method, region=hjb.Box(-9, 9))


@pytest.mark.parametrize(
    "low", ["a", 1j, torch.tensor([-1.0], requires_grad=True), [[-1.0]], np.nan]
)
def test_bounds_that_are_no_numbers_are_refused(low):
    with refused("Box: low"):
        hjb.Box(low, 1.0)


def test_a_box_leaves_the_array_it_was_given_alone():
    bounds = np.array([-1.0])
    box = hjb.Box(bounds, 1.0)
    bounds[0] = -3.0
    assert np.array_equal(box.low, [-1.0])


# --- points and times --------------------------------------------------------------

UNREAD = {
    "gradient": torch.tensor([[0.5]], requires_grad=True),
    "complex": np.array([[0.5j]]),
    "text": "a",
    "ragged": [[1.0], [1.0, 2.0]],
    "objects": np.array([[None]]),
}


@pytest.fixture(scope="module")
def answers():
    """A solution of every quick learner, a timed one, a grid's and a user's network."""
    timed = dataclasses.replace(
        LQR, horizon=1.0, terminal=lambda x: 0.0 * x[..., 0], exact=None
    )
    return [
        *(neural.solve(LQR, METHODS[k]) for k in METHODS if k != "MonteCarlo"),
        neural.solve(timed),
        neural.as_candidate(torch.nn.Linear(1, 1), LQR),
        hjb.solve(LQR, 33),
    ]


@pytest.mark.parametrize("question", ["value_at", "gradient_at", "control_at"])
def test_points_that_are_no_real_numbers_are_refused(answers, question):
    for answer in answers:
        for x in UNREAD.values():
            with refused(r"no array of real numbers.*Give a NumPy array"):
                getattr(answer, question)(x)


def test_whole_numbers_and_tensors_are_points(answers):
    for answer in answers:
        wanted = answer.value_at(np.array([[1.0], [0.0]]))
        for x in (np.array([[1], [0]]), torch.tensor([[1], [0]]), [[1], [0]]):
            assert np.array_equal(answer.value_at(x), wanted)


@pytest.mark.parametrize("t", [np.nan, 9.0, -1, "a", None, [0.0, 0.5]])
def test_what_is_no_time_is_refused(answers, t):
    timed = next(a for a in answers if isinstance(a, neural.TimedLearnedSolution))
    with refused(r"^t "):
        timed.value_at(np.zeros((2, 1)), t=t)


@pytest.mark.parametrize("dt", [0, -0.1, np.nan, "a", None])
def test_every_step_of_time_is_a_number_above_zero(answers, dt):
    x = np.random.default_rng(0).standard_normal((100, 1))
    environment = Walk(lambda n, x: (x, 0.0, False, False, {}))
    for ask in (
        lambda: neural.MonteCarlo(dt=dt),
        lambda: neural.QLearning(dt=dt),
        lambda: neural.Transitions(x, x, x[:, 0], x, dt),
        lambda: neural.sample_transitions(LQR, 100, dt),
        lambda: neural.environment_transitions(environment, hjb.Box(-1.0, 1.0), dt),
        lambda: neural.ReverseDiffusion(LINE.target, LINE.process, dt),
        lambda: answers[0].simulate([0.0], 1.0, dt, 3, 0),
    ):
        with refused("> 0|0 < dt <= horizon"):
            ask()


@pytest.mark.parametrize("steps", [0, -1, 1.5, "a", None, True])
def test_every_count_of_steps_is_a_whole_number(steps):
    grid = hjb.Grid(hjb.Box([-6.0], [6.0]), (41,))
    for ask in (
        lambda: neural.identity(LINE, LINE.control, paths=4, steps=steps),
        lambda: neural.fokker_planck(LINE, grid, [0.5], steps=steps),
        lambda: verification.check_score(LINE.score, LINE, points=steps),
        lambda: neural.LeastSquares(features=steps or 0),
        lambda: neural.MonteCarlo(max_policies=steps or 0),
    ):
        with refused("give a whole number"):
            ask()


# --- transitions -------------------------------------------------------------------


class Walk:
    """An environment whose n-th step answers `answer(n, x)`."""

    def __init__(self, answer):
        self.answer, self.n = answer, 0

    def reset(self, *, seed=None):
        self.x = np.zeros(1)
        return self.x, {}

    def step(self, a):
        self.n += 1
        return self.answer(self.n, np.tanh(self.x + 0.1 * np.asarray(a)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda n, x: (np.nan * x, 0.0, False, False, {}),
            "state is .nan., not finite",
        ),
        (lambda n, x: (x, np.nan, False, False, {}), "reward is .nan., not finite"),
        (lambda n, x: (x, None, False, False, {}), "reward is no array"),
        (lambda n, x: ("a", 0.0, False, False, {}), "state is no array"),
        (lambda n, x: ({"x": x}, 0.0, False, False, {}), "state is no array"),
        (lambda n, x: (np.zeros(1 + (n > 3)), 0.0, False, False, {}), "keeps its size"),
        (lambda n, x: (x, np.zeros(2), False, False, {}), "a reward is one"),
        (lambda n, x: (x, 0.0, False, {}), "step must return"),
    ],
)
def test_unusable_answer_of_an_environment_is_named(answer, words):
    with refused(f"environment_transitions: .*{words}"):
        neural.environment_transitions(Walk(answer), hjb.Box(-1.0, 1.0), 0.1, 40)


def test_what_a_crash_returned_is_left_out():
    def crash(n, x):
        return (np.nan * x, np.nan, True, False, {}) if n % 20 == 0 else good(n, x)

    def good(n, x):
        return torch.tensor(x), 0.0, False, False, {}

    data = neural.environment_transitions(Walk(crash), hjb.Box(-1.0, 1.0), 0.1, 80)
    assert np.isfinite(data.states).all()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (lambda x, rng: np.zeros(3), "returned 3 numbers, the control set has 1"),
        (lambda x, rng: np.nan * x, "the policy's control is .nan., not finite"),
        (lambda x: x, "the policy failed at x"),
    ],
)
def test_unusable_policy_of_an_environment_is_named(policy, words):
    still = Walk(lambda n, x: (x, 0.0, False, False, {}))
    with refused(words):
        neural.environment_transitions(
            still, hjb.Box(-1.0, 1.0), 0.1, 40, policy=policy
        )


@pytest.mark.parametrize("field", ["states", "controls", "payoffs", "next_states"])
def test_nan_whole_tensors_and_nothing_are_no_transitions(field):
    x = np.random.default_rng(0).standard_normal((50, 1))
    good = {"states": x, "controls": x, "payoffs": x[:, 0], "next_states": x, "dt": 0.1}
    broken = np.array(good[field])
    broken[7] = np.nan
    for value, words in (
        (broken, rf"{field}\[7\].*Leave these transitions out"),
        (torch.ones(broken.shape, dtype=torch.int64), rf"{field}\.double\(\)"),
        (None, f"{field} is no array"),
    ):
        with refused(words):
            neural.Transitions(**{**good, field: value})


# --- networks of a user ------------------------------------------------------------


class Network(torch.nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change, self.scale = change, torch.nn.Parameter(torch.ones(1))

    def forward(self, x, t=None):
        return self.change(x * self.scale)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: y.repeat(1, 3), "returned shape"),
        (lambda y: y.sum(), "returned shape"),
        (lambda y: y.long(), "torch.int64"),
        (lambda y: y.detach().numpy(), "returned"),
        (lambda y: y @ torch.ones(7), "failed on states"),
        (lambda y: torch.log(y - 9.0), "NaN at x|not finite at y"),
    ],
)
def test_unusable_network_is_refused_as_value_and_as_score(change, words):
    with refused(words):
        verification.cross_check(Network(change), LQR)
    with refused(words):
        verification.check_score(Network(change), LINE)


def test_network_cut_off_from_x_is_refused():
    with refused("does not depend on x through torch"):
        verification.cross_check(Network(lambda y: y.detach()), LQR)


def test_weights_of_whole_numbers_are_refused():
    layer = torch.nn.Linear(1, 1, bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor([[1]]), requires_grad=False)
    with refused("failed on states.*dtype"):
        verification.cross_check(layer, LQR)


@pytest.mark.parametrize("moody", [torch.nn.Dropout(), torch.nn.BatchNorm1d(4)])
def test_network_in_training_mode_is_refused_where_it_matters(moody):
    net = torch.nn.Sequential(torch.nn.Linear(1, 4), moody, torch.nn.Linear(4, 1))
    with refused(r"module\.eval\(\)"):
        neural.as_candidate(net, LQR)
    with refused(r"module\.eval\(\)"):
        neural.as_score(net, LINE)
    assert np.isfinite(neural.as_candidate(net.eval(), LQR).value_at([[0.0]])).all()


def test_network_that_insists_on_float32_keeps_its_own_precision():
    net = Network(lambda y: y.float() @ torch.ones(1, 1))
    slope = neural.as_candidate(net, LQR).gradient_at(np.zeros((2, 1)))
    assert slope == pytest.approx(np.ones((2, 1)))


def test_network_that_is_constant_has_slope_zero():
    net = Network(lambda y: torch.ones(len(y), 1) * net.scale)
    assert not neural.as_candidate(net, LQR).gradient_at(np.zeros((2, 1))).any()


# --- scores ------------------------------------------------------------------------


def test_questions_to_the_exact_score_that_make_no_sense_are_refused():
    for ask in (LINE.score, LINE.value, LINE.control):
        for x in UNREAD.values():
            with refused("no array of real numbers"):
                ask(x, 0.5)
        for t in (np.nan, "a", [0.5]):
            with refused("t "):
                ask(np.zeros((2, 1)), t)
        assert ask(torch.tensor([[1]]), 0.5) == ask(np.ones((1, 1)), 0.5)


@pytest.mark.parametrize("control", [lambda x: x, lambda x, t: 1j * x])
def test_control_that_fails_in_the_identity_is_named(control):
    with refused("identity: "):
        neural.identity(LINE, control, paths=4, steps=2)


def test_parts_of_a_reverse_process_are_checked():
    for target, process in ((np.zeros((3, 1)), LINE.process), (LINE.target, "ou")):
        with refused("give a neural"):
            neural.ReverseDiffusion(target, process)
    with refused("must be a function"):
        neural.GeneralForward(1.0, lambda t: 1.0, lambda y, t: 0.0 * y[..., 0])  # type: ignore[arg-type]
    flat = neural.GeneralForward(
        lambda y, t: y[..., 0], lambda t: 1.0, lambda y, t: y[..., 0]
    )
    grid = hjb.Grid(hjb.Box([-6.0], [6.0]), (41,))
    with refused("one vector a state"):
        neural.fokker_planck(neural.ReverseDiffusion(LINE.target, flat), grid, [0.5])


# --- nothing half-trained is written -----------------------------------------------


def test_no_file_is_left_by_a_learner_that_refuses(tmp_path):
    path = tmp_path / "run"
    cut = spoilt("drift", lambda v: v.detach(), torch.Tensor)
    idle = hjb.catalogue.get("lqr", alpha=0.5)
    general = neural.GeneralForward(
        LINE.process.drift, LINE.process.noise, LINE.process.divergence
    )
    elsewhere = neural.Transitions(
        *(np.full((20, 1), 99.0),) * 2, np.zeros(20), np.full((20, 1), 99.0), 0.1
    )
    q = neural.QLearning(neural.LittleQ(1, NETWORKS), elsewhere, checkpoint=path)
    score = neural.ScoreControl(hidden=(4,), steps=2, pool=0, checkpoint=path)
    runs = [
        lambda: neural.solve(LQR, q),
        lambda: score.solve(neural.ReverseDiffusion(LINE.target, general)),
    ]
    for evaluation in (PATHS, RESIDUAL):
        kept = dataclasses.replace(evaluation, checkpoint=path)
        method = neural.PolicyIteration(kept)
        still = neural.PolicyIteration(kept, lambda x: 0.0 * x)
        runs += [
            lambda m=method: neural.solve(cut, m),
            lambda m=still: neural.solve(idle, m),
        ]
    for run in runs:
        with pytest.raises(hjb.ProblemError):
            run()
        assert not list(tmp_path.iterdir())
