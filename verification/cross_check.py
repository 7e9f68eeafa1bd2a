"""cross_check: a candidate against a truth that has an error bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Grid, HJBError, ProblemError

from .candidate import Subject, subject_of
from .evidence import evidence_of
from .measure import (
    Setting,
    Values,
    all_values,
    loss_of,
    points_of,
    policies_of,
    residual_of,
    slopes_of,
)
from .points import SamplePoints
from .regret import Regret
from .ruling import Ruling
from .verdict import Verdict

Array = NDArray[np.float64]

DEFAULT_BUDGET = 60.0
DEFAULT_SHAPE = {1: 401, 2: 101, 3: 33, 4: 17}
GROWTH = 2.5
"""How much longer than 2^d times the last one a refined comparison may take."""


def cross_check(
    candidate: Any,
    reference: Any,
    *,
    region: Box | None = None,
    tolerance: float = 1e-2,
    budget: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Verdict:
    """Judge a candidate: "agree", "differ" or "inconclusive", with the reasons.

    With e = |candidate - reference|, s the problem's scale (default sup|V|) and u the
    reference's error bar, at nodes, cell centres and quasi-random points: *differ* if
    somewhere ``e > tolerance s + u``, or the gradient, the regret or the paths fail;
    *agree* if ``e + u <= tolerance s`` at every point and the rest passes.

    Parameters
    ----------
    candidate : Solution, Candidate or torch module
    reference : Solution or ControlProblem
        A problem is solved here, on finer and finer grids until the answer is
        conclusive or the budget is spent.
    region : Box, optional
        Where to judge. Default: the candidate's own region, else the inner 75 % of
        the domain along axes with an artificial face.
    tolerance : float
        Relative to s, > 0.
    budget : float, optional
        Seconds for refining, default 60; the first grid is always finished.
    seed : int
        Of the quasi-random points and the simulated noise.
    progress : bool
        Show bars on the terminal.

    Raises
    ------
    ProblemError
        A reference without its problem, an unusable candidate or region.
    MethodMismatch
        A problem with a horizon, an exit, modes or rights to stop.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ProblemError(
            f"cross_check: tolerance = {tolerance:g}; give a positive share of the "
            "value's scale, such as 1e-2."
        )
    problem = problem_of(reference)
    problem.require_only("cross_check")
    subject = subject_of(candidate, problem)
    where = region_of(region, subject, problem)
    verdict: Verdict | None = None
    for solution in references(reference, problem, budget, progress):
        setting = Setting(
            problem, subject, solution, grid_of(solution, problem), where,
            tolerance, seed,
        )  # fmt: skip
        verdict = judge(setting)
        if verdict.status != "inconclusive":
            break
    assert verdict is not None
    return verdict


def problem_of(reference: Any) -> ControlProblem:
    """The problem that the reference answers, or is."""
    if isinstance(reference, ControlProblem):
        return reference
    problem = getattr(reference, "problem", None)
    if not isinstance(problem, ControlProblem) or not hasattr(reference, "value_at"):
        raise ProblemError(
            f"cross_check: the reference is a {type(reference).__name__} without its "
            "problem; give a Solution (loaded ones with hjb.load(path, problem=...)) "
            "or a ControlProblem, which is then solved."
        )
    return problem


def region_of(region: Box | None, subject: Subject, problem: ControlProblem) -> Box:
    """Where to judge, inside the domain."""
    domain = problem.domain
    assert domain is not None
    if region is None:
        region = subject.region or domain.inner(0.75, problem.artificial_axes)
    if region.varies or region.dimension != problem.dimension:
        raise ProblemError(
            f"cross_check: region {region} does not fit a problem with "
            f"{problem.dimension} states; give a Box with constant bounds."
        )
    slack = 1e-9 * float(domain.width.max())
    corners = np.stack([np.asarray(region.low), np.asarray(region.high)])
    if not domain.contains(corners, slack).all():
        raise ProblemError(
            f"cross_check: the region {region} reaches outside the domain {domain}, "
            "where the reference is not defined; cut it."
        )
    low, high = (
        domain.clip(corners)
        if not any(np.atleast_1d(domain.periodic or False))
        else corners
    )
    return Box(low, high)


def grid_of(solution: Any, problem: ControlProblem) -> Grid:
    """The reference's own grid, or the problem's where it has none."""
    grid = getattr(solution, "grid", None)
    return grid if isinstance(grid, Grid) else first_grid(problem)


def first_grid(problem: ControlProblem) -> Grid:
    """The suggested grid, else a default shape for the dimension."""
    if problem.suggested_grid is not None:
        return problem.suggested_grid
    assert problem.domain is not None
    return Grid(problem.domain, (DEFAULT_SHAPE.get(problem.dimension, 9),))


def references(
    reference: Any, problem: ControlProblem, budget: float | None, progress: bool
) -> Iterator[Any]:
    """The reference itself, or solutions on finer and finer grids within `budget`."""
    if not isinstance(reference, ControlProblem):
        yield reference
        return
    limit = DEFAULT_BUDGET if budget is None else budget
    begin, grid = time.perf_counter(), first_grid(problem)
    last = begin
    solution = hjb.solve(problem, grid, progress=progress)
    while True:
        yield solution
        now = time.perf_counter()
        growth = GROWTH * 2**problem.dimension
        if now - begin + growth * (now - last) > limit:
            return
        last, grid = now, grid.refined()
        try:
            solution = hjb.solve(problem, grid, progress=progress)
        except HJBError:
            # The coarser comparison stands; a finer grid was only a hope.
            return


def judge(setting: Setting) -> Verdict:
    """Measure one candidate against one reference and apply the rules."""
    points = points_of(setting)
    values, ruling = all_values(setting, points), Ruling()
    finite = _rule_values(ruling, values, setting)
    slopes = slopes_of(setting, values.x) if finite else None
    if slopes is not None and not ruling.judge_not_finite(
        "gradient", slopes.finite, values.x
    ):
        ruling.judge_gradient(slopes.excess, slopes.bar, setting.tolerance, values.x)
        ruling.judge_kinks(slopes.wrong_kinks)
    scale = float(values.scale.max())
    # A verdict already in doubt is not settled by a finer regret.
    refine = not ruling.findings
    regret, excursion = loss_of(setting, scale, refine) if finite else (None, None)
    if regret is not None:
        _rule_regret(ruling, regret, scale, setting)
    if excursion is not None:
        ruling.judge_excursion(
            excursion.share, excursion.reference_share, excursion.drives_out
        )
    measured = {
        "slopes": slopes,
        "regret": regret,
        "excursion": excursion,
        "policies": policies_of(setting, points) if finite else None,
        "residual": residual_of(setting, points) if finite else None,
    }
    return _verdict(setting, points, values, ruling, measured)


def _rule_values(ruling: Ruling, values: Values, setting: Setting) -> bool:
    """Rules on the value; returns whether everything asked so far is finite."""
    e, u, s, tol = np.abs(values.signed), values.bar, values.scale, setting.tolerance
    if not setting.subject.has_value:
        ruling.judge_reference(u, s, tol, values.x)
        return True
    if ruling.judge_not_finite("value", values.candidate, values.x):
        return False
    if np.isfinite(u).all():
        ruling.judge_value(e, u, s, tol, values.x)
    else:
        ruling.judge_reference(u, s, tol, values.x)
    return True


def _rule_regret(
    ruling: Ruling, regret: Regret, scale: float, setting: Setting
) -> None:
    nodes = regret.grid.nodes()[regret.inside]
    if ruling.judge_not_finite("control", regret.policy[regret.inside], nodes):
        return
    if regret.map is None:
        ruling.doubt(f"the regret could not be computed: {regret.note}")
        return
    loss, where = regret.worst()
    ruling.judge_regret(loss, regret.largest_bar(), scale, setting.tolerance, where)


def _verdict(
    setting: Setting,
    points: SamplePoints,
    values: Values,
    ruling: Ruling,
    measured: dict[str, Any],
) -> Verdict:
    scale = float(values.scale.max())
    regret, excursion = measured["regret"], measured["excursion"]
    findings = ruling.findings
    places = [f.where for f in findings if f.where is not None]
    return Verdict(
        status=ruling.status,
        reasons=tuple(f.text for f in findings) or _why_agreed(setting, regret),
        **_errors(measured, values, points, scale),
        where=places[0] if places else _worst(values),
        resolution=points.resolution,
        tolerance=setting.tolerance,
        scale=scale,
        region=setting.region,
        n_points=len(values.x),
        name=setting.problem.name,
        details=_details(setting, measured, scale),
        evidence=evidence_of(
            setting.subject, setting.reference, setting.grid, setting.region,
            regret, excursion,
        ),
    )  # fmt: skip


def _errors(
    measured: dict[str, Any], values: Values, points: SamplePoints, scale: float
) -> dict[str, Any]:
    """The numbers of the verdict; None where there was nothing to measure."""
    slopes, policies = measured["slopes"], measured["policies"]
    regret, residual = measured["regret"], measured["residual"]
    known = _is_known(values)
    e = values.signed / values.scale
    centred = values.signed - values.signed[: points.n_nodes].mean() if known else e
    has_map = regret is not None and regret.map is not None
    loss = regret.worst()[0] / scale if regret is not None and has_map else None
    return {
        "value_error": float(np.abs(e).max()) if known else None,
        "mean_removed_error": (
            float(np.abs(centred / values.scale).max()) if known else None
        ),
        "gradient_error": None if slopes is None else _largest(slopes.error),
        "control_error": None if policies is None else _largest(policies.error),
        "regret": loss,
        "residual": None if residual is None else _largest(np.abs(residual)) / scale,
        "reference_error": float((values.bar / values.scale).max()),
    }


def _is_known(values: Values) -> bool:
    return bool(np.isfinite(values.signed).all())


def _worst(values: Values) -> Array | None:
    if not _is_known(values):
        return None
    return values.x[int(np.abs(values.signed / values.scale).argmax())]


def _why_agreed(setting: Setting, regret: Regret | None) -> tuple[str, ...]:
    judged = ["value, gradient"] if setting.subject.has_value else []
    judged += ["regret"] if regret is not None else []
    text = " and ".join(judged)
    return (
        f"{text} within {setting.tolerance:g} of the scale at every point, the "
        "reference's bar included.",
    )


def _details(
    setting: Setting, measured: dict[str, Any], scale: float
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "grid": list(setting.grid.shape),
        "seed": setting.seed,
        "reference_method": setting.reference.report.method,
    }
    regret, excursion = measured["regret"], measured["excursion"]
    if regret is not None and regret.bar is not None:
        out["regret_grid"] = list(regret.grid.shape)
        out["regret_bar"] = regret.largest_bar() / scale
        out["projected_control"] = float(regret.moved.max(initial=0.0))
    if excursion is not None:
        out["paths_leaving"] = excursion.share
        out["paths_leaving_reference"] = excursion.reference_share
        out["horizon_simulated"] = excursion.horizon
    if measured["slopes"] is not None:
        out["gradient_bar"] = _largest(measured["slopes"].bar)
        out["kinks"] = measured["slopes"].kinks
    if measured["policies"] is not None:
        out["hamiltonian_gap"] = _largest(measured["policies"].gap) / scale
    if measured["residual"] is not None:
        out["residual_rms"] = float(
            np.sqrt(np.nanmean(measured["residual"] ** 2)) / scale
        )
    return out


def _largest(array: Array) -> float:
    known = array[~np.isnan(array)]
    return float(known.max()) if known.size else float("nan")
