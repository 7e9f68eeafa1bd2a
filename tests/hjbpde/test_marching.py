"""Problems with a horizon: options against closed forms and published values."""

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb

BENCHOP = {90.0: 2.758443856146076, 100.0: 7.485087593912603, 110.0: 14.702019669720769}


def timed(problem, *arguments, **options) -> hjb.TimedSolution:
    solution = hjb.solve(problem, *arguments, **options)
    assert isinstance(solution, hjb.TimedSolution)
    return solution


def at(*prices):
    return np.log(np.array(prices))[:, None]


def test_the_european_call_meets_its_published_values():
    """BENCHOP problem 1 (von Sydow et al. 2015): r .03, sigma .15, K 100, T 1."""
    problem = hjb.catalogue.get("european-call")
    solution = timed(problem, 801, hjb.Marching(levels=4), times=[0.0])
    error = np.abs(solution.value_at(at(*BENCHOP)) - list(BENCHOP.values()))
    assert error.max() < 2e-7
    assert (error <= solution.error_at(at(*BENCHOP))).all()


@pytest.mark.slow
def test_the_european_call_to_eight_digits():
    problem = hjb.catalogue.get("european-call")
    solution = timed(problem, 1601, hjb.Marching(steps=48, levels=5), times=[0.0])
    error = np.abs(solution.value_at(at(*BENCHOP)) - list(BENCHOP.values()))
    assert error.max() < 1e-8


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_every_halving_of_the_step_raises_the_order_in_time(levels):
    """Romberg: with k time grids the error falls as steps^-k."""
    problem = hjb.catalogue.get("european-call")

    def error(steps):
        method = hjb.Marching(steps=steps, levels=levels)
        solution = timed(problem, 801, method, times=[0.0])
        return np.abs(solution.value_at(at(100.0)) - BENCHOP[100.0])[0]

    order = np.log2(error(8) / error(16))
    assert abs(order - levels) < 0.35


def test_the_bar_covers_the_european_call_at_every_time():
    problem = hjb.catalogue.get("european-call")
    solution = timed(problem, 201)
    nodes = solution.grid.nodes()
    inside = solution.region.contains(nodes)
    for i, t in enumerate(solution.times):
        error = np.abs(solution.value[i] - problem.exact.value(nodes, t))[inside]
        assert np.mean(error <= solution.error_bar[i][inside]) >= 0.99


def test_the_american_put_meets_seydel():
    """Seydel, Tools for Computational Finance: 17.44876443 at S = K = 100."""
    problem = hjb.catalogue.get("american-put")
    solution = timed(problem, 801, hjb.Marching(steps=100), times=[0.0])
    error = abs(solution.value_at(at(100.0))[0] - 17.44876443)
    assert error < 1e-5
    assert error <= solution.error_at(at(100.0))[0]


def test_the_american_put_table():
    """Published binomial values to four digits (good to 1.5e-4)."""
    problem = hjb.catalogue.get("american-put", sigma=0.2, half_width=1.5)
    solution = timed(problem, 801, times=[0.0])
    published = [11.4928, 6.0903, 2.9866, 1.3672]
    found = solution.value_at(at(90.0, 100.0, 110.0, 120.0))
    assert np.abs(found - published).max() < 1.5e-4


def test_stopping_is_best_below_one_price_that_rises_with_time():
    problem = hjb.catalogue.get("american-put")
    solution = timed(problem, 401)
    prices = np.exp(solution.grid.axes[0])
    edges = [prices[s & (prices < 99.9)].max() for s in solution.stopping[:-1]]
    assert np.all(np.diff(edges) >= 0)
    assert 30 < edges[0] < edges[-1] < 100


def test_the_adversary_stops_where_the_controller_would_on_the_other_side():
    """Minimising -payoff with the adversary... is the same game seen from behind."""
    put = hjb.catalogue.get("american-put")
    x = put.domain

    def negative(x):
        return -put.terminal(x)

    behind = hjb.ControlProblem(
        drift=put.drift,
        diffusion=put.diffusion,
        cost=lambda x, a: 0.0 * x[..., 0],
        domain=x,
        discount=put.discount,
        horizon=put.horizon,
        terminal=negative,
        stop=hjb.Stop(negative, by="controller"),
    )
    one, two = (timed(p, 101, times=[0.0]) for p in (put, behind))
    assert np.array_equal(one.value, -two.value)


def test_time_enters_by_keyword_and_calendar_time_runs_forward():
    """V_t + r(t) = 0, V(T) = 0: V(t) = integral of r from t to T."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.1,
        reward=lambda x, a, t: np.cos(t) + 0.0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        horizon=2.0,
        terminal=0.0,
    )
    solution = timed(problem, 17)
    wanted = np.sin(2.0) - np.sin(solution.times)
    assert np.abs(solution.value - wanted[:, None]).max() < 1e-5
    assert solution.times[0] == 0.0
    assert np.all(solution.value[-1] == 0.0)


def test_a_linear_quadratic_problem_with_a_horizon_follows_riccati():
    """-P' = q - P^2/(2 c) ... for cost x^2 + c a^2, drift a: P = sqrt(c) tanh."""
    c, T, sigma = 0.5, 1.0, 0.3
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] ** 2 + c * a[..., 0] ** 2,
        controls=hjb.Box(-8.0, 8.0),
        domain=hjb.Box(-1.5, 1.5),
        horizon=T,
        terminal=0.0,
    )
    solution = timed(problem, 201, times=[0.0])
    root = np.sqrt(c)
    P = root * np.tanh(T / root)
    constant = sigma**2 * c * np.log(np.cosh(T / root))
    x = np.linspace(-1.0, 1.0, 9)[:, None]
    wanted = P * x[:, 0] ** 2 + constant
    error = np.abs(solution.value_at(x) - wanted)
    assert error.max() < 2e-3
    assert (error <= solution.error_at(x)).all()


@pytest.mark.parametrize(
    ("times", "text"), [([-0.1], "must lie in"), ([2.0], "must lie in")]
)
def test_times_outside_the_horizon_are_refused(times, text):
    problem = hjb.catalogue.get("european-call")
    with pytest.raises(hjb.ProblemError, match=text):
        timed(problem, 33, times=times)


def test_a_method_that_does_not_fit_names_the_one_that_does():
    problem = hjb.catalogue.get("european-call")
    with pytest.raises(hjb.MethodMismatch, match="hjb.Marching"):
        timed(problem, 33, hjb.PolicyIteration())
    with pytest.raises(hjb.MethodMismatch, match="hjb.PolicyIteration"):
        hjb.solve(hjb.catalogue.get("lqr"), 33, hjb.Marching())


def test_horizon_and_terminal_go_together():
    fields = {
        "drift": lambda x, a: 0 * x,
        "reward": lambda x, a: x[..., 0],
        "domain": hjb.Box(0.0, 1.0),
        "discount": 0.1,
    }
    with pytest.raises(hjb.ProblemError, match="go together"):
        hjb.ControlProblem(**fields, horizon=1.0)
    with pytest.raises(hjb.ProblemError, match="positive time"):
        hjb.ControlProblem(**fields, horizon=-1.0, terminal=0.0)


def test_two_volatilities_bound_each_fixed_one():
    """The dearest price is at least that of either constant volatility."""
    both = hjb.catalogue.get("uncertain-volatility")
    method = hjb.Marching(steps=16, levels=2)
    dear = timed(both, 81, method, times=[0.0])
    for sigma in (0.15, 0.25):
        one = hjb.ControlProblem(
            drift=both.drift,
            diffusion=both.diffusion,
            reward=both.reward,
            controls=hjb.Finite([sigma]),
            domain=both.domain,
            discount=both.discount,
            horizon=both.horizon,
            terminal=both.terminal,
        )
        fixed = timed(one, 81, method, times=[0.0])
        slack = dear.error_bar[0] + fixed.error_bar[0]
        assert np.all(dear.value[0] >= fixed.value[0] - slack)
    assert dear.value_at(at(100.0))[0] > fixed.value_at(at(100.0))[0] + 0.1


def test_a_timed_solution_saves_and_plots(tmp_path):
    solution = timed(hjb.catalogue.get("european-call"), 33)
    assert solution.save(tmp_path / "call.npz").exists()
    assert solution.at(0.5).value.shape == (33,)
    again = hjb.load(tmp_path / "call.npz")
    assert isinstance(again, hjb.TimedSolution)
    assert np.array_equal(again.times, solution.times)
    assert np.array_equal(again.value, solution.value)
    with pytest.raises(hjb.ProblemError, match="lies outside"):
        solution.at(1.5)
    solution.plot().savefig(tmp_path / "call.png")


def test_a_right_to_stop_that_beats_the_terminal_payoff_is_refused():
    problem = hjb.catalogue.get("american-put")
    generous = replace(problem, stop=lambda x: problem.terminal(x) + 1.0)
    with pytest.raises(hjb.ProblemError, match="stopping beats the terminal payoff"):
        hjb.solve(generous, 51)


@pytest.mark.parametrize(
    "options", [{"steps": 10**9}, {"steps": 0}, {"levels": 6}, {"order": 3}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(hjb.ProblemError, match="Marching"):
        hjb.Marching(**options)


def smooth_decay(x, t=0.0):
    """V = e^(-(1 - t)) (1.5 + sin x): the reward makes V_t + r + V_xx / 8 = 0."""
    return np.exp(t - 1.0) * (1.5 + np.sin(x[..., 0]))


def decaying() -> hjb.ControlProblem:
    def reward(x, a, t):
        return -smooth_decay(x, t) + np.exp(t - 1.0) * np.sin(x[..., 0]) / 8.0

    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.5,
        reward=reward,
        domain=hjb.Box(-2.0, 2.0),
        horizon=1.0,
        terminal=lambda x: smooth_decay(x, 1.0),
        boundary=hjb.Dirichlet(lambda x, t: smooth_decay(x, t)),
    )


def test_the_bar_of_smooth_problems_covers_and_follows_the_extrapolation():
    """With one step size too, whose error a second one measures."""
    widest = {}
    for levels in (1, 3):
        method = hjb.Marching(levels=levels, steps=32)
        found = hjb.solve(decaying(), 41, method, times=[0.0, 0.5])
        assert isinstance(found, hjb.TimedSolution)
        x = found.grid.nodes()
        for k in (0, 1):
            gap = found.value[k] - smooth_decay(x, float(found.times[k]))
            assert (np.abs(gap) <= found.error_bar[k]).mean() >= 0.99
        widest[levels] = found.error_bar[0].max()
    # 32 Euler steps err by some 1e-2, extrapolated twice by some 1e-5.
    assert widest[3] < 0.1 * widest[1]


def test_kinks_off_the_nodes_are_covered():
    """Uncertain volatility: three kinks, each in its cell another way."""
    problem = hjb.catalogue.get("uncertain-volatility")
    fine = hjb.solve(problem, 641, times=[0.0])
    found = hjb.solve(problem, 161, times=[0.0])
    inner = problem.domain.inner(0.75).contains(found.grid.nodes())
    gap = np.abs(found.value[0] - fine.value[0, ::4])[inner]
    bar = (found.error_bar[0] + fine.error_bar[0, ::4])[inner]
    assert (gap <= bar).mean() >= 0.99


RATES = {
    "2 t": (lambda t: 2 * t, lambda t: t**2),
    "6 t^2": (lambda t: 6 * t**2, lambda t: 2 * t**3),
    "e^t": (np.exp, np.exp),
    "1 + sin 8 t": (lambda t: 1 + np.sin(8 * t), lambda t: t - np.cos(8 * t) / 8),
}


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("horizon", [0.5, 1.0])
def test_bars_cover_where_the_step_error_changes_its_sign_in_time(name, horizon):
    """V = exp(-int rho), no state in it: the error of the steps alone, nine times."""
    rate, whole = RATES[name]
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=0.3,
        reward=lambda x, a: 0 * x[..., 0],
        discount=lambda x, t: rate(t) + 0 * x[..., 0],
        domain=hjb.Box([0.0], [2 * np.pi], [True]),
        horizon=horizon,
        terminal=1.0,
    )
    solution = hjb.solve(problem, 48, times=np.linspace(0, horizon, 9))
    assert isinstance(solution, hjb.TimedSolution)
    exact = np.exp(whole(solution.times) - whole(horizon))
    error = np.abs(solution.value - exact[:, None])
    assert (error <= solution.error_bar).mean() >= 0.99
