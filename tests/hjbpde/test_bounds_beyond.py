"""Regulators whose bound on the control holds beyond the domain only.

A grid sees the quadratic of Riccati's equation inside, of which every closure of an
artificial face is exact; only a larger box knows of the bound. References: the ordinary
differential equation on a half line, where for large x the control is -A for ever and V
a polynomial (see `Regulator`), by collocation.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from scipy.integrate import cumulative_simpson, solve_bvp
from scipy.interpolate import CubicSpline

import hjbpde as hjb

FAR = 20.0
TOLERANCE = 1e-8


@dataclass(frozen=True)
class Regulator:
    """Cost q |x|^2 + |a|^2, drift a in [-A, A]^d, noise s, discount rho (0: average).

    V is a sum over the states of v, ``rho v = q x^2 + a^2 + a w + s^2 w' / 2`` with
    ``w = v'`` and ``a = clip(-w / 2, -A, A)``. Where a = -A the polynomial solution is
    ``w = 2 q (x - A / rho) / rho``, or with the average L in place of rho v
    ``w = q x^2 / A + s^2 q x / A^2 + (A^2 - L + s^4 q / (2 A^2)) / A``.
    """

    rho: float
    s: float
    q: float
    share: float

    @classmethod
    def drawn(cls, seed, average=False, widest=2.5):
        rng = np.random.default_rng(seed)
        rho = 0.0 if average else rng.uniform(0.1, 1.5)
        s, q, share = rng.uniform((0.3, 0.5, 1.02), (1.5, 2.0, widest))
        return cls(rho, s, q, share)

    @property
    def bound(self):
        """Riccati's control on a unit box is P at most: a = -P x."""
        P = (np.sqrt(self.rho**2 + 4.0 * self.q) - self.rho) / 2.0
        return self.share * P

    def quadratic(self, x):
        """The cost to go where no control is bounded."""
        return self.bound / self.share * (x * x).sum(-1)

    def problem(self, d=1, half_width=1.0, **fields):
        A, s, q = self.bound, self.s, self.q
        fields |= {"discount": self.rho} if self.rho else {"average": True}
        return hjb.ControlProblem(
            drift=lambda x, a: a,
            diffusion=s,
            cost=lambda x, a: (q * x * x + a * a).sum(-1),
            controls=hjb.Box([-A] * d, [A] * d),
            domain=hjb.Box([-half_width] * d, [half_width] * d),
            **fields,
        )

    def paid(self, x, w):
        """What the best control pays and gains, q x^2 + a^2 + a w."""
        a = np.clip(-w / 2.0, -self.bound, self.bound)
        return self.q * x * x + a * a + a * w

    @cached_property
    def solved(self):
        """v on [0, FAR], and the average."""
        A, s, q, rho = self.bound, self.s, self.q, self.rho
        x = np.linspace(0.0, FAR, 3001)
        w = 2.0 * q * x / (rho or 1.0)
        if rho:
            ends = 2.0 * q * (FAR - A / rho) / rho
            found = solve_bvp(
                lambda x, y: np.stack(
                    [y[1], (rho * y[0] - self.paid(x, y[1])) * 2.0 / s**2]
                ),
                lambda a, b: np.array([a[1], b[1] - ends]),
                x, np.stack([w * x / 2.0, w]), tol=TOLERANCE, max_nodes=200_000,
            )  # fmt: skip
            assert found.success
            return CubicSpline(found.x, found.y[0]), None

        def last(L):
            return (
                q * FAR**2 / A
                + s**2 * q * FAR / A**2
                + (A * A - L + s**4 * q / (2.0 * A**2)) / A
            )

        found = solve_bvp(
            lambda x, y, p: (p[0] - self.paid(x, y[0]))[None] * 2.0 / s**2,
            lambda a, b, p: np.array([a[0], b[0] - last(p[0])]),
            x, w[None], p=[s * s], tol=TOLERANCE, max_nodes=200_000,
        )  # fmt: skip
        assert found.success
        v = cumulative_simpson(found.sol(x)[0], x=x, initial=0.0)
        return CubicSpline(x, v), float(found.p[0])

    def value(self, x):
        return self.solved[0](np.abs(x)).sum(-1)


def shares(regulator, d, shape, method):
    """The largest error in shares of the bar, and of the range of V."""
    solution = hjb.solve(regulator.problem(d), (shape,) * d, method)
    x = solution.grid.nodes().reshape(-1, d)
    inner = solution.region.contains(x)
    value, exact = solution.value.ravel()[inner], regulator.value(x)[inner]
    off = np.abs(value - exact)
    bar = solution.error_bar.ravel()[inner] + TOLERANCE * np.ptp(exact)
    return (off / bar).max(), off.max() / np.ptp(exact), solution


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("d", "shape"), [(1, 101), (2, 41)])
def test_bars_know_of_a_bound_beyond_the_domain(seed, d, shape):
    excess, off, _ = shares(Regulator.drawn(seed), d, shape, None)
    assert excess <= 1.0
    # On the domain's own box it is up to .9.
    assert off <= 2e-3


@pytest.mark.parametrize("seed", range(3))
def test_semi_lagrangian_bars_do_so(seed):
    excess, *_ = shares(Regulator.drawn(seed), 1, 101, hjb.SemiLagrangian())
    assert excess <= 1.0


@pytest.mark.parametrize("seed", range(8))
def test_averages_do_so(seed):
    regulator = Regulator.drawn(seed, average=True)
    excess, off, solution = shares(regulator, 1, 101, None)
    assert excess <= 1.0
    assert off <= 1e-3
    error = solution.report.details["average_error"]
    assert abs(solution.average - regulator.solved[1]) <= error + TOLERANCE


@pytest.mark.parametrize("seed", range(4))
def test_values_in_time_do_so(seed):
    """The reference: the domain nine times as wide, with the same cells."""
    regulator = Regulator.drawn(seed)
    in_time = {"horizon": 1.5, "terminal": regulator.quadratic}
    solution = hjb.solve(regulator.problem(**in_time), 101)
    wide = hjb.solve(regulator.problem(half_width=9.0, **in_time), 901)
    x = solution.grid.nodes()[solution.region.contains(solution.grid.nodes())]
    off = np.abs(solution.value_at(x) - wide.value_at(x))
    both = solution.error_at(x) + wide.error_at(x)
    assert np.all(off <= both)
    assert np.max(both) <= 5e-3 * np.ptp(wide.value_at(x))
