"""Rights to stop at given dates, against quadrature of the lognormal density."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.polynomial import chebyshev, legendre
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ndtr

import hjbpde as hjb
import verification


@dataclass
class Put:
    """A put on a lognormal asset, on y = log S; exercised at dates by quadrature.

    Above the exercise point the value of going on is analytic: a Chebyshev series in
    pieces, integrated against the normal density by Gauss-Legendre; below it the part
    exercised is a closed form. Nothing is shared with the grid solver.
    """

    strike: float = 110.0
    maturity: float = 1.0
    rate: float = 0.1
    sigma: float = 0.2

    def below(self, y, edge, left):
        """E e^{-r left} (K - S) where log S ends below `edge`."""
        spread = self.sigma * np.sqrt(left)
        d = (edge - y - (self.rate - 0.5 * self.sigma**2) * left) / spread
        paid = self.strike * np.exp(-self.rate * left)
        return paid * ndtr(d) - np.exp(y) * ndtr(d - spread)

    def european(self, y, left):
        """Black and Scholes, J. Polit. Econ. 81 (1973) 637, by parity."""
        return self.below(y, np.log(self.strike), left)

    def bermudan(self, dates, today=0.0):
        """The value of going on at `today`, before the right of that day is gone.

        A function of y; `dates` increase from after today to before maturity.
        """
        times = [today, *dates]
        left = self.maturity - times[-1]
        value = lambda y: self.european(y, left)  # noqa: E731
        for start, end in reversed(list(pairwise(times))):
            value = self.before(value, end - start)
        return value

    def before(self, going_on, left):
        """The value `left` before a date after which it is `going_on`."""
        edge = self.exercise_point(going_on)
        high = np.log(self.strike) + self.maturity * self.rate
        high += 10 * self.sigma * np.sqrt(self.maturity)
        z, w, V = _pieces(going_on, edge, high)
        spread = self.sigma * np.sqrt(left)
        drift = (self.rate - 0.5 * self.sigma**2) * left

        def value(y):
            y = np.asarray(y, dtype=float)
            gap = (z - y[..., None] - drift) / spread
            density = np.exp(-0.5 * gap**2) / (spread * np.sqrt(2 * np.pi))
            held = np.exp(-self.rate * left) * (density * w * V).sum(-1)
            return held + self.below(y, edge, left)

        return value

    def exercise_point(self, going_on):
        """log S where exercise and going on are worth the same."""

        def gain(y):
            return float(going_on(np.array([y]))[0]) - (self.strike - np.exp(y))

        top = np.log(self.strike)
        return brentq(gain, top - 4.0, top - 1e-9, xtol=1e-13)


def _pieces(function, low, high, pieces=12, degree=24, points=32):
    """Gauss-Legendre nodes and weights on pieces, with a function's values there."""
    cuts = low + (high - low) * np.linspace(0, 1, pieces + 1) ** 1.5
    nodes, weights = legendre.leggauss(points)
    found = []
    for a, b in pairwise(cuts):
        series = chebyshev.Chebyshev.interpolate(function, degree, domain=[a, b])
        z = 0.5 * (b - a) * nodes + 0.5 * (a + b)
        found.append((z, 0.5 * (b - a) * weights, series(z)))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


PUT = Put()
TENTHS = np.arange(1, 10) / 10
NODES = (41, 57, 81, 113, 161)
QUICK = hjb.Marching(steps=24, levels=2)


def inside(solution):
    """The axis of a solution, and its nodes in the region of the answer."""
    y = solution.grid.axes[0]
    return y, solution.region.contains(y[:, None])


def test_quadrature_gives_the_published_value():
    """10.479520123 at S = 100: Fang and Oosterlee, Numer. Math. 114 (2009) 27."""
    found = PUT.bermudan(TENTHS)(np.log([100.0]))
    assert abs(found[0] - 10.479520123) < 1e-8


def test_bermudan_put_meets_quadrature_before_at_and_after_dates():
    """Error 1e-5 of the strike, and the bar covers."""
    times = [0.0, 0.45, 0.5, 0.51]
    found = hjb.solve(hjb.catalogue.get("bermudan-put"), times=times)
    y, inner = inside(found)
    for i, t in enumerate(times):
        true = PUT.bermudan(TENTHS[TENTHS > t + 1e-9], t)(y)
        if t == 0.5:
            true = np.maximum(true, PUT.strike - np.exp(y))
        miss = np.abs(found.value[i] - true)[inner]
        assert miss.max() < 1e-5 * PUT.strike
        assert np.mean(miss <= found.error_bar[i][inner]) >= 0.99
        # Not a bar for bar's sake.
        assert found.error_bar[i][inner].max() < 30 * miss.max()


def test_stopping_is_marked_at_dates_only_and_the_right_counts_at_its_date():
    problem = hjb.catalogue.get("bermudan-put", dates=4)
    found = hjb.solve(problem, 101, QUICK, times=[0.25, 0.26, 0.4, 0.5])
    assert isinstance(found, hjb.TimedSolution)
    y, inner = inside(found)
    psi = PUT.strike - np.exp(y)
    at_date = np.isin(found.times, [0.25, 0.5, 1.0])
    assert not found.stopping[~at_date].any()
    for i in np.flatnonzero(at_date[:-1]):
        assert (found.value[i] >= psi - 1e-9).all()
        going_on = PUT.bermudan([t for t in (0.5, 0.75) if t > found.times[i]],
                                found.times[i])(y)  # fmt: skip
        clear = np.abs(going_on - psi) > found.error_bar[i]
        stops = going_on < psi
        # Where nothing is paid both are 0 far away.
        clear &= inner & (psi > 0)
        assert (found.stopping[i] == stops)[clear].all()
    low = inner & (y < np.log(60.0))
    assert (found.value[2] < psi)[low].all()


def test_dates_are_kept_by_default():
    problem = hjb.catalogue.get("bermudan-put", dates=3)
    found = hjb.solve(problem, 33, hjb.Marching(steps=4, levels=1))
    assert isinstance(found, hjb.TimedSolution)
    assert np.isin([1 / 3, 2 / 3, 1.0], found.times).all()
    assert len(found.times) == 35


def test_one_date_at_the_end_is_the_european_put():
    found = hjb.solve(hjb.catalogue.get("bermudan-put", dates=1), 401, times=[0.0])
    y, inner = inside(found)
    miss = np.abs(found.value[0] - PUT.european(y, 1.0))[inner]
    assert miss.max() < 1e-5 * PUT.strike
    assert np.mean(miss <= found.error_bar[0][inner]) >= 0.99


@pytest.mark.slow
def test_many_dates_approach_the_american_put_from_below_at_first_order():
    """The right to wait for the next date is worth O(1/n)."""
    fields = {"strike": 110.0, "rate": 0.1, "sigma": 0.2, "half_width": 1.5}
    american = hjb.solve(hjb.catalogue.get("american-put", **fields), 201, times=[0])
    S = np.log([[95.0], [100.0], [105.0]])
    gaps = []
    for n in (5, 10, 20):
        problem = hjb.catalogue.get("bermudan-put", dates=n)
        gaps.append(american.value_at(S) - hjb.solve(problem, 201).value_at(S))
    gaps = np.array(gaps)
    assert (gaps > 0).all()
    orders = np.log2(gaps[:-1] / gaps[1:])
    assert ((orders > 0.7) & (orders < 1.3)).all()


@pytest.mark.slow
def test_the_march_is_second_order_in_space_and_extrapolates_in_time():
    problem = hjb.catalogue.get("bermudan-put", dates=4)
    true = PUT.bermudan([0.25, 0.5, 0.75])
    errors = []
    for n in NODES:
        found = hjb.solve(problem, n, hjb.Marching(order=2, steps=32), times=[0])
        y, inner = inside(found)
        errors.append(np.abs(found.value[0] - true(y))[inner].max())
    # Kinks lie anywhere in their cells: the order is that of the whole row.
    order = np.polyfit(np.log(NODES), -np.log(errors), 1)[0]
    assert 1.7 < order < 2.3
    fine = hjb.solve(problem, 33, hjb.Marching(steps=32, levels=5), times=[0]).value[0]
    for levels in (1, 2):
        misses = []
        for steps in (12, 24, 48):
            method = hjb.Marching(steps=steps, levels=levels)
            found = hjb.solve(problem, 33, method, times=[0])
            misses.append(np.abs(found.value[0] - fine).max())
        orders = np.log2(np.array(misses[:-1]) / misses[1:])
        assert (np.abs(orders - levels) < 0.5).all()


def test_cost_is_the_mirror_of_reward():
    problem = hjb.catalogue.get("bermudan-put", dates=2)

    def payoff(x):
        return -np.maximum(110.0 - np.exp(x[..., 0]), 0.0)

    mirrored = replace(
        problem,
        reward=None,
        cost=lambda x, a: 0.0 * x[..., 0],
        terminal=payoff,
        stop=hjb.Stop(payoff, dates=[0.5, 1.0]),
    )
    method = hjb.Marching(steps=12, levels=2)
    one, two = (hjb.solve(p, 65, method) for p in (problem, mirrored))
    assert np.array_equal(one.value, -two.value)
    assert np.array_equal(one.stopping, two.stopping)


def expected(function, y, left, put=PUT):
    """E e^{-r left} function(log S) from y, by adaptive quadrature."""
    spread, drift = put.sigma * np.sqrt(left), (put.rate - 0.5 * put.sigma**2) * left

    def density(z):
        return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)

    found, _ = quad(
        lambda z: density(z) * function(y + drift + spread * z),
        -9, 9, limit=400, epsabs=1e-7,
    )  # fmt: skip
    return np.exp(-put.rate * left) * found


def test_holder_and_issuer_with_different_dates_meet_nested_quadrature():
    """A put the issuer may buy back for 8 at t = .3 and the holder exercise at .6."""
    base = hjb.catalogue.get("bermudan-put")
    exercise = base.stop.payoff
    rights = (
        hjb.Stop(exercise, dates=[0.6]),
        hjb.Stop(lambda x: 8.0 + 0.0 * x[..., 0], by="adversary", dates=[0.3]),
    )
    found = hjb.solve(replace(base, stop=rights), 201, times=[0.3])
    going_on = PUT.bermudan([0.6], 0.3)
    for S in (90.0, 110.0, 140.0):
        y = np.log(S)
        wanted = expected(lambda z: min(8.0, float(going_on(z))), y, 0.3)
        got = found.value_at(np.array([[y]]))[0]
        assert abs(got - wanted) <= found.error_at(np.array([[y]]))[0]


def test_explicit_marching_stops_at_dates():
    """Drift 1 and no noise: V(t, x) = max(g(x + T - t), psi(x + date - t))."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + 1.0,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([-3.0], [3.0]),
        horizon=1.0,
        terminal=lambda x: np.exp(-4.0 * x[..., 0] ** 2),
        stop=hjb.Stop(lambda x: 0.5 * np.exp(-((x[..., 0] + 1.5) ** 2)), dates=[0.4]),
    )
    found = hjb.solve(problem, 201, times=[0.2, 0.4, 0.5])
    assert isinstance(found, hjb.TimedSolution)
    assert isinstance(hjb.default_method(problem, found.grid), hjb.ExplicitMarching)
    x = found.grid.axes[0]
    inner, covered = np.abs(x) < 1.5, []
    for i, t in enumerate(found.times):
        true = np.exp(-4.0 * (x + 1.0 - t) ** 2)
        if t <= 0.4:
            stopped = 0.5 * np.exp(-((x + 0.4 - t + 1.5) ** 2))
            true = np.maximum(true, stopped)
        miss = np.abs(found.value[i] - true)[inner]
        # Kinks travel: first order there.
        assert miss.max() < 2 * (x[1] - x[0])
        covered.append(miss <= found.error_bar[i][inner])
    assert np.mean(covered) >= 0.99
    assert found.stopping[2].any()
    assert not found.stopping[[0, 1, 3, 4]].any()


def test_unusable_dates_are_refused():
    put = hjb.catalogue.get("bermudan-put")
    psi = put.stop.payoff
    for dates in ([], [np.nan], [np.inf]):
        with pytest.raises(hjb.ProblemError, match="dates must be finite"):
            hjb.Stop(psi, dates=dates)
    for dates in ([-0.1, 0.5], [0.5, 1.5]):
        with pytest.raises(hjb.ProblemError, match=r"lies outside \[0, 1\]"):
            replace(put, stop=hjb.Stop(psi, dates=dates))
    with pytest.raises(hjb.ProblemError, match="nearer than rounding"):
        replace(put, stop=hjb.Stop(psi, dates=[0.5, 0.5 + 1e-12]))
    with pytest.raises(hjb.ProblemError, match="dates need horizon=T"):
        replace(put, horizon=None, terminal=None)
    with pytest.raises(hjb.ProblemError, match="dates = 0"):
        hjb.catalogue.get("bermudan-put", dates=0)


def test_what_does_not_know_dates_says_so():
    put = hjb.catalogue.get("bermudan-put", dates=2)
    method = hjb.Marching(steps=4, levels=1)
    found = hjb.solve(put, 33, method, times=[0.5])
    with pytest.raises(hjb.ProblemError, match="V jumps at the dates"):
        found.value_at([[4.0]], t=0.75)
    assert np.isfinite(found.value_at([[4.0]], t=0.25)).all()
    with pytest.raises(hjb.MethodMismatch, match="dates"):
        verification.cross_check(found, put)
    with pytest.raises(hjb.MethodMismatch):
        hjb.evaluate(put, 33, lambda x: np.zeros((*x.shape[:-1], 0)))
    with pytest.raises(hjb.MethodMismatch):
        found.as_mdp()
    with pytest.raises(hjb.MethodMismatch):
        found.simulate([4.0], 1.0, 0.1, 10, seed=0)
