"""What readers ask when training fails: why NaN, why not converging, why all zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from .evaluation.held_out import PROMISED
from .stopping_payoff import Payoffs
from .symptoms import Evidence, look

Array = NDArray[np.float64]
POINTS = 400
UNSETTLED = 1e-2
"""Half widths of the domain; V feels a move of its free boundary by the square."""
EXITS = 0.05
"""Share of paths leaving that is worth a word."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or limits the answer, and what to do.

    Parameters
    ----------
    name : str
        Short, such as "saturated actor".
    seen : str
        What was seen, with its number.
    remedy : str
    """

    name: str
    seen: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}\n    remedy: {self.remedy}"


@dataclass(frozen=True)
class Diagnosis:
    """Everything `diagnose` found; empty when nothing looked wrong."""

    status: str
    findings: tuple[Finding, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The findings by name."""
        return tuple(f.name for f in self.findings)

    def __str__(self) -> str:
        if not self.findings:
            return (
                f"{self.status}: nothing looks wrong. That is no proof: compare with a "
                "grid (verification.cross_check)."
            )
        return "\n".join([f"{self.status}:", *(f"  {f}" for f in self.findings)])


def diagnose(learned: Any, *, seed: int = 0, show: bool = True) -> Diagnosis:
    """Look through the report of a run, ask the answer itself, name what is wrong.

    The report gives gradients, time-step bias and noise; the answer is asked for its
    residual, curvature and control on the region, and its policy is simulated.

    Parameters
    ----------
    learned : LearnedSolution, LearnedScore, or `neural.as_candidate(module, problem)`
    seed : int
        Of the points and the simulated paths.
    show : bool
        Print the diagnosis.

    Returns
    -------
    Diagnosis, with findings among: inadmissible policy, exploding gradients,
    vanishing gradients, saturated actor, wrong curvature, paths leaving, time step
    dominates, noise dominates, destabilising policy, value and policy disagree,
    float32 floor, not a number, constant value, not converged, free boundary not
    settled.

    Raises
    ------
    ProblemError
        Something that is no answer of a learner.
    """
    report = getattr(learned, "report", None)
    if report is None and not hasattr(learned, "value_at"):
        raise ProblemError(
            f"diagnose: {type(learned).__name__} has no report and no value_at; give "
            "what neural.solve returned, or neural.as_candidate(module, problem)."
        )
    details = {} if report is None else report.details
    found = [*_of_status(report), *_of_gradients(details), *_of_steps(details)]
    found += _of_rounding(float(details.get("rounding", 0.0)))
    problem = _followed(learned)
    if isinstance(problem, ControlProblem):
        region = getattr(learned, "region", None)
        if region is None:
            assert problem.domain is not None
            region = problem.domain.inner(0.75, problem.artificial_axes)
        found += _of_answer(look(learned, problem, region, POINTS, seed), problem)
    elif hasattr(learned, "control_at") and isinstance(
        getattr(learned, "region", None), Box
    ):
        found += _of_saturation(float(details.get("saturated", 0.0)))
    diagnosis = Diagnosis("given" if report is None else report.status, tuple(found))
    if show:
        print(diagnosis)
    return diagnosis


def _followed(learned: Any) -> ControlProblem | None:
    """The problem whose paths the answer's rules can be followed along.

    Where somebody stops it ends there; None where the rule moves in time, or stops
    everywhere, because such paths cannot be simulated.
    """
    problem, stopping = getattr(learned, "problem", None), None
    if isinstance(problem, ControlProblem):
        stopping = getattr(learned, "stopping", None)
    if problem is None or stopping is None:
        return problem
    if problem.horizon is not None or stopping.everywhere:
        return None
    return Payoffs(problem).running_until(stopping)


def _of_status(report: Any) -> list[Finding]:
    if report is None or report.status in ("converged", "stagnated"):
        return []
    last = f", last change {report.residuals[-1]:.2g}" if report.residuals else ""
    seen = f"the run ended {report.status!r} after {report.iterations} rounds{last}"
    remedy = "more rounds or a smaller learning rate; after 'diverged' another start"
    off = report.details.get("error_estimate", 0.0)
    if off > PROMISED:
        seen += f"; at new states V may be off by {off:.2g} of sup|V|"
        remedy = "more features, or a grid (hjbpde.solve): kinks and thin layers"
    moved = report.details.get("surface_move", 0.0)
    if moved > UNSETTLED:
        surface = Finding(
            "free boundary not settled",
            f"in the last round it moved by {moved:.2g} half widths of the domain",
            "more features or rounds; a domain that fits closer to where one goes on",
        )
        return [Finding("not converged", seen, remedy), surface]
    return [Finding("not converged", seen, remedy)]


def _of_gradients(details: Mapping[str, Any]) -> list[Finding]:
    norms = details.get("gradient_norms")
    if not norms:
        return []
    low, high = float(np.min(norms)), float(np.max(norms))
    if not np.isfinite(high) or high > 1e4:
        return [
            Finding(
                "exploding gradients",
                f"the loss gradient reached {high:.2g}",
                "smaller learning rate; scale payoffs to order one; look for a payoff "
                "or a start whose value is infinite",
            )
        ]
    if high < 1e-8 or low < 1e-10 * high:
        return [
            Finding(
                "vanishing gradients",
                f"the loss gradient fell to {low:.2g} (largest {high:.2g})",
                "inputs of order one, less saturated activations, smaller initial "
                "weights; a target that is constant has nothing to teach",
            )
        ]
    share = float(details.get("layer_share", 1.0))
    if share < 1e-6:
        return [
            Finding(
                "vanishing gradients",
                f"one layer of the network gets {share:.1g} of the gradient of another",
                "fewer layers: what the first ones compute never reaches the loss, and "
                "the answer is the same number everywhere",
            )
        ]
    return []


def _of_steps(details: Mapping[str, Any]) -> list[Finding]:
    """Time-step bias against noise."""
    bias = details.get("time_step_bias")
    noise = details.get("policy_noise")
    if noise is None and details.get("warm_up_noise"):
        noise = details["warm_up_noise"][-1]
    if bias is None or noise is None or max(bias, noise) < 1e-2:
        return []
    numbers = f"time-step bias about {bias:.2g}, noise about {noise:.2g} (relative)"
    if bias > 2.0 * noise:
        remedy = "halve dt, or take the second-order scheme (order=2, Heun)"
        return [Finding("time step dominates", numbers, remedy)]
    if noise > 2.0 * bias:
        remedy = "more paths or transitions; a larger dt costs little bias here"
        return [Finding("noise dominates", numbers, remedy)]
    return []


def _of_rounding(share: float) -> list[Finding]:
    """Differences of V over dt, of numbers of one precision."""
    if share < 1e-2:
        return []
    return [
        Finding(
            "float32 floor",
            f"rounding V may change its difference over dt by {share:.2g} of the "
            "payoff's spread",
            "precision=torch.float64, or a larger dt",
        )
    ]


def _of_saturation(share: float) -> list[Finding]:
    if share < 0.9:
        return []
    return [
        Finding(
            "saturated actor",
            f"{share:.0%} of the states get a control on the same bound",
            "if the optimum is not bang-bang: start the actor in the middle of the "
            "set, smaller actor learning rate, wider bounds, a critic concave in a",
        )
    ]


def _of_numbers(e: Evidence) -> list[Finding]:
    """Why NaN, and why the same number everywhere."""
    if e.lost > 0.0:
        return [
            Finding(
                "not a number",
                f"V or its control is NaN or infinite on {e.lost:.0%} of the states; "
                "once one weight is NaN all are",
                "smaller learning rate; payoffs of order one; a start of finite value; "
                "look for a logarithm, root or division in the payoff near x = "
                f"{e.lost_at}",
            )
        ]
    if e.flat:
        return [
            Finding(
                "constant value",
                f"V is {e.level:.3g} all over, but its payoff is not the same "
                "everywhere: nothing was learned",
                "fewer layers or a larger learning rate; inputs and targets of order "
                "one; a boundary rule or terminal cost that tells states apart",
            )
        ]
    return []


def _of_answer(e: Evidence, problem: ControlProblem) -> list[Finding]:
    if e.lost > 0.0:
        return _of_numbers(e)
    out = [*_of_numbers(e), *_of_saturation(e.saturated), *_of_paths(e)]
    if e.wrong_curvature > 0.0:
        out.append(
            Finding(
                "wrong curvature",
                f"V'' has the sign that rewards infinite noise on "
                f"{e.wrong_curvature:.0%} of the states, so the best control is on its "
                "bound or infinite",
                "evaluate the start policy for a few rounds before the first "
                "improvement; a concave ansatz; variables in which V is smooth (log x)",
            )
        )
    if e.single_precision:
        out.append(
            Finding(
                "float32 floor",
                "every value is a float32 number: residuals below about "
                f"{e.floor:.1g} and second differences are round-off",
                "module.double() before judging residuals or training below 1e-5",
            )
        )
    return out


def _of_paths(e: Evidence) -> list[Finding]:
    """What simulation says about the policy, and about V."""
    if e.growing:
        infinite = Finding(
            "inadmissible policy",
            "the discounted payoff along the paths grows with time: the policy's "
            "value is infinite (the article's Merton start is such a case)",
            "start from a policy of finite value: neural.PolicyIteration(start=...)",
        )
        return [infinite, *_of_exits(e)]
    if e.leaving <= EXITS and e.mismatch > 0.05:
        return [
            Finding(
                "value and policy disagree",
                f"V differs by {e.mismatch:.2g} of its scale from what its policy "
                "earns in simulation",
                "more evaluation rounds; the constant part settles last (rate rho)",
            )
        ]
    return _of_exits(e)


def _of_exits(e: Evidence) -> list[Finding]:
    if e.leaving <= EXITS:
        return []
    if e.residual < 0.05:
        return [
            Finding(
                "destabilising policy",
                f"the residual is small ({e.residual:.1g} of V's scale) but "
                f"{e.leaving:.0%} of the policy's paths leave the domain: the equation "
                "has roots that are not the value",
                "start from an admissible (stabilising) policy, give boundary data, "
                "and judge by simulation or a grid, not by the residual",
            )
        ]
    return [
        Finding(
            "paths leaving",
            f"{e.leaving:.0%} of the policy's paths leave the domain through "
            "artificial faces",
            "widen the domain or give the faces their rule; beyond its data no "
            "network is right",
        )
    ]
