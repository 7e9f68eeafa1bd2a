"""A candidate made ready: every question takes points (n, d) and is checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, ProblemError, Report
from hjbpde.greedy import greedy_control, greedy_pair, greedy_reply
from hjbpde.held import keywords
from hjbpde.players import is_coupled, one_player
from hjbpde.real_numbers import real_array
from hjbpde.sets import ControlSet
from hjbpde.state_constraint import hold_policy

from .candidate import Candidate
from .candidate_checks import check_fields
from .differences import first_derivatives, second_derivatives
from .nearest import nearest

Array = NDArray[np.float64]

VALUE_STEP = 1e-4
"""Difference step for gradients, as a share of the region's width."""
CURVE_STEP = 2e-3
"""Step for second differences, wider because they divide round-off by its square."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A candidate with its problem.

    Parameters
    ----------
    problem : ControlProblem
    box : Box
        Where the functions may be asked; difference stencils stay inside.
    functions : Candidate
    region : Box or None
        Where the candidate itself claims to hold.
    report : Report or None
        Of a candidate that is a Solution.
    slack : float
        How far above what stopping pays a value still means to stop.
    maximises : bool
        Whether policies given are greedy for the value, as those of a solution are.
    average : float or None
        The long-run average that it claims.
    lent : bool
        Whether the adversary is the reference's (`against`) and not judged.
    """

    problem: ControlProblem
    box: Box
    functions: Candidate
    region: Box | None = None
    report: Report | None = None
    slack: float = 0.0
    maximises: bool = False
    lent: bool = False
    average: float | None = None

    @classmethod
    def of(cls, solution: Any, problem: ControlProblem) -> Subject:
        """A solution that is taken at its word, asked wherever it is defined."""
        functions = Candidate(
            solution.value_at, solution.control_at, solution.gradient_at
        )
        assert problem.domain is not None
        return cls(problem, problem.domain, functions)

    def at(self, t: float) -> Subject:
        """The candidate at calendar time t, for the problem with its data there."""
        now = self.problem.at_time(t)
        return replace(self, problem=now, functions=self.functions.at(t))

    def against(self, solution: Any) -> Subject:
        """A controller's policy alone, in a game, with the reference's adversary."""
        own = self.functions
        given = own.value is not None or own.adversary is not None
        if self.problem.adversary is None or given:
            return self
        truth = Subject.of(solution, self.problem)

        def reply(x: Array, a: Array) -> Array:
            return truth.reply(x, a)[0]

        def reply_at(x: Array, a: Array, t: float) -> Array:
            return truth.at(t).reply(x, a)[0]

        lent = reply if self.problem.horizon is None else reply_at
        return replace(self, functions=replace(own, adversary=lent), lent=True)

    def in_mode(self, mode: int) -> Subject:
        """The candidate in one mode, for the problem with its data there."""
        now = self.problem.in_mode(mode)
        return replace(self, problem=now, functions=self.functions.in_mode(mode))

    def raised(self, constant: float) -> Subject:
        """The candidate with a constant added to its value."""
        value = self.functions.value
        assert value is not None
        own = replace(self.functions, value=lambda x: value(x) + constant)
        return replace(self, functions=own)

    @property
    def has_value(self) -> bool:
        """Whether a value is judged, not the policy alone."""
        return self.functions.value is not None

    def value(self, x: Array) -> Array:
        """V at x (n, d), shape (n,); may hold NaN, which the verdict judges."""
        assert self.functions.value is not None
        return checked(self.functions.value(x), (len(x),), "value")

    def gradient(self, x: Array) -> Array:
        """grad V at x (n, d), shape (n, d)."""
        if self.functions.gradient is not None:
            return checked(self.functions.gradient(x), x.shape, "gradient")
        return first_derivatives(self.value, x, self.box, VALUE_STEP)

    def curvature(self, x: Array) -> Array:
        """Second derivatives along the axes, shape (n, d)."""
        if self.functions.gradient is None:
            return second_derivatives(self.value, x, self.box, CURVE_STEP)
        columns = [
            first_derivatives(
                lambda y, k=k: self.gradient(y)[:, k], x, self.box, CURVE_STEP, (k,)
            )[:, 0]
            for k in range(x.shape[1])
        ]
        return np.stack(columns, axis=1)

    def raw_control(self, x: Array) -> Array:
        """The policy at x (n, d), shape (n, m), before projection on its set."""
        if self.problem.controls is None:
            return np.zeros((len(x), 0))
        if self.functions.control is not None:
            shape = (len(x), self.problem.n_controls)
            return checked(self.functions.control(x), shape, "control")
        return self.greedy(x)

    def greedy(self, x: Array) -> Array:
        """The maximiser of the Hamiltonian with this value's derivatives.

        With an adversary the controller's, who knows that every choice is answered.
        """
        out = np.full((len(x), self.problem.n_controls), np.nan)
        good, p, hess = self.derivatives(x)
        if self.problem.adversary is None:
            out[good] = greedy_control(self.problem, x[good], p, hess, strict=False)
        else:
            both = greedy_pair(self.problem, x[good], p, hess)
            out[good] = both[:, : self.problem.n_controls]
        return out

    def derivatives(self, x: Array) -> tuple[NDArray[np.bool_], Array, Array | None]:
        """Where they are finite (n,), and there grad V (k, d) and hess V (k, d, d).

        The latter along the axes only, and None where the noise asks for none.
        """
        p, hess = self.gradient(x), None
        good: NDArray[np.bool_] = np.asarray(np.isfinite(p).all(axis=1))
        if callable(self.problem.diffusion):
            hess = np.einsum("ni,ij->nij", self.curvature(x), np.eye(x.shape[1]))
            good &= np.isfinite(hess).all(axis=(1, 2))
        return good, p[good], None if hess is None else hess[good]

    def reply(self, x: Array, a: Array) -> tuple[Array, Array]:
        """The adversary's controls at x (n, d) to a (n, m), as `control`; (n, mb)."""
        assert self.problem.adversary is not None
        raw = self._raw_reply(x, a)
        projected = clipped(self.problem.adversary, x, raw)
        return projected, np.abs(projected - raw)

    def _raw_reply(self, x: Array, a: Array) -> Array:
        assert self.problem.adversary is not None
        shape = (len(x), self.problem.adversary.dimension)
        own = self.functions.adversary
        if own is not None:
            answer = own(x, a=a) if "a" in keywords(own) else own(x)
            return checked(answer, shape, "adversary")
        out = np.full(shape, np.nan)
        good: NDArray[np.bool_] = np.asarray(np.isfinite(a).all(axis=1))
        known, p, hess = self.derivatives(x[good])
        good[good] = known
        out[good] = greedy_reply(self.problem, x[good], p, hess, a[good])
        return out

    @property
    def is_greedy(self) -> bool:
        """Whether the controller's policy maximises its value's Hamiltonian."""
        return self.maximises or self.functions.control is None

    @property
    def replies_greedily(self) -> bool:
        """The same of the adversary's."""
        return self.maximises or self.functions.adversary is None

    def by_its_value(self) -> Subject:
        """The same value with greedy strategies."""
        alone = replace(self.functions, control=None, adversary=None)
        return replace(self, functions=alone)

    @property
    def answers(self) -> bool:
        """Whether the adversary's strategy depends on the controller's choice."""
        own = self.functions.adversary
        return is_coupled(self.problem) if own is None else "a" in keywords(own)

    @property
    def is_blind(self) -> bool:
        """Whether the adversary could answer the controller's choice, but does not."""
        given = self.functions.adversary is not None
        return given and not self.answers and is_coupled(self.problem)

    @property
    def joint(self) -> ControlProblem:
        """The problem of one player who has all controls, (a, b) side by side."""
        return one_player(self.problem)

    def choices(self, x: Array) -> Array:
        """Everybody's controls at x (n, d), projected and side by side."""
        a = self.control(x)[0]
        if self.problem.adversary is None:
            return a
        return np.concatenate([a, self.reply(x, a)[0]], axis=1)

    def best_choices(self, x: Array) -> Array:
        """Everybody's best controls for this value's derivatives, as `choices`."""
        a = self.greedy(x)
        if self.problem.adversary is None:
            return a
        b = self.by_its_value().reply(x, a)[0]
        return np.concatenate([a, b], axis=1)

    def stops(self, x: Array) -> NDArray[np.bool_]:
        """Whether the controller stops at x (n, d), shape (n,)."""
        own = [s for s in self.problem.stops if s.by == "controller"]
        if not own:
            return np.zeros(len(x), bool)
        if self.functions.stop is not None:
            return checked(self.functions.stop(x), (len(x),), "stop") > 0
        psi = np.asarray(own[0].payoff(x), float)
        return self.problem.sign * (self.value(x) - psi) <= self.slack

    def control(self, x: Array) -> tuple[Array, Array]:
        """The policy projected on its set, and how far each entry moved, (n, m).

        On a face with StateConstraint the set is that of the controls which lead
        across none.
        """
        raw = self.raw_control(x)
        controls = self.problem.controls
        if controls is None:
            return raw, np.zeros_like(raw)
        projected = clipped(controls, x, raw)
        known = np.isfinite(projected).all(axis=1)
        projected[known] = hold_policy(
            self.problem, x[known], projected[known], strict=False
        )
        return projected, np.abs(projected - raw)


def clipped(controls: ControlSet, x: Array, raw: Array) -> Array:
    """The nearest controls of a set at x (n, d) to `raw` (n, m); NaN stays."""
    if isinstance(controls, Box):
        low, high = controls.bounds_at(x)
        return np.clip(raw, np.asarray(low), np.asarray(high))
    return np.where(np.isfinite(raw), controls.clip(raw), raw)


def checked(answer: Any, shape: tuple[int, ...], what: str) -> Array:
    """`answer` as a float64 array of exactly `shape`.

    Raises
    ------
    ProblemError
        Naming the function and both shapes.
    """
    array = real_array(answer, f"candidate: what {what} returned")
    if array.shape == shape:
        return array
    hint = ""
    if array.shape == (*shape, 1):
        hint = " A scalar function must drop its last axis of length 1."
    raise ProblemError(
        f"candidate: {what} returned shape {array.shape} for {shape[0]} points; "
        f"expected {shape}.{hint}"
    )


def subject_of(candidate: Any, problem: ControlProblem) -> Subject:
    """A Solution, a Candidate or a torch module, made ready to be judged.

    Raises
    ------
    ProblemError
        Anything else, saying what would do.
    """
    assert problem.domain is not None
    if isinstance(candidate, Candidate):
        check_fields(candidate, problem)
        average = candidate.average
        return Subject(problem, problem.domain, candidate, average=average)
    if _is_torch_module(candidate) and not hasattr(candidate, "value_at"):
        if problem.modes is not None:
            raise ProblemError(
                "cross_check: a bare module knows no mode; with modes give "
                "verification.Candidate(value=) of a function of x and mode."
            )
        if problem.horizon is not None:
            raise ProblemError(
                "cross_check: a bare module knows no time; with a horizon give "
                "verification.Candidate(value=) of a function of x and t."
            )
        import neural  # only a torch module brings torch in

        candidate = neural.as_candidate(candidate, problem)
    if hasattr(candidate, "value_at") and hasattr(candidate, "control_at"):
        functions = _functions_of(candidate, problem)
        region = getattr(candidate, "region", None)
        report = getattr(candidate, "report", None)
        box, two = region or problem.domain, problem.adversary is not None
        average = getattr(candidate, "average", None)
        return Subject(
            problem, box, functions, region, report, maximises=two, average=average
        )
    raise ProblemError(
        f"cross_check: the candidate is a {type(candidate).__name__}; give a Solution, "
        "verification.Candidate(value=, control=) of functions on (..., d), or a torch "
        "module mapping (n, d) to the value."
    )


def _functions_of(solution: Any, problem: ControlProblem) -> Candidate:
    stop = getattr(solution, "stopping_at", None) if problem.stops else None
    control, adversary = solution.control_at, None
    if problem.adversary is not None:
        adversary = getattr(solution, "adversary_control_at", None)
        # One that knows a single player has no policy of a game, but its value has.
        control = None if adversary is None else control
        at = problem if problem.horizon is None else problem.at_time(0.0)
        if is_coupled(at):
            # On the nodes stands the reply to one choice only, not to every choice.
            adversary = None
    own = Candidate(solution.value_at, control, solution.gradient_at, stop, adversary)
    grid, target = getattr(solution, "grid", None), getattr(solution, "target", None)
    if problem.impulse is None or grid is None or target is None:
        return own
    return replace(own, move=lambda x: target[nearest(grid, x)])


def _is_torch_module(candidate: Any) -> bool:
    # By name, so that asking does not import torch.
    return any(
        kind.__module__.startswith("torch.nn") and kind.__name__ == "Module"
        for kind in type(candidate).__mro__
    )
