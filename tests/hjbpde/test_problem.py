"""A problem that cannot be solved as stated is refused with what, where and why."""

import numpy as np
import pytest

import hjbpde as hjb


def parts(**changes):
    """A one-dimensional problem that is fine, with some fields replaced."""
    fields = {
        "drift": lambda x, a: -x + a,
        "diffusion": 0.3,
        "reward": lambda x, a: -(x[..., 0] ** 2) - a[..., 0] ** 2,
        "controls": hjb.Box(-1.0, 1.0),
        "domain": hjb.Box(-1.0, 1.0),
        "discount": 0.5,
    }
    return {k: v for k, v in {**fields, **changes}.items() if v is not None}


def refused(says: str, **changes):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.ControlProblem(**parts(**changes))


def test_exactly_one_of_reward_and_cost_is_asked_for():
    refused("exactly one", cost=lambda x, a: x[..., 0])
    with pytest.raises(hjb.ProblemError, match="exactly one"):
        hjb.ControlProblem(**parts(reward=None))


@pytest.mark.parametrize("rho", [-0.1, np.nan, np.inf])
def test_a_discount_that_is_no_rate_is_refused(rho):
    refused("finite rate >= 0", discount=rho)


def test_discount_zero_needs_another_end_of_time():
    refused("nothing may end the process", discount=0.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"domain": hjb.Box(-np.inf, 1.0)}, "unbounded"),
        ({"domain": hjb.Box(0.0, lambda x: x)}, "constant bounds"),
        ({"domain": 3.0}, "'domain' must be a Box"),
        ({"diffusion": np.nan}, "'diffusion' must be a finite number"),
        ({"diffusion": np.eye(2)}, "2 rows for 1 states"),
        ({"diffusion": np.ones(3)}, "array"),
        ({"controls": [0, 1]}, "'controls' must be Box"),
        ({"controls": hjb.Box(0, 1, periodic=True)}, "cannot be periodic"),
        ({"drift": 1.0}, "'drift' must be a function"),
        ({"boundary": "wall"}, "'boundary' must be"),
        ({"boundary": {(1, "low"): hjb.Reflecting()}}, "names the face"),
        ({"boundary": {(0, "low"): 0.0}}, "not a rule"),
        ({"drift": lambda x, a, t: x}, "no horizon"),
        ({"discount": lambda x, t: x[..., 0]}, "no horizon"),
    ],
)
def test_an_unusable_field_is_named(changes, says):
    refused(says, **changes)


def test_a_periodic_axis_has_no_faces():
    box = hjb.Box([0, 0], [1, 1], periodic=(True, False))
    rule = {(0, "low"): hjb.Reflecting()}
    refused("a periodic axis has none", domain=box, boundary=rule)


def test_robin_without_a_slope_is_refused():
    with pytest.raises(hjb.ProblemError, match="beta is 0"):
        hjb.Robin(1.0, 0.0, 2.0)


def test_faces_without_a_rule_are_artificial():
    problem = hjb.ControlProblem(**parts(boundary={(0, "low"): hjb.Reflecting()}))
    assert problem.faces[(0, "high")] is None
    assert problem.artificial_axes == (True,)


@pytest.mark.parametrize(
    ("field", "function"),
    [
        ("drift", lambda x, a: np.concatenate([x, x], -1)),
        ("reward", lambda x, a: x**2),
        ("diffusion", lambda x, a: x),
        ("discount", lambda x: x + 2),
    ],
)
def test_a_function_of_the_wrong_shape_is_named_with_both_shapes(field, function):
    problem = hjb.ControlProblem(**parts(**{field: function}))
    with pytest.raises(hjb.ProblemError, match=f"'{field}' returned shape"):
        hjb.solve(problem, 21)


def test_a_scalar_that_keeps_a_last_axis_is_told_how_to_drop_it():
    problem = hjb.ControlProblem(**parts(reward=lambda x, a: x**2))
    with pytest.raises(hjb.ProblemError, match=r"index with x\[\.\.\., 0\]"):
        hjb.solve(problem, 21)


def broken(function, bad):
    """`function` with `bad` where x is about 0.5."""

    def out(x, *a):
        value = np.array(function(x, *a), dtype=float)
        near = np.abs(x[..., 0] - 0.5) < 1e-9
        value[near] = bad
        return value

    return out


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["drift", "reward", "diffusion", "discount"])
def test_a_value_that_is_not_finite_names_function_and_point(field, bad):
    fine = {
        "drift": lambda x, a: -x + a,
        "reward": lambda x, a: -(x[..., 0] ** 2) - a[..., 0] ** 2,
        "diffusion": lambda x, a: 0.3 + 0 * x[..., None],
        "discount": lambda x: 0.5 + 0 * x[..., 0],
    }
    problem = hjb.ControlProblem(**parts(**{field: broken(fine[field], bad)}))
    with pytest.raises(hjb.ProblemError, match=f"(?s)'{field}'.*0\\.5"):
        hjb.solve(problem, 21)


def test_boundary_data_that_are_not_finite_name_the_face():
    rule = {(0, "high"): hjb.Dirichlet(lambda x: np.nan * x[..., 0])}
    problem = hjb.ControlProblem(**parts(boundary=rule))
    with pytest.raises(hjb.ProblemError, match=r"face \(0, 'high'\)"):
        hjb.solve(problem, 21)


def test_an_exception_inside_a_function_is_explained():
    def drift(x, a):
        raise ZeroDivisionError("no")

    problem = hjb.ControlProblem(**parts(drift=drift))
    with pytest.raises(hjb.ProblemError, match="'drift' raised ZeroDivisionError"):
        hjb.solve(problem, 21)


def test_a_random_function_is_refused():
    rng = np.random.default_rng(0)
    reward = lambda x, a: x[..., 0] + rng.normal(size=x.shape[:-1])  # noqa: E731
    problem = hjb.ControlProblem(**parts(reward=reward))
    with pytest.raises(hjb.ProblemError, match="not a function of"):
        hjb.solve(problem, 21)


def test_a_function_of_the_whole_batch_is_refused():
    reward = lambda x, a: x[..., 0] - x[..., 0].mean()  # noqa: E731
    problem = hjb.ControlProblem(**parts(reward=reward))
    with pytest.raises(hjb.ProblemError, match="other points of the batch"):
        hjb.solve(problem, 21)


def test_a_function_that_writes_into_its_arguments_is_refused():
    def reward(x, a):
        a *= 0.5
        return x[..., 0]

    problem = hjb.ControlProblem(**parts(reward=reward))
    with pytest.raises(hjb.ProblemError, match="writes into its arguments"):
        hjb.solve(problem, 21)


def test_user_functions_are_never_called_outside_the_domain():
    seen = [0.0, 0.0]

    def reward(x, a):
        seen[0] = min(seen[0], float(x.min()))
        seen[1] = max(seen[1], float(x.max()))
        return -(x[..., 0] ** 2) - a[..., 0] ** 2

    hjb.solve(hjb.ControlProblem(**parts(reward=reward)), 41)
    assert seen == [-1.0, 1.0]


def test_an_unbounded_control_without_cost_is_refused():
    changes = {
        "controls": hjb.Box(-np.inf, np.inf),
        "reward": lambda x, a: -(x[..., 0] ** 2),
    }
    with pytest.raises(hjb.ProblemError, match="control 0 is unbounded"):
        hjb.solve(hjb.ControlProblem(**parts(**changes)), 21)


def test_an_unbounded_control_without_closed_form_is_refused():
    changes = {
        "controls": hjb.Box(-np.inf, np.inf),
        "reward": lambda x, a: -(a[..., 0] ** 4),
    }
    with pytest.raises(hjb.ProblemError, match="no closed form holds"):
        hjb.solve(hjb.ControlProblem(**parts(**changes)), 21)


def test_extrapolation_under_a_drift_that_points_outward_is_refused():
    changes = {"drift": lambda x, a: x, "boundary": hjb.Extrapolate()}
    with pytest.raises(hjb.ProblemError, match=r"x = \[-?1\.?\]"):
        hjb.solve(hjb.ControlProblem(**parts(**changes)), 21)


def test_a_fixed_policy_that_leaves_under_extrapolation_is_refused():
    changes = {"drift": lambda x, a: a, "boundary": hjb.Extrapolate()}
    problem = hjb.ControlProblem(**parts(**changes))
    with pytest.raises(hjb.ProblemError, match=r"x = \[-?1\.?\]"):
        hjb.evaluate(problem, 21, lambda x: np.sign(x))


def test_a_state_constraint_that_no_control_keeps_names_the_node():
    changes = {
        "drift": lambda x, a: 3 + a,
        "boundary": hjb.StateConstraint(),
        "diffusion": None,
    }
    with pytest.raises(hjb.ProblemError, match=r"x = \[1\.?\]"):
        hjb.solve(hjb.ControlProblem(**parts(**changes)), 21)


def test_noise_across_a_constrained_face_is_refused():
    problem = hjb.ControlProblem(**parts(boundary=hjb.StateConstraint()))
    with pytest.raises(hjb.HJBError, match="noise"):
        hjb.solve(problem, 21)


def test_a_grid_that_does_not_fit_in_memory_is_refused_before_allocating(monkeypatch):
    def touched(*_):
        raise AssertionError("an array was asked for")

    problem = hjb.catalogue.get("manufactured", dimension=4)
    grid = hjb.Grid(problem.domain, 2001)
    monkeypatch.setattr(hjb.Grid, "nodes", touched)
    with pytest.raises(hjb.MemoryBudgetError, match=r"GB"):
        hjb.solve(problem, grid)


def test_methods_and_grids_that_do_not_fit_are_refused():
    problem = hjb.catalogue.get("manufactured")
    with pytest.raises(hjb.MethodMismatch, match="order is 3"):
        hjb.solve(problem, 21, hjb.PolicyIteration(order=3))
    with pytest.raises(hjb.MethodMismatch, match="not a method"):
        hjb.solve(problem, 21, "upwind")  # type: ignore[arg-type]
    with pytest.raises(hjb.MethodMismatch, match="order=1"):
        hjb.solve(problem, 21, hjb.PolicyIteration(richardson=True))
    with pytest.raises(hjb.MethodMismatch, match="1 to 4 dimensions"):
        hjb.solve(hjb.catalogue.get("manufactured", dimension=5), 5)
    with pytest.raises(hjb.ProblemError, match="the grid covers"):
        hjb.solve(problem, hjb.Grid(hjb.Box(-1.0, 1.0), 21))
    with pytest.raises(hjb.ProblemError, match="times="):
        hjb.solve(problem, 21, times=[0.0])
    with pytest.raises(hjb.ProblemError, match="guess"):
        hjb.solve(problem, 21, guess=np.zeros(5))


def test_points_outside_the_domain_and_nan_points_are_refused():
    solution = hjb.solve(hjb.catalogue.get("manufactured"), 51)
    for x in (2.5, np.nan):
        for evaluator in (solution.value_at, solution.control_at, solution.error_at):
            with pytest.raises(hjb.ProblemError):
                evaluator(np.array([[x]]))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"tolerance": -1.0}, "tolerance"), ({"budget": -1.0}, "budget")],
)
def test_options_of_solve_out_of_range_are_refused(options, words):
    with pytest.raises(hjb.ProblemError, match=words):
        hjb.solve(hjb.catalogue.get("lqr"), 21, **options)


def test_what_is_not_a_problem_is_refused():
    with pytest.raises(hjb.ProblemError, match="solve takes a ControlProblem, got str"):
        hjb.solve("lqr", 21)
