"""Verdicts on solutions of control problems: is it right, where not, at what cost."""

from .candidate import Candidate
from .convergence import Study, convergence_study
from .cross_check import cross_check
from .score import ScoreVerdict, check_score
from .verdict import Verdict

__all__ = [
    "Candidate",
    "ScoreVerdict",
    "Study",
    "Verdict",
    "check_score",
    "convergence_study",
    "cross_check",
]
