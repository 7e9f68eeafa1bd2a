"""Scores, their control problem and its identity, against closed forms and a grid."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
import verification
from neural.posterior_mean import posterior_mean

LINE, PLANE = neural.reverse_diffusion(), neural.reverse_diffusion(dimension=2)
PRESERVING = neural.VariancePreserving()
SHORT = neural.ScoreControl(
    hidden=(32, 32), steps=400, batch=128, states=4000, pool=20_000
)


@pytest.mark.parametrize("process", [neural.OrnsteinUhlenbeck(0.7, 1.1), PRESERVING])
def test_marginals_solve_the_moment_equations(process):
    """d fade / dt = -rate fade and d s^2 / dt = -2 rate s^2 + sigma^2."""
    t, h = np.linspace(0.1, 0.9, 9), 1e-5
    slope = (process.fade(t + h) - process.fade(t - h)) / (2 * h)
    assert slope == pytest.approx(-process.rate(t) * process.fade(t), rel=1e-7)
    square = (process.spread(t + h) ** 2 - process.spread(t - h) ** 2) / (2 * h)
    wanted = process.noise(t) ** 2 - 2 * process.rate(t) * process.spread(t) ** 2
    assert square == pytest.approx(wanted, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("problem", [LINE, PLANE])
def test_mixture_score_is_the_gradient_of_the_log_density(problem):
    law = problem.law(0.2)
    y, h = law.sample(50, np.random.default_rng(0)), 1e-5
    for axis in range(problem.dimension):
        e = h * np.eye(problem.dimension)[axis]
        slope = (law.log_density(y + e) - law.log_density(y - e)) / (2 * h)
        assert law.score(y)[:, axis] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_value_solves_the_hjb_equation_of_the_article():
    """-V_t = 1/2 |u*|^2 - div mu + (mu + s u*) V_x + 1/2 s^2 V_xx, equation (3)."""
    x, t, h = np.linspace(-3, 3, 41)[:, None], 2.6, 1e-4
    v = {k: LINE.value(x + k * h, t) for k in (-1, 0, 1)}
    v_t = (LINE.value(x, t + h) - LINE.value(x, t - h)) / (2 * h)
    v_x, v_xx = (v[1] - v[-1]) / (2 * h), (v[1] - 2 * v[0] + v[-1]) / h**2
    s, u = LINE.noise(t), LINE.control(x, t)[:, 0]
    mu = -LINE.process.drift(x, LINE.horizon - t)[:, 0]
    div = -LINE.process.divergence(x, LINE.horizon - t)
    right = 0.5 * u**2 - div + (mu + s * u) * v_x + 0.5 * s**2 * v_xx
    assert -v_t == pytest.approx(right, abs=1e-5)
    assert u == pytest.approx(-s * v_x, abs=1e-6)


def score_error(score, problem, t):
    y = problem.law(t).sample(4000, np.random.default_rng(7))
    exact = problem.score(y, t)
    return np.sqrt(((score(y, t) - exact) ** 2).sum() / (exact**2).sum())


def test_fokker_planck_score_converges_at_second_order():
    errors = []
    for n in (201, 401):
        grid = hjb.Grid(hjb.Box([-6.0], [6.0]), (n,))
        found = neural.fokker_planck(LINE, grid, [0.1, 1.0], steps=n)
        assert found.density[-1].sum() * 12 / (n - 1) == pytest.approx(1, abs=1e-6)
        errors.append([score_error(found.score, LINE, t) for t in (0.1, 1.0)])
    orders = np.log2(np.array(errors[0]) / errors[1])
    assert np.abs(orders - 2).max() < 0.2
    assert max(errors[1]) < 1e-3


def test_fokker_planck_in_the_plane_and_without_marginals():
    grid = hjb.Grid(hjb.Box([-5.0, -5.0], [5.0, 5.0]), (61, 61))
    general = neural.GeneralForward(
        PLANE.process.drift, PLANE.process.noise, PLANE.process.divergence
    )
    same = neural.ReverseDiffusion(PLANE.target, general, 3.0)
    found = neural.fokker_planck(same, grid, [0.5], steps=12)
    assert score_error(found.score, PLANE, 0.5) < 2e-2


def test_the_identity_holds_for_right_and_wrong_controls_alike():
    controls = {
        "exact": LINE.control,
        "weak": lambda x, t: 0.7 * LINE.control(x, t),
        "bent": lambda x, t: LINE.control(x, t) + 0.5 * np.sin(3 * x),
    }
    found = {
        name: neural.identity(LINE, u, paths=600, steps=100)
        for name, u in controls.items()
    }
    assert all(one.holds for one in found.values()), found
    assert found["exact"].distance == 0
    # Null test: what the time step adds to the exact control, it adds to others.
    bent = found["bent"]
    assert abs(bent.difference - bent.null) < 0.5 * abs(bent.null) + 4 * bent.error
    assert found["weak"].distance > 0.4 > 0.1 < bent.distance


@pytest.mark.slow
def test_what_the_identity_misses_is_the_bias_of_the_time_step():
    """Euler is of weak order 1: a quarter of the step, a quarter of the gap.

    The gap of u* itself, the null test, is the same gap on the same noise.
    """
    gaps, apart = {}, {}
    for steps in (50, 200):
        runs = [
            neural.identity(
                LINE,
                lambda x, t: LINE.control(x, t) + 0.5 * np.sin(3 * x),
                paths=2000, steps=steps, seed=seed,
            )
            for seed in range(5)
        ]  # fmt: skip
        assert all("discretisation bias" in str(r) or "noise" in str(r) for r in runs)
        gaps[steps] = np.mean([r.difference for r in runs])
        apart[steps] = np.mean([r.difference - r.null for r in runs])
        # Far beyond sampling noise, whose deviation falls like paths^(-1/2).
        assert gaps[steps] > 3.0 * np.mean([r.error for r in runs]) / np.sqrt(5)
    assert abs(np.log2(gaps[50] / gaps[200]) / 2 - 1) < 0.35
    assert abs(apart[200]) < 0.5 * gaps[200]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_posterior_mean_is_the_weighted_mean_of_all_draws(d):
    rng = np.random.default_rng(d)
    own, pool = rng.standard_normal((40, d)), rng.standard_normal((700, d))
    s, fade = np.exp(rng.uniform(-2, 0, 40)), rng.uniform(0.3, 1, 40)
    y = fade[:, None] * own + s[:, None] * rng.standard_normal((40, d))
    found, share = posterior_mean(y, own, pool, fade, s, enough=np.inf)
    everyone = np.concatenate(
        [own[:, None], np.broadcast_to(pool, (40, 700, d))], axis=1
    )
    left = ((y[:, None] - fade[:, None, None] * everyone) ** 2).sum(-1)
    w = np.exp(-left / (2 * s[:, None] ** 2))
    # 700 draws (64 parts of 10) are cut to 640; weights below e^-8 are dropped.
    w[:, 641:] = 0.0
    w /= w.sum(1, keepdims=True)
    assert found == pytest.approx((w[:, :, None] * everyone).sum(1), abs=3e-3)
    assert share == pytest.approx(w[:, 0], abs=3e-3)


def test_a_pool_too_thin_for_the_dimension_is_not_used():
    far = neural.GaussianMixture([1.0], np.zeros((1, 8)), [1.0])
    problem = neural.ReverseDiffusion(far, neural.OrnsteinUhlenbeck(), 1.0)
    thin = neural.ScoreControl((8,), steps=3, batch=16, states=64, pool=500)
    learned = thin.solve(problem)
    assert learned.report.details["own_share"] > 0.05
    alone = neural.ScoreControl((8,), steps=3, batch=16, states=64, pool=0)
    assert alone.solve(problem).report.details["own_share"] == 1.0


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_training_improves_on_the_gaussian_and_samples_follow(precision):
    learned = dataclasses.replace(SHORT, precision=precision).solve(LINE)
    raw = learned.network.gaussian
    for t in (0.1, 0.3):
        gaussian = score_error(lambda y, s: raw(y, np.full(len(y), s)), LINE, t)
        assert score_error(learned.score, LINE, t) < 0.6 * gaussian
    x = learned.samples(2000, steps=60)
    assert x.shape == (2000, 1)
    wanted = LINE.target.sample(20_000, np.random.default_rng(1))
    assert x.mean() == pytest.approx(wanted.mean(), abs=0.2)
    assert x.std() == pytest.approx(wanted.std(), rel=0.1)


def test_same_seed_same_bits_and_the_file_gives_them_back(tmp_path):
    tiny = neural.ScoreControl(hidden=(8,), steps=5, batch=16, pool=0)
    one, two = tiny.solve(PLANE, seed=3), tiny.solve(PLANE, seed=3)
    y = np.random.default_rng(0).standard_normal((6, 2))
    assert np.array_equal(one.score(y, 0.4), two.score(y, 0.4))
    path = one.save(tmp_path / "score")
    again = neural.load_score(path, PLANE)
    assert np.array_equal(again.score(y, 0.4), one.score(y, 0.4))
    assert [p.name for p in tmp_path.iterdir()] == ["score"]
    with pytest.raises(hjb.ProblemError, match="load_score"):
        neural.load(path)
    with pytest.raises(hjb.ProblemError, match="was learned for"):
        neural.load_score(path, neural.ReverseDiffusion(PLANE.target, PRESERVING, 1.0))


class Module(torch.nn.Module):
    """The exact score of LINE, times a factor, as a user's network."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, y, t):
        return self.factor * torch.from_numpy(LINE.score(y.numpy(), float(t[0])))


def test_check_score_accepts_a_right_module_and_names_the_fault_of_a_wrong_one():
    asked = {"points": 2000, "paths": 200, "steps": 50, "times": [0.05, 0.5]}
    assert verification.check_score(Module(1.0), LINE, **asked).status == "agree"
    slightly = verification.check_score(Module(1.05), LINE, **asked)
    assert slightly.status == "differ"
    assert slightly.errors[0.5] == pytest.approx(0.05, rel=1e-6)

    def noise(y, t):
        return -LINE.score(y, t) * neural.OrnsteinUhlenbeck().spread(t)

    wrong = verification.check_score(noise, LINE, **asked)
    assert "predicts the noise" in str(wrong)


def test_cross_check_takes_scores():
    verdict = verification.cross_check(Module(1.05), LINE, times=[0.5])
    assert isinstance(verdict, verification.ScoreVerdict)
    assert verdict.status == "differ"
    assert "at t = 0.5" in verdict.reasons[0]
    good = verification.cross_check(Module(1.0), LINE, times=[0.1, 0.5])
    assert good.status == "agree"
    with pytest.raises(hjb.ProblemError, match="no region"):
        verification.cross_check(Module(1.0), LINE, budget=1.0)


def test_bad_input_is_refused():
    general = neural.GeneralForward(
        LINE.process.drift, LINE.process.noise, LINE.process.divergence
    )
    unknown = neural.ReverseDiffusion(LINE.target, general)
    for ask in (
        lambda: unknown.score(np.zeros((1, 1)), 1.0),
        lambda: SHORT.solve(unknown),
    ):
        with pytest.raises(hjb.ProblemError, match="no exact marginals"):
            ask()
    drawn = neural.ReverseDiffusion(neural.Samples(np.arange(6.0)[:, None]))
    with pytest.raises(hjb.ProblemError, match="samples alone"):
        drawn.score(np.zeros((1, 1)), 1.0)
    with pytest.raises(hjb.ProblemError, match="positive"):
        neural.GaussianMixture([1.0], [[0.0]], [-1.0])
    with pytest.raises(hjb.ProblemError, match="finite"):
        neural.Samples([[0.0], [np.nan]])
    with pytest.raises(hjb.ProblemError, match="shape"):
        neural.as_score(lambda y, t: y[:, 0], LINE)(np.zeros((2, 1)), 1.0)
    with pytest.raises(hjb.ProblemError, match="failed on states"):
        neural.as_score(torch.nn.Linear(3, 1), LINE)
    with pytest.raises(hjb.ProblemError, match="> 0"):
        neural.OrnsteinUhlenbeck(theta=0.0)
    with pytest.raises(hjb.ProblemError, match="schedule"):
        neural.ReverseDiffusion(LINE.target, PRESERVING, 2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "precision"),
    [(LINE, torch.float64), (LINE, torch.float32), (PLANE, torch.float64)],
)
def test_learned_score_is_within_two_percent(problem, precision):
    learned = neural.ScoreControl(precision=precision).solve(problem)
    verdict = verification.check_score(learned, problem)
    assert verdict.status == "agree", verdict
