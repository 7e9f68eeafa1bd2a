"""cross_check: a candidate against a truth that has an error bar."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, ProblemError

from .average_rules import rule_claim, rule_lasting_regret
from .measure import (
    Setting,
    Values,
    all_values,
    joined,
    levelled,
    loss_of,
    points_of,
    residual_of,
    slopes_of,
)
from .outcome import Measured, verdict_of
from .policies import policies_of
from .reference import check_taken, grid_of, problem_of, references, times_of
from .regret import Losses
from .ruling import Ruling
from .score import ScoreVerdict, check_score
from .slopes import Slopes
from .subject import Subject, subject_of
from .verdict import Verdict

if TYPE_CHECKING:
    import neural

Array = NDArray[np.float64]
BLIND = ", blind to the controller's choice,"


@overload
def cross_check(
    candidate: Any,
    reference: neural.ReverseDiffusion,
    *,
    times: Sequence[float] | None = None,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> ScoreVerdict: ...
@overload
def cross_check(
    candidate: Any,
    reference: Any,
    *,
    region: Box | None = None,
    times: Sequence[float] | None = None,
    tolerance: float = 1e-2,
    budget: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Verdict: ...
def cross_check(
    candidate: Any,
    reference: Any,
    *,
    region: Box | None = None,
    times: Sequence[float] | None = None,
    tolerance: float = 1e-2,
    budget: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Verdict | ScoreVerdict:
    """Judge a candidate: "agree", "differ" or "inconclusive", with the reasons.

    With e = |candidate - reference|, s the problem's scale (default sup|V|) and u the
    reference's error bar, at nodes, cell centres and quasi-random points: *differ* if
    somewhere ``e > tolerance s + u``, or the gradient, the regret or the paths fail;
    *agree* if ``e + u <= tolerance s`` at every point and the rest passes.

    With an exit the points where the process still runs are judged; with a horizon
    the same points at several times; with a right to stop the stopping rule as well.
    With ``average=True`` values are compared after their mean difference is removed,
    and a policy is judged by what it loses per unit time in the long run.

    Parameters
    ----------
    candidate : Solution, Candidate or torch module
    reference : Solution or ControlProblem
        A problem is solved here, on finer and finer grids until the answer is
        conclusive or the budget is spent. For a `neural.ReverseDiffusion` the
        candidate is a score and the verdict that of `check_score`, which has no
        region and no budget.
    region : Box, optional
        Where to judge. Default: the candidate's own region, else the inner 75 % of
        the domain along axes with an artificial face.
    times : sequence of float, optional
        Calendar times in [0, T) to judge at. Default: 0, T/4, T/2 and 3T/4.
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
        A problem with modes and more than a horizon.
    """
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ProblemError(
            f"cross_check: tolerance = {tolerance:g}; give a positive share of the "
            "value's scale, such as 1e-2."
        )
    if _is_score(reference):
        if region is not None or budget is not None:
            raise ProblemError(
                "cross_check: a score is judged under p_t and by simulation; it takes "
                "no region and no budget."
            )
        return check_score(
            candidate, reference, times=times, tolerance=tolerance, seed=seed
        )
    problem = problem_of(reference)
    check_taken("cross_check", problem)
    times_judged = times_of(problem, reference, times)
    subject = subject_of(candidate, problem)
    where = region_of(region, subject, problem)
    verdict: Verdict | None = None
    for solution in references(reference, times_judged, budget, progress):
        setting = Setting(
            problem, subject.against(solution), solution, grid_of(solution, problem),
            where, tolerance, seed, times_judged,
        )  # fmt: skip
        verdict = judge(setting)
        if verdict.status != "inconclusive":
            break
    assert verdict is not None
    return verdict


def _is_score(reference: Any) -> bool:
    """Whether the reference is a diffusion run backwards; torch is not brought in."""
    package = sys.modules.get("neural")
    return package is not None and isinstance(reference, package.ReverseDiffusion)


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


def judge(setting: Setting) -> Verdict:
    """Measure one candidate against one reference and apply the rules."""
    points = points_of(setting)
    setting = levelled(setting, points)
    found = all_values(setting, points)
    values, ruling = joined(found), Ruling(when=setting.instants[0].when)
    finite = _rule_values(ruling, values, setting)
    slopes = slopes_of(setting, found) if finite else None
    if slopes is not None:
        _rule_slopes(ruling, slopes, values, setting)
    if setting.long_run is not None:
        claimed = setting.subject.average
        rule_claim(ruling, setting.long_run, claimed, setting.tolerance)
    scale = setting.unit_of_losses(float(values.scale.max()))
    # A verdict already in doubt is not settled by a finer regret.
    refine = not ruling.findings
    losses, excursion = loss_of(setting, scale, refine) if finite else (None, None)
    if losses is not None:
        _rule_regret(ruling, losses, scale, setting)
    if excursion is not None:
        ruling.judge_excursion(
            excursion.share, excursion.reference_share, excursion.drives_out
        )
    now = setting.instants if finite else ()
    measured = Measured(
        found, slopes, losses, excursion, scale,
        [policies_of(instant, points, setting.seed) for instant in now],
        [residual_of(setting, instant, points) for instant in now],
    )  # fmt: skip
    return verdict_of(setting, points, ruling, measured)


def _rule_values(ruling: Ruling, values: Values, setting: Setting) -> bool:
    """Rules on the value; returns whether everything asked so far is finite."""
    e, u, s, tol = np.abs(values.signed), values.bar, values.scale, setting.tolerance
    if not setting.subject.has_value:
        # What a policy loses in the long run is not read off V.
        if setting.long_run is not None:
            return True
        ruling.judge_reference(u, s, tol, values.places)
        return True
    if ruling.judge_not_finite("value", values.candidate, values.places):
        return False
    if np.isfinite(u).all():
        ruling.judge_value(e, u, s, tol, values.places)
    else:
        ruling.judge_reference(u, s, tol, values.places)
    return True


def _rule_slopes(
    ruling: Ruling, slopes: Sequence[Slopes], values: Values, setting: Setting
) -> None:
    finite, excess, bar = (
        np.concatenate([getattr(s, name) for s in slopes])
        for name in ("finite", "excess", "bar")
    )
    if ruling.judge_not_finite("gradient", finite, values.places):
        return
    ruling.judge_gradient(excess, bar, setting.tolerance, values.places)
    ruling.judge_kinks(np.concatenate([s.wrong_kinks for s in slopes]))


def _rule_regret(
    ruling: Ruling, losses: Losses, scale: float, setting: Setting
) -> None:
    sides = {"control": losses.regrets, "adversary's control": losses.replies}
    for what, regrets in sides.items():
        for regret in regrets:
            nodes = regret.places(regret.grid.nodes()[regret.inside])
            if ruling.judge_not_finite(what, regret.policy[regret.inside], nodes):
                return
    if losses.missing is not None:
        ruling.doubt(f"the regret could not be computed: {losses.missing.note}")
        return
    if setting.long_run is not None:
        lasting = losses.deciding(setting.tolerance * scale)
        rule_lasting_regret(ruling, lasting, setting.long_run, setting.tolerance)
        return
    whose = "policy" if not losses.replies else "controller's strategy"
    theirs = "adversary's strategy" + setting.instants[0].subject.is_blind * BLIND
    for who, part in ((whose, losses), (theirs, losses.of_the_adversary)):
        if part is None:
            continue
        regret = part.deciding(setting.tolerance * scale)
        loss, where = regret.worst()
        if np.isinf(loss) and regret.note:
            ruling.fault(regret.note)
            continue
        measured = loss, regret.largest_bar()
        place = regret.places(where)
        ruling.judge_regret(who, measured, scale, setting.tolerance, place)
