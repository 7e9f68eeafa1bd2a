"""Kernels against slow definitions written with plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import solve_banded
from scipy.optimize import minimize

from hjbpde.kernels.coupled import box_maximiser, improve_coupled, solve_small
from hjbpde.kernels.multigrid import (
    first_sweep,
    line_factors,
    line_sweep,
    rows_residual,
)
from hjbpde.kernels.tridiagonal import thomas
from hjbpde.kernels.upwind import (
    HYBRID,
    assemble,
    axis_gain,
    best_in_regimes,
    improve_separable,
    monotone_residual,
)
from hjbpde.schemes import Upwind

SEEDS = st.integers(0, 2**32 - 1)
CODES = [Upwind().code, HYBRID]


def weights_by_definition(scheme, f, D, hm, hp):
    """Lower and upper weight of one axis at one node, from the scheme's words.

    Upwind: one-sided drift plus three-point noise. Hybrid: central drift with the
    noise max(D, |f| h / 2), h the step on the upwind side (schemes.py).
    """
    if scheme == HYBRID:
        noise = max(D, f * hp / 2, -f * hm / 2)
        lower = (2 * noise - f * hp) / (hm * (hm + hp))
        upper = (2 * noise + f * hm) / (hp * (hm + hp))
        return lower, upper
    lower = 2 * D / (hm * (hm + hp)) + (-f / hm if f < 0 else 0)
    upper = 2 * D / (hp * (hm + hp)) + (f / hp if f > 0 else 0)
    return lower, upper


def steps_of(shape, rng):
    width = max(shape)
    return (
        0.1 + rng.random((len(shape), width)),
        0.1 + rng.random((len(shape), width)),
    )


@pytest.mark.parametrize("scheme", CODES)
@given(seed=SEEDS)
def test_weights_agree_with_the_scheme_by_definition(scheme, seed):
    rng = np.random.default_rng(seed)
    shape = (4, 5)
    hm, hp = steps_of(shape, rng)
    f = rng.normal(size=(2, 20))
    D = rng.random((2, 20)) * 0.2
    lower, upper = np.empty((2, 20)), np.empty((2, 20))
    assemble(scheme, np.array(shape), hm, hp, f, D, lower, upper)
    for n, index in enumerate(np.ndindex(*shape)):
        for k in range(2):
            wanted = weights_by_definition(
                scheme, f[k, n], D[k, n], hm[k, index[k]], hp[k, index[k]]
            )
            assert np.allclose((lower[k, n], upper[k, n]), wanted, atol=1e-12)
    assert lower.min() >= 0
    assert upper.min() >= 0


@pytest.mark.parametrize("scheme", CODES)
@given(seed=SEEDS)
def test_the_gain_of_an_axis_is_its_weights_times_differences(scheme, seed):
    rng = np.random.default_rng(seed)
    f, dm, dp = rng.normal(size=3)
    D, hm, hp = rng.random(3) * [0.2, 1, 1] + [0, 0.1, 0.1]
    lower, upper = weights_by_definition(scheme, f, D, hm, hp)
    gain = axis_gain(scheme, f, D, dm, dp, hm, hp)
    assert gain == pytest.approx(lower * dm + upper * dp, abs=1e-11)


@pytest.mark.parametrize("scheme", CODES)
@pytest.mark.parametrize("R", [0.0, 0.7])
@given(seed=SEEDS)
def test_the_best_control_of_one_axis_beats_a_fine_search(scheme, R, seed):
    rng = np.random.default_rng(seed)
    f0, b, dm, dp, r1 = rng.normal(size=5)
    D, hm, hp = rng.random(3) * [0.3, 1, 1] + [0, 0.1, 0.1]
    low, high = np.sort(rng.normal(size=2))

    def payoff(a):
        drift = f0 + b * a
        gain = axis_gain(scheme, drift, D, dm, dp, hm, hp)
        return r1 * a - R * a * a / 2 + gain

    best = best_in_regimes(
        scheme, 0.0, f0, b, D, r1, R, low, high, -np.inf, np.inf, dm, dp, hm, hp
    )
    searched = [payoff(a) for a in np.linspace(low, high, 2001)]
    assert low <= best <= high
    assert payoff(best) >= max(searched) - 1e-12
    # A fine search misses a maximum by at most step^2 curvature / 8 or a kink.
    slope = max(abs(dm / hm), abs(dp / hp)) * abs(b) + abs(r1) + R * 3
    assert payoff(best) <= max(searched) + slope * (high - low) / 2000 + 1e-12


@given(seed=SEEDS)
def test_a_drift_that_must_point_inward_does(seed):
    rng = np.random.default_rng(seed)
    f0, b, dm, dp, r1 = rng.normal(size=5)
    best = best_in_regimes(
        0, 0.0, f0, b, 0.0, r1, 0.5, -9.0, 9.0, 0.0, np.inf, dm, dp, 0.1, 0.1
    )
    possible = max(f0 - 9 * b, f0 + 9 * b) >= 0
    assert np.isnan(best) != possible
    if possible:
        assert f0 + b * best >= -1e-10


def random_node_problem(rng, d, m, shape, separable):
    size = int(np.prod(shape))
    B = rng.normal(size=(d, m, size))
    R = np.einsum("ikn,jkn->ijn", *[rng.normal(size=(m, m, size))] * 2)
    R += 0.3 * np.eye(m)[..., None]
    if separable:
        B *= np.eye(d, m)[..., None]
        R *= np.eye(m)[..., None]
    return {
        "f0": rng.normal(size=(d, size)),
        "B": B,
        "D": rng.random((d, size)) * 0.1,
        "r0": rng.normal(size=size),
        "r1": rng.normal(size=(m, size)),
        "R": R,
        "low": -1 - rng.random((m, 1)),
        "high": 1 + rng.random((m, 1)),
    }


def discrete_hamiltonian(t, scheme, Vp, n, index, hm, hp, a):
    """Payoff plus weights times differences at one node, by definition."""
    total = t["r0"][n] + t["r1"][:, n] @ a - a @ t["R"][..., n] @ a / 2
    drift = t["f0"][:, n] + t["B"][..., n] @ a
    centre = tuple(i + 1 for i in index)
    for k in range(len(index)):
        below, above = list(centre), list(centre)
        below[k] -= 1
        above[k] += 1
        lower, upper = weights_by_definition(
            scheme, drift[k], t["D"][k, n], hm[k, index[k]], hp[k, index[k]]
        )
        total += lower * (Vp[tuple(below)] - Vp[centre])
        total += upper * (Vp[tuple(above)] - Vp[centre])
    return total


def searched_maximum(payoff, low, high, n):
    """The best of a fine control grid, then polished by coordinate search."""
    sides = [np.linspace(lo, hi, n) for lo, hi in zip(low, high, strict=True)]
    candidates = [np.array(a) for a in itertools.product(*sides)]
    starts = sorted(candidates, key=payoff)[-3:]
    bounds = list(zip(low, high, strict=True))
    polished = [
        minimize(
            lambda a: -payoff(np.clip(a, low, high)),
            a,
            method="Nelder-Mead",
            bounds=bounds,
            options={"xatol": 1e-10, "fatol": 1e-13},
        )
        for a in starts
    ]
    return max(-p.fun for p in polished)


def run_improvement(t, scheme, Vp, shape, hm, hp, separable):
    d, m, size = len(shape), len(t["low"]), t["r0"].size
    a, f, r = np.zeros((m, size)), np.empty((d, size)), np.empty(size)
    free = np.full((d, max(shape)), -np.inf), np.full((d, max(shape)), np.inf)
    common = (scheme, Vp.ravel(), np.array(shape), hm, hp, *free)
    boxes = (t["low"], t["high"])
    if separable:
        axis_of = np.arange(m)
        b = np.array([t["B"][i, i] for i in range(m)])
        R = np.einsum("iin->in", t["R"]).copy()
        tables = (t["f0"], b, t["D"], t["r0"], t["r1"], R)
        bad = improve_separable(*common, tables, boxes, axis_of, a, f, r)
    else:
        tables = tuple(t[k] for k in ("f0", "B", "D", "r0", "r1", "R"))
        bad = improve_coupled(*common, tables, boxes, a, f, r)
    assert bad == -1
    return a, f, r


@pytest.mark.parametrize("scheme", CODES)
@pytest.mark.parametrize(("m", "separable"), [(2, True), (2, False), (1, False)])
def test_improvement_finds_the_maximum_of_the_discrete_hamiltonian(
    scheme, m, separable
):
    rng = np.random.default_rng([scheme, m, separable])
    shape = (3, 3)
    for _ in range(3):
        hm, hp = steps_of(shape, rng)
        t = random_node_problem(rng, 2, m, shape, separable)
        Vp = rng.normal(size=(5, 5)) * 0.3
        a, f, r = run_improvement(t, scheme, Vp, shape, hm, hp, separable)
        for n, index in enumerate(np.ndindex(*shape)):

            def payoff(b, n=n, index=index, t=t, Vp=Vp, hm=hm, hp=hp):
                return discrete_hamiltonian(t, scheme, Vp, n, index, hm, hp, b)

            found = payoff(a[:, n])
            wanted = searched_maximum(payoff, t["low"][:, 0], t["high"][:, 0], 13)
            assert found >= wanted - 1e-8 * (1 + abs(wanted))
            assert (a[:, n] >= t["low"][:, 0] - 1e-12).all()
            assert (a[:, n] <= t["high"][:, 0] + 1e-12).all()
            assert np.allclose(f[:, n], t["f0"][:, n] + t["B"][..., n] @ a[:, n])
            reward = t["r0"][n] + t["r1"][:, n] @ a[:, n]
            assert r[n] == pytest.approx(
                reward - a[:, n] @ t["R"][..., n] @ a[:, n] / 2
            )


@given(seed=SEEDS)
def test_the_residual_kernel_agrees_with_plain_loops(seed):
    rng = np.random.default_rng(seed)
    shape = (3, 4)
    Vp = rng.normal(size=(5, 6))
    lower, upper = rng.random((2, 12)), rng.random((2, 12))
    c, r, out = rng.random(12), rng.normal(size=12), np.empty(12)
    monotone_residual(Vp.ravel(), np.array(shape), lower, upper, c, r, out)
    for n, (i, j) in enumerate(np.ndindex(*shape)):
        here = Vp[i + 1, j + 1]
        wanted = r[n] - c[n] * here
        wanted += lower[0, n] * (Vp[i, j + 1] - here)
        wanted += upper[0, n] * (Vp[i + 2, j + 1] - here)
        wanted += lower[1, n] * (Vp[i + 1, j] - here)
        wanted += upper[1, n] * (Vp[i + 1, j + 2] - here)
        assert out[n] == pytest.approx(wanted, abs=1e-12)


@given(seed=SEEDS, n=st.integers(2, 30))
def test_thomas_agrees_with_the_banded_solver_of_scipy(seed, n):
    rng = np.random.default_rng(seed)
    lower, upper, c = rng.random(n), rng.random(n), 0.1 + rng.random(n)
    lower[0] = upper[-1] = 0.0
    rhs, out, scratch = rng.normal(size=n), np.empty(n), np.empty(n)
    thomas(c, lower, upper, rhs, scratch, out)
    bands = np.zeros((3, n))
    bands[0, 1:], bands[1], bands[2, :-1] = -upper[:-1], c + lower + upper, -lower[1:]
    assert np.allclose(out, solve_banded((1, 1), bands, rhs), rtol=1e-12, atol=1e-12)


def test_thomas_loses_no_digits_where_the_diagonal_almost_cancels():
    """c V = c with weights 1e12 times c: V = 1 exactly, whatever the weights."""
    n = 2000
    weight, c = np.full(n, 1e6), np.full(n, 1e-6)
    lower, upper = weight.copy(), weight.copy()
    lower[0] = upper[-1] = 0.0
    out, scratch = np.empty(n), np.empty(n)
    thomas(c, lower, upper, c.copy(), scratch, out)
    assert np.abs(out - 1).max() < 1e-12


@given(seed=SEEDS)
def test_small_systems_agree_with_numpy(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    A, b = rng.normal(size=(n, n)), rng.normal(size=n)
    wanted = np.linalg.solve(A, b)
    assert solve_small(A.copy(), b, n)
    assert np.allclose(b, wanted, rtol=1e-7)


def test_a_singular_small_system_is_reported():
    assert not solve_small(np.ones((2, 2)), np.ones(2), 2)


@given(seed=SEEDS)
def test_the_box_maximiser_meets_the_optimality_conditions(seed):
    """KKT: slope 0 inside, <= 0 at low, >= 0 at high (concave, so sufficient)."""
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 5))
    root = rng.normal(size=(m, m))
    R, g = root @ root.T + 0.2 * np.eye(m), 3 * rng.normal(size=m)
    low, high, a = -rng.random(m), rng.random(m), np.zeros(m)
    box_maximiser(g, R, low, high, a)
    slope = g - R @ a
    at_low, at_high = a <= low, a >= high
    assert np.abs(slope[~at_low & ~at_high]).max(initial=0) < 1e-7
    assert slope[at_low].max(initial=-1) <= 1e-7
    assert slope[at_high].min(initial=1) >= -1e-7


def dense_rows(shape, periodic, lower, upper, c):
    """The matrix of the rows, by definition."""
    n = int(np.prod(shape))
    A = np.diag(c + lower.sum(0) + upper.sum(0))
    number = np.arange(n).reshape(shape)
    for index in np.ndindex(*shape):
        for k, sign, weights in itertools.chain.from_iterable(
            ((k, -1, lower), (k, 1, upper)) for k in range(len(shape))
        ):
            other = list(index)
            other[k] += sign
            if periodic[k]:
                other[k] %= shape[k]
            if 0 <= other[k] < shape[k]:
                A[number[index], number[tuple(other)]] -= weights[k, number[index]]
    return A


def random_rows(rng, shape, periodic):
    n, d = int(np.prod(shape)), len(shape)
    lower, upper = rng.random((d, n)), rng.random((d, n))
    for k in range(d):
        if not periodic[k]:
            low, high = [slice(None)] * d, [slice(None)] * d
            low[k], high[k] = 0, -1
            lower[k].reshape(shape)[tuple(low)] = 0
            upper[k].reshape(shape)[tuple(high)] = 0
    return lower, upper, 0.3 + rng.random(n)


PERIODIC = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize("periodic", PERIODIC)
def test_the_row_residual_agrees_with_the_dense_matrix(periodic):
    rng = np.random.default_rng(1)
    shape = (4, 5)
    lower, upper, c = random_rows(rng, shape, periodic)
    x, b, out = rng.normal(size=20), rng.normal(size=20), np.empty(20)
    rows_residual(np.array(shape), np.array(periodic), lower, upper, c, b, x, out)
    wanted = b - dense_rows(shape, periodic, lower, upper, c) @ x
    assert np.allclose(out, wanted, atol=1e-12)


@pytest.mark.parametrize("periodic", PERIODIC)
@pytest.mark.parametrize("flips", [0, 1])
def test_a_line_sweep_is_block_gauss_seidel(periodic, flips):
    """Block Gauss-Seidel over lines of the last axis; the seam of a line lags."""
    rng = np.random.default_rng(2)
    shape = (4, 5)
    lower, upper, c = random_rows(rng, shape, periodic)
    A = dense_rows(shape, periodic, lower, upper, c)
    b, x = rng.normal(size=20), rng.normal(size=20)
    wanted = x.copy()
    order = range(4) if flips == 0 else range(3, -1, -1)
    for line in order:
        part = slice(5 * line, 5 * line + 5)
        block = A[part, part].copy()
        rest = b[part] - A[part] @ wanted + block @ wanted[part]
        if periodic[1]:
            seam = np.array([block[0, 4], block[4, 0]])
            rest -= np.array([seam[0] * wanted[part][4], 0, 0, 0, 0])
            rest -= np.array([0, 0, 0, 0, seam[1] * wanted[part][0]])
            block[0, 4] = block[4, 0] = 0.0
        wanted[part] = np.linalg.solve(block, rest)
    inverse, ratio = np.empty(20), np.empty(20)
    sizes, wrap = np.array(shape), np.array(periodic)
    line_factors(sizes, lower, upper, c, inverse, ratio)
    line_sweep(sizes, wrap, lower, upper, inverse, ratio, b, x, flips, np.empty(5))
    assert np.allclose(x, wanted, atol=1e-12)


@pytest.mark.parametrize("periodic", list(itertools.product([False, True], repeat=3)))
def test_the_first_sweep_is_a_sweep_from_zero_with_its_residual(periodic):
    rng = np.random.default_rng(3)
    shape, n = (4, 3, 5), 60
    lower, upper, c = random_rows(rng, shape, periodic)
    sizes, wrap, b = np.array(shape), np.array(periodic), rng.normal(size=n)
    inverse, ratio, x, residual = np.empty((4, n))
    line_factors(sizes, lower, upper, c, inverse, ratio)
    first_sweep(sizes, wrap, lower, upper, inverse, ratio, b, x, residual, np.empty(5))
    swept = np.zeros(n)
    line_sweep(sizes, wrap, lower, upper, inverse, ratio, b, swept, 0, np.empty(5))
    assert np.allclose(x, swept, atol=1e-13)
    wanted = b - dense_rows(shape, periodic, lower, upper, c) @ swept
    assert np.allclose(residual, wanted, atol=1e-12)
