"""Verdicts on solutions of control problems: is it right, where not, at what cost."""

from .candidate import Candidate
from .cross_check import cross_check
from .verdict import Verdict

__all__ = ["Candidate", "Verdict", "cross_check"]
