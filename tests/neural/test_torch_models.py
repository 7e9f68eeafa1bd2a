"""Models written in torch alone, torch candidates, and the probe's messages."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.torch_model import device_of


class ArticleLQR:
    """The article's class: methods on (batch, d) tensors, reward (batch, 1)."""

    def __init__(self, dtype=torch.float64):
        self.A = torch.tensor([[-0.5]], dtype=dtype)
        self.B = torch.tensor([[1.0]], dtype=dtype)
        self.D = torch.tensor([[0.3]], dtype=dtype)

    def drift(self, x, a):
        return x @ self.A.T + a @ self.B.T

    def diffusion(self, x, a):
        return self.D.unsqueeze(0).expand(x.shape[0], -1, -1)

    def reward(self, x, a):
        x2 = (x * x).sum(-1, keepdim=True)
        return -0.5 * (x2 + 0.1 * (a * a).sum(-1, keepdim=True))


def article(model=None, **fields):
    return neural.from_torch(
        ArticleLQR() if model is None else model,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=0.1,
        **fields,
    )


def test_the_article_model_gives_the_catalogue_answer_on_grid_and_network():
    problem, exact = article(), hjb.catalogue.get("lqr").exact
    assert exact is not None
    x = np.linspace(-1.4, 1.4, 41)[:, None]
    learned, truth = neural.solve(problem), hjb.solve(problem, (201,))
    assert np.abs(learned.value_at(x) - exact.value(x)).max() < 1e-9
    assert np.abs(truth.value_at(x) - exact.value(x)).max() < 1e-6


class ArticleMerton:
    """The article's class on raw wealth."""

    def drift(self, x, a):
        pi, k = a[:, 0:1], a[:, 1:2]
        return (0.03 + pi * 0.05 - k) * x

    def diffusion(self, x, a):
        return (a[:, 0:1] * 0.2 * x).unsqueeze(-1)

    def reward(self, x, a):
        return -1.0 / (a[:, 1:2] * x).clamp(min=1e-8)


def test_the_article_merton_model_is_learned():
    known = hjb.catalogue.get("merton", axis="wealth")
    problem = neural.from_torch(
        ArticleMerton(),
        controls=known.controls,
        domain=known.domain,
        discount=0.05,
        boundary={face: known.faces[face] for face in known.faces},
    )
    learned = neural.solve(problem)
    x = known.domain.sample(np.random.default_rng(0), 100)
    assert known.exact is not None
    assert known.exact.control is not None
    value, control = known.exact.value(x), known.exact.control(x)
    assert np.abs(learned.value_at(x) - value).max() < 1e-4 * np.abs(value).max()
    np.testing.assert_allclose(learned.control_at(x), control, rtol=1e-2)


def test_report_is_plain_json():
    report = neural.solve(article()).report
    assert "history" in json.loads(json.dumps(report.to_dict()))["details"]


def test_a_model_is_asked_where_its_tensors_are():
    """Found among plain attributes, parameters and buffers."""

    class Plain:
        scale = 2.0

        def __init__(self):
            self.weight = torch.zeros(2, device="meta")

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.zeros(2, device="meta"))

    assert device_of(Plain()).type == "meta"
    assert device_of(Module()).type == "meta"
    assert device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert device_of(ArticleLQR(torch.float32)).type == "cpu"
    assert device_of(object()).type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_a_gpu_is_learned():
    model = ArticleLQR(torch.float64)
    for name, value in vars(model).items():
        if isinstance(value, torch.Tensor):
            setattr(model, name, value.cuda())
    x = np.linspace(-1, 1, 5)[:, None]
    here = neural.solve(article(ArticleLQR(torch.float64))).value_at(x)
    assert np.abs(neural.solve(article(model)).value_at(x) - here).max() < 1e-9


def test_float32_constants_are_raised_to_float64():
    x = np.linspace(-1.4, 1.4, 41)[:, None]
    exact = hjb.catalogue.get("lqr").exact
    assert exact is not None
    learned = neural.solve(article(ArticleLQR(torch.float32)))
    # 0.3 in float32 is off by 1.2e-8.
    assert np.abs(learned.value_at(x) - exact.value(x)).max() < 1e-7


def test_functions_take_any_leading_shape_of_arrays_and_tensors():
    problem = article()
    x, a = np.zeros((3, 4, 1)), np.ones((3, 4, 1))
    assert problem.drift_at(x, a).shape == (3, 4, 1)
    assert problem.payoff_at(x, a).shape == (3, 4)
    assert problem.diffusion_at(x, a).shape == (3, 4, 1, 1)
    tensors = torch.zeros(3, 4, 1, dtype=torch.float64), torch.ones(3, 4, 1)
    assert problem.payoff_at(tensors[0], tensors[1].double()).shape == (3, 4)


def test_missing_method_and_wrong_shape_are_named():
    class NoDrift:
        reward = diffusion = ArticleLQR.reward

    class Wide(ArticleLQR):
        def reward(self, x, a):
            return torch.zeros(len(x), 3, dtype=x.dtype)

    with pytest.raises(hjb.ProblemError, match="drift"):
        article(NoDrift())
    with pytest.raises(hjb.ProblemError, match="'reward' returned shape"):
        article(Wide())


class Bowl(torch.nn.Module):
    def __init__(self, width=1, dtype=torch.float32):
        super().__init__()
        self.P = torch.nn.Parameter(torch.tensor(0.266, dtype=dtype))
        self.width = width

    def forward(self, x):
        return (-0.5 * self.P * (x * x).sum(-1, keepdim=True)).repeat(1, self.width)


class Flat(Bowl):
    def forward(self, x):
        return super().forward(x)[:, 0]


@pytest.mark.parametrize("module", [Bowl(), Flat(), Bowl(dtype=torch.float64)])
def test_candidate_has_value_gradient_and_greedy_control(module):
    problem = hjb.catalogue.get("lqr")
    candidate = neural.as_candidate(module, problem)
    x = np.linspace(-1.5, 1.5, 12).reshape(3, 4, 1)
    np.testing.assert_allclose(
        candidate.value_at(x), -0.133 * x[..., 0] ** 2, rtol=1e-6, atol=1e-12
    )
    np.testing.assert_allclose(candidate.gradient_at(x), -0.266 * x, rtol=1e-6)
    np.testing.assert_allclose(candidate.control_at(x), -2.66 * x, rtol=1e-6)
    np.testing.assert_allclose(candidate.hessian_at(x)[..., 0, 0], -0.266, rtol=1e-6)


def test_module_of_wrong_output_shape_is_refused():
    problem = hjb.catalogue.get("lqr")
    with pytest.raises(hjb.ProblemError, match=r"returned shape \(2, 3\)"):
        neural.as_candidate(Bowl(3), problem)
    with pytest.raises(hjb.ProblemError, match="failed"):
        neural.as_candidate(torch.nn.Linear(4, 1), problem)
    with pytest.raises(hjb.ProblemError, match="neither"):
        neural.as_candidate("net", problem)


class Counting(torch.nn.Module):
    def forward(self, x):
        return x[:, 0].to(torch.int64)


def test_a_network_of_integers_is_refused():
    with pytest.raises(hjb.ProblemError, match="floating point"):
        neural.as_candidate(Counting(), hjb.catalogue.get("lqr"))


def test_solution_is_its_own_candidate():
    problem = hjb.catalogue.get("lqr")
    learned = neural.solve(problem)
    assert neural.as_candidate(learned, problem) is learned


def wrong(**change):
    return dataclasses.replace(hjb.catalogue.get("lqr", boundary=None), **change)


def half_root(x, a):
    xp = hjb.namespace(x)
    y = x[..., 0]
    safe = xp.where(y > 0, y, 0.0 * y)
    return xp.sqrt(safe) - a[..., 0] ** 2


def cut(x, a):
    frozen = x.detach() if isinstance(x, torch.Tensor) else x
    return -frozen + a


@pytest.mark.parametrize(
    ("field", "function", "text"),
    [
        ("drift", lambda x, a: np.sin(x) + a, "'drift' works on NumPy arrays but"),
        ("drift", lambda x, a: np.eye(1) @ x[..., None][..., 0] + a, "'drift'"),
        (
            "drift",
            lambda x, a: hjb.namespace(x).where(x > 0, 0.1, 0.2) + a,
            "'drift' gives other numbers",
        ),
        ("reward", half_root, "gradient of 'reward' in x on torch .* not finite"),
        ("drift", cut, "gradient of 'drift' in x is lost"),
        ("reward", lambda x, a: x[..., 0] * np.nan, "'reward' is"),
    ],
)
def test_probe_names_the_function_and_the_cause(field, function, text):
    with pytest.raises(hjb.ProblemError, match=text):
        neural.probe(wrong(**{field: function}))


LEARNABLE = [
    name
    for name in hjb.catalogue.names()
    # Modes and a second player need keywords that no learner passes yet.
    if not {"modes", "adversary"} & hjb.catalogue.get(name).special
]


@pytest.mark.parametrize("name", LEARNABLE)
def test_every_catalogue_problem_passes_the_probe(name):
    assert neural.probe(hjb.catalogue.get(name))


def test_solve_takes_only_problems():
    with pytest.raises(hjb.ProblemError, match="from_torch"):
        neural.solve(ArticleLQR())  # type: ignore[arg-type]
