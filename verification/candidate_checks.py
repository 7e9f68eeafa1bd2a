"""Does a candidate say what its problem asks for, and nothing else?"""

from __future__ import annotations

from hjbpde import ControlProblem, ProblemError

from .candidate import Candidate


def check_fields(candidate: Candidate, problem: ControlProblem) -> None:
    """Refuse functions that mean nothing to the problem, and policies that lack some.

    Raises
    ------
    ProblemError
        Naming the field.
    """
    _check_stop(candidate, problem)
    _check_move(candidate, problem)
    _check_adversary(candidate, problem)
    if candidate.average is not None and not problem.average:
        raise ProblemError(
            "Candidate: average= is given, but the problem is no long-run average; "
            "leave it out."
        )


def _check_adversary(candidate: Candidate, problem: ControlProblem) -> None:
    if problem.adversary is None and candidate.adversary is not None:
        raise ProblemError(
            "Candidate: adversary= is given, but the problem has one player; leave it "
            "out."
        )


def _check_stop(candidate: Candidate, problem: ControlProblem) -> None:
    may = any(s.by == "controller" for s in problem.stops)
    if candidate.stop is not None and not may:
        raise ProblemError(
            "Candidate: stop= is given, but the controller of this problem has no "
            "right to stop; leave it out."
        )
    if may and candidate.stop is None and candidate.value is None:
        raise ProblemError(
            "Candidate: a policy of a problem with a right to stop says where it "
            "stops; give stop=, or value=."
        )


def _check_move(candidate: Candidate, problem: ControlProblem) -> None:
    if candidate.move is not None and problem.impulse is None:
        raise ProblemError(
            "Candidate: move= is given, but the state of this problem cannot be moved; "
            "leave it out."
        )
    policy_alone = candidate.value is None and problem.impulse is not None
    if policy_alone and candidate.move is None:
        raise ProblemError(
            "Candidate: a policy of a problem with impulses says where it moves the "
            "state; give move=, or value=."
        )
    if policy_alone and candidate.control is None and problem.n_controls:
        raise ProblemError(
            "Candidate: move= alone is no policy of a problem with controls; give "
            "control=, or value=."
        )
