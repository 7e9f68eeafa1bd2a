"""Verdicts on solutions of control problems: is it right, where not, at what cost."""

from .candidate import Candidate
from .convergence import Study, convergence_study
from .cross_check import cross_check
from .verdict import Verdict

__all__ = ["Candidate", "Study", "Verdict", "convergence_study", "cross_check"]
