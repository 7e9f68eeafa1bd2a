"""One-sided derivatives against slow definitions, and their orders."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.one_sided import ENO2, WENO3, WENO5, End, FirstOrder, OneSided

EPSILON = 1e-6


def padded(line, ends, low, high):
    """Three ghost values an end, straight from the definition of each rule."""
    if ends is None:
        return np.r_[line[-3:], line, line[:3]]
    first, last = line[1] - line[0], line[-1] - line[-2]
    steps = np.arange(1, 4)
    if low is End.LINEAR:
        left = line[0] - first * steps[::-1]
    elif low is End.MIRROR:
        left = line[3:0:-1]
    else:
        left = line[0] + np.sign(line[0]) * abs(first) * steps[::-1]
    if high is End.LINEAR:
        right = line[-1] + last * steps
    elif high is End.MIRROR:
        right = line[-2:-5:-1]
    else:
        right = line[-1] + np.sign(line[-1]) * abs(last) * steps
    return np.r_[left, line, right]


def newton_eno2(x, y, i, side):
    """ENO2 by divided differences: extend the first interval the flatter way."""
    k = i - 1 if side < 0 else i
    slope = (y[k + 1] - y[k]) / (x[k + 1] - x[k])

    def second(a):
        one = (y[a + 1] - y[a]) / (x[a + 1] - x[a])
        two = (y[a + 2] - y[a + 1]) / (x[a + 2] - x[a + 1])
        return (two - one) / (x[a + 2] - x[a])

    left, right = second(k - 1), second(k)
    bend = right if abs(right) < abs(left) else left
    return slope + bend * ((x[i] - x[k]) + (x[i] - x[k + 1]))


def textbook_weno5(v):
    """Jiang and Peng, equations 2.8 to 2.13, from five differences."""
    a, b, c, d, e = v
    smooth = [
        13 / 12 * (a - 2 * b + c) ** 2 + (a - 4 * b + 3 * c) ** 2 / 4,
        13 / 12 * (b - 2 * c + d) ** 2 + (b - d) ** 2 / 4,
        13 / 12 * (c - 2 * d + e) ** 2 + (3 * c - 4 * d + e) ** 2 / 4,
    ]
    parts = [
        a / 3 - 7 * b / 6 + 11 * c / 6,
        -b / 6 + 5 * c / 6 + d / 3,
        c / 3 + 5 * d / 6 - e / 6,
    ]
    raw = [w / (EPSILON + s) ** 2 for w, s in zip((0.1, 0.6, 0.3), smooth, strict=True)]
    return np.dot(raw, parts) / sum(raw)


def textbook_weno3(v):
    b, c, d = v
    raw = [1 / 3 / (EPSILON + (c - b) ** 2) ** 2, 2 / 3 / (EPSILON + (d - c) ** 2) ** 2]
    return np.dot(raw, [(3 * c - b) / 2, (c + d) / 2]) / sum(raw)


def slow(scheme, line, h, ends):
    low, high = (None, None) if ends is None else ends
    y = padded(line, ends, low, high)
    x = h * np.arange(len(y))
    D = np.diff(y) / h
    left, right = [], []
    for i in range(3, len(y) - 3):
        if isinstance(scheme, FirstOrder):
            pair = D[i - 1], D[i]
        elif isinstance(scheme, ENO2):
            pair = newton_eno2(x, y, i, -1), newton_eno2(x, y, i, +1)
        elif isinstance(scheme, WENO3):
            pair = (
                textbook_weno3(D[i - 2 : i + 1]),
                textbook_weno3(D[i + 1 : i - 2 : -1]),
            )
        else:
            pair = (
                textbook_weno5(D[i - 3 : i + 2]),
                textbook_weno5(D[i + 2 : i - 3 : -1]),
            )
        left.append(pair[0])
        right.append(pair[1])
    return np.array(left), np.array(right)


SCHEMES = [FirstOrder(), ENO2(), WENO3(EPSILON), WENO5(EPSILON)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    "ends",
    [
        None,
        (End.LINEAR, End.AWAY_FROM_ZERO),
        (End.AWAY_FROM_ZERO, End.MIRROR),
        (End.MIRROR, End.LINEAR),
    ],
)
def test_one_sided_derivatives_match_the_definition_on_every_axis(scheme, ends):
    shape = (7, 9, 70)
    rng = np.random.default_rng(3)
    V = rng.normal(size=shape)
    box = hjb.Box([0, 0, 0], [2, 3, 5], periodic=(ends is None,) * 3)
    grid = hjb.Grid(box, shape)
    pairs = [ends or (End.LINEAR, End.LINEAR)] * 3
    one_sided = OneSided.on(grid, scheme, pairs)
    minus, plus = np.empty((3, V.size)), np.empty((3, V.size))
    one_sided.fill(V.ravel(), minus, plus)
    for k in range(3):
        h = grid.spacing(k)[1][0]
        lines = np.moveaxis(V, k, -1).reshape(-1, shape[k])
        got = [
            np.moveaxis(p[k].reshape(shape), k, -1).reshape(lines.shape)
            for p in (minus, plus)
        ]
        for i in range(0, len(lines), 13):
            left, right = slow(scheme, lines[i], h, ends)
            np.testing.assert_allclose(got[0][i], left, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(got[1][i], right, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("low", End)
@pytest.mark.parametrize("high", End)
def test_the_shortest_lines_see_both_their_ends(scheme, low, high):
    rng = np.random.default_rng(4)
    for shape in [(4, 4), (4, 5), (6, 300), (4, 1100)]:
        V = rng.normal(size=shape)
        grid = hjb.Grid(hjb.Box([0, 0], [1, 2]), shape)
        one_sided = OneSided.on(grid, scheme, [(low, high)] * 2)
        minus, plus = np.empty((2, 2, V.size))
        one_sided.fill(V.ravel(), minus, plus)
        for k, lines in enumerate((V.T, V)):
            h = grid.spacing(k)[1][0]
            for i in range(0, len(lines), 7):
                wanted = slow(scheme, lines[i], h, (low, high))
                for p, side in zip((minus, plus), wanted, strict=True):
                    own = p[k].reshape(shape)
                    got = own[:, i] if k == 0 else own[i]
                    np.testing.assert_allclose(got, side, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("scheme", "order"),
    [(FirstOrder(), 1), (ENO2(), 2), (WENO3(), 3), (WENO5(), 5)],
    ids=lambda s: type(s).__name__,
)
def test_derivatives_of_a_sine_converge_at_the_stated_order(scheme, order):
    errors = []
    for n in (80, 160):
        grid = hjb.Grid(hjb.Box(0.0, 2 * np.pi, periodic=True), n)
        x = grid.axes[0]
        V = np.sin(x)
        minus, plus = np.empty((1, n)), np.empty((1, n))
        OneSided.on(grid, scheme, value=V).fill(V, minus, plus)
        # In L1: ENO changes stencils, and WENO loses an order, at critical points.
        errors.append([np.abs(p[0] - np.cos(x)).mean() for p in (minus, plus)])
    seen = np.log2(np.array(errors[0]) / errors[1])
    assert (np.abs(seen - order) < 0.25).all()


def test_a_stretched_axis_is_first_order_only():
    grid = hjb.Grid.from_axes([np.linspace(0, 1, 12) ** 2])
    V = 3.0 * grid.axes[0]
    minus, plus = np.empty((1, 12)), np.empty((1, 12))
    OneSided.on(grid, FirstOrder()).fill(V, minus, plus)
    np.testing.assert_allclose(minus, 3.0, rtol=1e-12)
    np.testing.assert_allclose(plus, 3.0, rtol=1e-12)
    with pytest.raises(hjb.MethodMismatch, match="axis 0 is stretched"):
        OneSided.on(grid, WENO5())


def test_flat_and_huge_values_stay_finite():
    for scale in (0.0, 1e-12, 1e12):
        grid = hjb.Grid(hjb.Box(0.0, 1.0), 20)
        V = scale * np.abs(grid.axes[0] - 0.4)
        minus, plus = np.empty((1, 20)), np.empty((1, 20))
        OneSided.on(grid, WENO5(), value=V).fill(V, minus, plus)
        assert np.isfinite(minus).all()
        assert np.abs(plus).max() <= 1.1 * scale


def test_too_few_nodes_are_refused():
    with pytest.raises(hjb.ProblemError, match="at least 4 nodes"):
        OneSided.on(hjb.Grid(hjb.Box(0.0, 1.0), 3), WENO5())
