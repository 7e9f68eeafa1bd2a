"""Numbers and functions of x are read alike."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.given_data import given_at


def test_a_number_holds_at_every_state_and_a_function_is_asked():
    x = np.arange(12.0).reshape(3, 2, 2)
    assert np.array_equal(given_at(2, x), np.full((3, 2), 2.0))
    assert np.array_equal(given_at(lambda x: x[..., 1], x), x[..., 1])


def test_what_is_not_finite_is_named_with_its_state():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])

    def g(x):
        return np.where(x[..., 0] > 2, np.inf, 0.0)

    with pytest.raises(hjb.ProblemError, match=r"'exit'.*x = \[3\. 4\.\]"):
        given_at(g, x, "'exit': value(x)")
    assert np.isinf(given_at(g, x)[1])
