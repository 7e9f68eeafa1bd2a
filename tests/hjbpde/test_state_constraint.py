"""Controls on faces that let nothing out, against general optimisers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

import hjbpde as hjb
from hjbpde.greedy import greedy_control
from hjbpde.state_constraint import hold_policy, outward_normals

SLACK = 1e-11


def constrained(drift, payoff, controls, d=2, **more):
    return hjb.ControlProblem(
        drift=drift,
        reward=payoff,
        controls=controls,
        domain=hjb.Box([0.0] * d, [1.0] * d),
        discount=1.0,
        boundary=hjb.StateConstraint(),
        **more,
    )


def gain(problem, x, p, a):
    drift = (np.asarray(problem.drift_at(x, a)) * p).sum(-1)
    return problem.sign * (np.asarray(problem.payoff_at(x, a)) + drift)


def faces_of_square(n, rng):
    """Half the states on edges, the last four in the corners."""
    x = rng.random((n, 2))
    x[np.arange(n), rng.integers(2, size=n)] = rng.integers(2, size=n)
    x[-4:] = [[0, 0], [0, 1], [1, 0], [1, 1]]
    return x


def quadratic(rng, sign=1.0):
    """f = c + B a, payoff -a'Ra/2 + s.a on the square and the box [-1, 1]^2."""
    B, c = rng.standard_normal((2, 2)), 0.2 * rng.standard_normal(2)
    R = rng.standard_normal((2, 2))
    R = R @ R.T + 0.3 * np.eye(2)
    s = rng.standard_normal(2)

    def drift(x, a):
        xp = hjb.namespace(x)
        parts = [c[i] + a @ B[i] + 0 * x[..., 0] for i in range(2)]
        return xp.stack(parts, -1)

    def payoff(x, a):
        return sign * (a @ s - 0.5 * ((a @ R) * a).sum(-1))

    return drift, payoff


def best_by_slsqp(problem, x, p):
    """One state: scipy's general constrained optimiser from several starts."""
    normals = outward_normals(problem, x[None])[0]
    limits = [
        {
            "type": "ineq",
            "fun": lambda a, k=k: (
                -normals[k] * np.asarray(problem.drift_at(x[None], a[None]))[0, k]
            ),
        }
        for k in range(2)
        if normals[k]
    ]
    best = -np.inf
    for start in np.random.default_rng(0).uniform(-1, 1, (6, 2)):
        out = minimize(
            lambda a: -gain(problem, x[None], p[None], a[None])[0],
            start,
            bounds=[(-1, 1)] * 2,
            constraints=limits,
            method="SLSQP",
            options={"ftol": 1e-13, "maxiter": 300},
        )
        if out.success and all(limit["fun"](out.x) >= -1e-9 for limit in limits):
            best = max(best, -out.fun)
    return best


@pytest.mark.parametrize("sense", ["reward", "cost"])
@pytest.mark.parametrize("seed", range(4))
def test_coupled_quadratic_maximiser_on_edges_and_corners_is_the_optimum(sense, seed):
    rng = np.random.default_rng(seed)
    drift, payoff = quadratic(rng, 1.0 if sense == "reward" else -1.0)
    problem = constrained(drift, payoff, hjb.Box([-1.0] * 2, [1.0] * 2))
    if sense == "cost":
        problem = hjb.ControlProblem(
            drift=drift,
            cost=payoff,
            controls=problem.controls,
            domain=problem.domain,
            discount=1.0,
            boundary=hjb.StateConstraint(),
        )
    x, p = faces_of_square(24, rng), rng.standard_normal((24, 2))
    wanted = np.array(
        [best_by_slsqp(problem, *pair) for pair in zip(x, p, strict=True)]
    )
    kept = np.isfinite(wanted)
    assert kept.sum() >= 16  # in a corner there may be no admissible control
    a = greedy_control(problem, x[kept], p[kept])
    push = outward_normals(problem, x[kept]) * problem.drift_at(x[kept], a)
    assert push.max() <= SLACK
    assert np.abs(gain(problem, x[kept], p[kept], a) - wanted[kept]).max() < 1e-6


def test_a_maximiser_that_points_inwards_is_left_alone():
    problem = constrained(
        lambda x, a: a, lambda x, a: -(a**2).sum(-1), hjb.Box([-1.0] * 2, [1.0] * 2)
    )
    x, p = np.array([[0.0, 0.5], [0.5, 0.5]]), np.array([[1.0, 3.0], [-1.0, 0.2]])
    free = greedy_control(replace(problem, boundary=None), x, p)
    assert np.array_equal(greedy_control(problem, x, p), free)


def test_sliding_along_a_face_mixes_two_extreme_controls():
    """f = (a1 + a2, a1 - a2), nothing paid: out along x at once, up by sliding.

    On the face x = 1, p = (1, .1): max .1 (a1 - a2) under a1 + a2 <= 0, so a = (1, -1).
    p = (1, 0): all of a1 + a2 = 0 is best, with gain 0.
    """

    def drift(x, a):
        return hjb.namespace(x).stack(
            [a[..., 0] + a[..., 1], a[..., 0] - a[..., 1]], -1
        )

    problem = constrained(
        drift, lambda x, a: 0 * a[..., 0], hjb.Box([-1.0] * 2, [1.0] * 2)
    )
    x, p = np.array([[1.0, 0.5]] * 2), np.array([[1.0, 0.1], [1.0, 0.0]])
    a = greedy_control(problem, x, p)
    assert np.allclose(a[0], [1.0, -1.0], atol=1e-12)
    assert np.abs(a.sum(1)).max() <= SLACK
    assert np.allclose(gain(problem, x, p, a), [0.2, 0.0], atol=1e-12)


def test_consumption_at_a_borrowing_limit_is_the_income():
    """log c + (1 + .05 x - c) p at x = 0: c = 1/p, but never above the income."""
    problem = constrained(
        lambda x, a: 1.0 + 0.05 * x - a,
        lambda x, a: hjb.namespace(a).log(a[..., 0]),
        hjb.Box(0.01, 10.0),
        d=1,
    )
    x, p = np.zeros((3, 1)), np.array([[0.2], [0.9], [4.0]])
    assert np.allclose(greedy_control(problem, x, p)[:, 0], [1.0, 1.0, 0.25], atol=1e-7)
    assert outward_normals(problem, x).tolist() == [[-1.0]] * 3
    a = greedy_control(problem, x, p)
    assert (1.0 - a[:, 0]).min() >= -SLACK


def test_a_set_of_controls_loses_those_that_point_outwards():
    controls = hjb.Finite([[-1.0], [-0.25], [0.5], [1.0]])
    problem = constrained(lambda x, a: a, lambda x, a: 0 * a[..., 0], controls, d=1)
    x = np.array([[0.0], [1.0], [0.4], [1.0]])
    p = np.array([[-1.0], [1.0], [1.0], [-1.0]])
    assert greedy_control(problem, x, p)[:, 0].tolist() == [0.5, -0.25, 1.0, -1.0]


def test_a_payoff_that_is_not_concave_is_searched_on_the_whole_admissible_set():
    """a^4 - a / 5 on [-1, 0] at the upper end: 1.2 at a = -1, 0 at rest."""
    problem = constrained(
        lambda x, a: a,
        lambda x, a: a[..., 0] ** 4 - 0.2 * a[..., 0],
        hjb.Box(-1.0, 1.5),
        d=1,
    )
    x, p = np.ones((1, 1)), np.zeros((1, 1))
    assert np.allclose(greedy_control(problem, x, p), -1.0)


def test_noise_that_the_control_makes_is_switched_off_on_the_face():
    """Share a1 of risk, spending a2: at the subsistence level only a1 = 0 is left."""

    def drift(x, a):
        return 0.1 * x + 0.05 * a[..., :1] - a[..., 1:]

    problem = constrained(
        drift,
        lambda x, a: hjb.namespace(a).log(a[..., 1]),
        hjb.Box([0.0, 0.01], [1.0, 3.0]),
        d=1,
        diffusion=lambda x, a: 0.2 * a[..., :1, None],
    )
    problem = hjb.ControlProblem(
        **{
            name: getattr(problem, name)
            for name in ("drift", "reward", "controls", "diffusion", "discount")
        },
        domain=hjb.Box(1.0, 5.0),
        boundary={(0, "low"): hjb.StateConstraint()},
    )
    x = np.array([[1.0], [2.0]])
    p, hess = np.full((2, 1), 2.0), np.full((2, 1, 1), -0.5)
    a = greedy_control(problem, x, p, hess)
    assert a[0, 0] == 0.0 and abs(a[0, 1] - 0.1) < 1e-9
    assert a[1, 0] == 1.0 and abs(a[1, 1] - 0.5) < 1e-6


@pytest.mark.parametrize("sigma", [0.3, lambda x, a: 0.3 + 0 * x[..., None]])
def test_noise_across_the_face_is_refused_with_the_state(sigma):
    problem = constrained(
        lambda x, a: a,
        lambda x, a: 0 * a[..., 0],
        hjb.Box(-1.0, 1.0),
        1,
        diffusion=sigma,
    )
    with pytest.raises(hjb.ProblemError, match=r"x = \[0\.?\] .*stills the noise"):
        greedy_control(problem, np.array([[0.5], [0.0]]), np.zeros((2, 1)))


@pytest.mark.parametrize("controls", [hjb.Box(1.0, 2.0), hjb.Finite([[1.0], [2.0]])])
def test_a_face_without_an_inward_control_is_refused_with_the_state(controls):
    problem = constrained(lambda x, a: a, lambda x, a: 0 * a[..., 0], controls, 1)
    good = np.array([[0.0], [0.7]])
    assert (greedy_control(problem, good, np.ones((2, 1))) > 0).all()
    with pytest.raises(hjb.ProblemError, match=r"x = \[1\.?\] .*turns the drift"):
        greedy_control(problem, np.array([[1.0]]), np.ones((1, 1)))


def test_a_given_policy_is_pulled_back_just_so_far():
    problem = constrained(
        lambda x, a: a - 0.25,
        lambda x, a: -((a - 0.1) ** 2).sum(-1),
        hjb.Box(-1.0, 1.0),
        1,
    )
    x, a = np.array([[0.0], [1.0], [0.5]]), np.array([[-0.5], [0.9], [0.9]])
    assert np.allclose(hold_policy(problem, x, a)[:, 0], [0.25, 0.25, 0.9], atol=1e-12)


def test_a_drift_that_bends_in_the_control_is_bisected():
    problem = constrained(
        lambda x, a: hjb.namespace(a).sinh(a) - 0.5,
        lambda x, a: -(a**2).sum(-1),
        hjb.Box(-2.0, 2.0),
        1,
    )
    x = np.array([[1.0]])
    a = hold_policy(problem, x, np.array([[1.5]]))
    assert abs(np.sinh(a[0, 0]) - 0.5) < 1e-9 and np.sinh(a[0, 0]) <= 0.5 + SLACK
    a = greedy_control(problem, x, np.array([[5.0]]))
    assert abs(np.sinh(a[0, 0]) - 0.5) < 1e-6 and np.sinh(a[0, 0]) <= 0.5 + SLACK


def towards_the_wall():
    """The state is costly, so the best drift leads to 0, where nothing may leave."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: -x[..., 0] - 0.1 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([0.0], [2.0]),
        discount=0.5,
        boundary=hjb.StateConstraint(),
    )


@pytest.mark.parametrize("order", [1, 2, 4])
def test_no_returned_control_leaves(order):
    # Greedy controls of corrected slopes led out of the wall (-.11 where 0 is best).
    problem = towards_the_wall()
    solution = hjb.solve(problem, 101, hjb.PolicyIteration(order=order))
    assert solution.control[0, 0] == 0.0
    # The distance to the wall is best left uncrossed from anywhere near it.
    ends = solution.control_at(np.array([[0.0], [2.0]]))[:, 0]
    assert ends[0] == pytest.approx(0.0, abs=SLACK)
    assert ends[1] < -0.5
    assert np.all(solution.control[1:, 0] < 0)
    held = hjb.evaluate(problem, solution.grid, solution.control)
    bar = solution.error_bar + held.error_bar
    assert np.all(np.abs(held.value - solution.value) <= bar + 1e-12)


def test_a_policy_that_leaves_is_named():
    problem = towards_the_wall()
    with pytest.raises(hjb.ProblemError, match=r"drives the state out.*\(0, 'low'\)"):
        hjb.evaluate(problem, 41, lambda x: -1.0 + 0.0 * x)


def test_outward_only_by_rounding_is_no_leaving():
    problem = towards_the_wall()
    grid = hjb.Grid(problem.domain, 41)
    a = hjb.solve(problem, grid, hjb.PolicyIteration(order=1)).control
    exact = hjb.evaluate(problem, grid, a).value
    a[0] = -1e-14
    found = hjb.evaluate(problem, grid, a).value
    assert np.allclose(found, exact, rtol=0, atol=1e-13)
