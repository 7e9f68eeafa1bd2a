"""Convergence studies (kind: exact, contract)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb
from verification import convergence_study

SHAPES = [101, 201, 401, 801]
UPWIND = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)


def test_upwind_converges_at_first_order_on_manufactured() -> None:
    study = convergence_study(hjb.catalogue.get("manufactured"), SHAPES, UPWIND)
    assert abs(study.order - 1.0) < 0.1
    assert abs(study.orders[-1] - 1.0) < 0.1
    assert study.errors[-1] < 4e-3


def test_the_default_method_converges_at_second_order_under_its_bar() -> None:
    study = convergence_study(hjb.catalogue.get("manufactured"), SHAPES)
    assert abs(study.orders[-1] - 2.0) < 0.1
    assert (study.covered > 0.99).all()
    assert (study.error_bars >= 0.99 * study.errors).all()


def test_without_an_exact_answer_the_finest_solution_stands_in() -> None:
    problem = replace(hjb.catalogue.get("manufactured"), exact=None)
    study = convergence_study(problem, SHAPES, UPWIND)
    assert len(study.errors) == len(SHAPES) - 1
    assert "801" in study.reference and study.reference_error > 0


@pytest.mark.parametrize("kind", ["solution", "function"])
def test_a_reference_can_be_given(kind: str) -> None:
    problem = hjb.catalogue.get("manufactured")
    assert problem.exact is not None
    fine = hjb.solve(problem, 1601)
    reference = fine if kind == "solution" else problem.exact.value
    given = convergence_study(problem, SHAPES[:2], reference=reference)
    exact = convergence_study(problem, SHAPES[:2])
    assert np.allclose(given.errors, exact.errors, rtol=0.05)


def test_table_and_figure_show_every_grid() -> None:
    study = convergence_study(
        hjb.catalogue.get("manufactured", dimension=2), [(21, 21), (41, 41)]
    )
    assert "21x21" in study.table() and "41x41" in study.table()
    assert len(study.plot().axes) == 1
    assert study.to_dict()["shapes"] == [[21, 21], [41, 41]]


def test_one_shape_is_refused() -> None:
    with pytest.raises(hjb.ProblemError, match="at least two"):
        convergence_study(hjb.catalogue.get("lqr"), [101])


def test_an_unusable_reference_is_refused() -> None:
    with pytest.raises(hjb.ProblemError, match="reference is a int"):
        convergence_study(hjb.catalogue.get("lqr"), [51, 101], reference=3)


def test_several_values_a_state_are_refused():
    with pytest.raises(hjb.MethodMismatch, match="'modes'"):
        convergence_study(hjb.catalogue.get("consumption-saving"), SHAPES)


def test_a_problem_with_a_horizon_is_studied_today():
    """Second order in space, its time error being far below."""
    problem = hjb.catalogue.get("reverse-diffusion")
    method = hjb.Marching(order=2)
    study = convergence_study(problem, [41, 81, 161], method)
    assert np.all(np.abs(study.orders - 2.0) < 0.3), study.orders
    assert (study.covered >= 0.99).all()


def test_modes_are_refused():
    problem = hjb.catalogue.get("consumption-saving")
    with pytest.raises(hjb.MethodMismatch, match="modes"):
        convergence_study(problem, [51, 101])
