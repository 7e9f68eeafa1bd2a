"""Boxes and finite sets: what they refuse, and their geometry by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hjbpde as hjb


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        ([0.0, 2.0], [1.0, 1.0], "axis 1 is reversed"),
        ([0.0], [0.0], "axis 0 is reversed or empty"),
        ([np.nan], [1.0], "NaN"),
        ([0.0, 0.0, 0.0], [1.0, 1.0], "low has 3 entries and high has 2"),
        ([[0.0]], [1.0], "flat sequence"),
    ],
)
def test_box_refuses_bounds_that_hold_nothing(low, high, says):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.Box(low, high)


def test_box_refuses_a_wrong_number_of_periodic_marks():
    with pytest.raises(hjb.ProblemError, match="periodic has 3 entries for 2"):
        hjb.Box([0, 0], [1, 1], periodic=(True, False, True))


def test_box_bounds_cannot_be_written():
    box = hjb.Box(0.0, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(box.low)[0] = 5.0


def test_contains_ignores_periodic_axes():
    box = hjb.Box([0, 0], [1, 1], periodic=(False, True))
    inside = box.contains(np.array([[0.5, 7.0], [1.5, 0.5], [1.0, -3.0]]))
    assert inside.tolist() == [True, False, True]


@given(st.floats(-50, 50))
def test_wrap_moves_by_whole_periods_into_the_box(y):
    box = hjb.Box([-1.0], [2.5], periodic=True)
    wrapped = box.wrap(np.array([[y]]))[0, 0]
    turns = (y - wrapped) / 3.5
    assert -1.0 <= wrapped <= 2.5
    assert abs(turns - round(turns)) < 1e-12


@given(st.integers(0, 2**32 - 1))
def test_samples_lie_inside_even_where_a_side_is_infinite(seed):
    box = hjb.Box([-np.inf, 0.0, 3.0], [1.0, np.inf, 4.0])
    y = box.sample(np.random.default_rng(seed), 40)
    assert np.isfinite(y).all()
    assert box.contains(y).all()


def test_inner_keeps_the_middle_share_of_the_axes_asked_for():
    inner = hjb.Box([0, 0], [4, 8]).inner(0.5, (False, True))
    assert np.allclose(inner.low, [0, 2])
    assert np.allclose(inner.high, [4, 6])


def test_bounds_may_be_functions_of_the_state():
    box = hjb.Box(0.0, lambda x: 1 + x**2)
    low, high = box.bounds_at(np.array([[2.0], [3.0]]))
    assert np.allclose(low, 0)
    assert np.allclose(high, [[5.0], [10.0]])


@pytest.mark.parametrize(
    ("points", "says"),
    [([], "n >= 1"), ([[[1.0]]], r"\(n, m\)"), ([1.0, np.inf], "finite")],
)
def test_finite_refuses_unusable_points(points, says):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.Finite(points)


def test_finite_clips_to_the_nearest_point():
    y = hjb.Finite([[0, 0], [1, 1], [3, 0]]).clip(np.array([[2.2, 0.1], [0.6, 0.7]]))
    assert y.tolist() == [[3, 0], [1, 1]]
