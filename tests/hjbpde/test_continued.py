"""A problem continued beyond its domain, and functions that are not asked there."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.methods.continued import continued

INSIDE = hjb.Box([-1.0, 0.5], [2.0, 1.0])
WIDER = hjb.Box([-5.0, -0.25], [6.0, 1.75])


def quadratic(x):
    return 1.0 + x[..., 0] * x[..., 1] - 2.0 * x[..., 0] ** 2 + 3.0 * x[..., 1] ** 2


def within(x, slack=1e-12):
    """Refuses states outside the domain."""
    assert INSIDE.contains(np.asarray(x), slack).all()
    return x


def problem(domain=INSIDE, **fields):
    given = {
        "drift": lambda x, a: within(x) * a[..., :1] + a,
        "diffusion": lambda x, a: np.stack([within(x), 0.1 * within(x)], axis=-1),
        "reward": lambda x, a: quadratic(within(x)) - a[..., 0] ** 2,
        "discount": lambda x: 2.0 + within(x)[..., 0] * 0.1,
        "controls": hjb.Box(lambda x: -1.0 - within(x) ** 2, [1.0, 1.0]),
    }
    return hjb.ControlProblem(domain=domain, **{**given, **fields})


@pytest.mark.parametrize("shape", [(200,), (20, 10)])
def test_quadratic_functions_continue_as_they_are(shape):
    rng = np.random.default_rng(0)
    beyond = continued(problem(WIDER, diffusion=np.eye(2)), INSIDE)
    x = WIDER.sample(rng, 200).reshape(*shape, 2)
    a = rng.normal(size=x.shape)
    expected = x * a[..., :1] + a
    np.testing.assert_allclose(beyond.drift_at(x, a), expected, atol=1e-11)
    reward = quadratic(x) - a[..., 0] ** 2
    np.testing.assert_allclose(beyond.payoff_at(x, a), reward, atol=1e-11)
    np.testing.assert_allclose(beyond.discount_at(x), 2.0 + 0.1 * x[..., 0])
    assert isinstance(beyond.controls, hjb.Box)
    low, high = beyond.controls.bounds_at(x)
    np.testing.assert_allclose(low, -1.0 - x**2, atol=1e-11)
    np.testing.assert_array_equal(high, [1.0, 1.0])


def test_inside_nothing_changes():
    rng = np.random.default_rng(1)
    own, beyond = problem(), continued(problem(WIDER), INSIDE)
    x, a = INSIDE.sample(rng, 50), rng.normal(size=(50, 2))
    for name in ("drift_at", "payoff_at", "diffusion_at"):
        np.testing.assert_array_equal(
            getattr(own, name)(x, a), getattr(beyond, name)(x, a)
        )


def test_states_next_to_a_face_are_continued_without_overflow():
    beyond = continued(problem(WIDER, discount=0.5), INSIDE)
    x = np.array([[np.nextafter(2.0, 3.0), 0.7], [2.0, 0.7], [2.0 + 1e-300, 0.7]])
    np.testing.assert_allclose(
        beyond.payoff_at(x, np.zeros((3, 2))), quadratic(x), rtol=1e-13
    )


def test_periodic_axes_have_no_outside():
    around = hjb.Box([-1.0, 0.0], [1.0, 1.0], periodic=[True, False])
    beyond = continued(
        hjb.ControlProblem(
            drift=lambda x, a: x, cost=lambda x, a: np.cos(np.pi * x[..., 0]),
            discount=1.0, domain=around,
        ),
        around,
    )  # fmt: skip
    x = np.array([[7.3, 0.5], [7.3, 1.5]])
    np.testing.assert_allclose(
        beyond.payoff_at(x, np.zeros((2, 0))), np.cos(np.pi * 7.3), rtol=1e-12
    )


@pytest.mark.parametrize("method", [None, hjb.SemiLagrangian()])
@pytest.mark.parametrize("average", [False, True])
def test_a_regulator_whose_closures_are_exact_is_asked_inside_only(method, average):
    """No bound on the control is met on four times the domain either."""
    farthest = 0.0

    def inside(x):
        # What is raised out there would be taken for a function without values.
        nonlocal farthest
        farthest = max(farthest, float(np.abs(x).max()))
        return x

    settled = {"average": True} if average else {"discount": 0.5}
    regulator = hjb.ControlProblem(
        drift=lambda x, a: -inside(x) + a,
        diffusion=0.3,
        cost=lambda x, a: inside(x)[..., 0] ** 2 + a[..., 0] ** 2,
        controls=hjb.Box(-3.0, 3.0),
        domain=hjb.Box(-1.0, 1.0),
        **settled,
    )
    solution = hjb.solve(regulator, 41, method)
    assert solution.report.converged
    assert farthest <= 1.0 + 1e-12
