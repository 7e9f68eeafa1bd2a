"""What a solver says about its own run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """How a solution came about and how far it can be trusted.

    Parameters
    ----------
    status : str
        "converged", "stagnated" (at the round-off floor, which is success), or
        "not converged".
    method : str
        What ran, in words.
    iterations : int
        Policies evaluated, sweeps or steps taken on the finest grid.
    residuals : sequence of float
        The bound max|HJB residual| / min rho after each policy, in the units of V.
    seconds : mapping of str to float
        Wall-clock time of each phase.
    checks : sequence of str
        What was verified, and how faces were closed.
    fallbacks : sequence of str
        Every solver or scheme that had to be replaced, with the reason.
    error_parts : mapping of str to float
        The largest discretisation, truncation, algebraic and round-off part.
    observed_order : float or None
        Order seen on nested grids, None where not observed.
    details : mapping
        Further numbers that belong to one method only.
    """

    status: str
    method: str
    iterations: int = 0
    residuals: tuple[float, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    checks: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    error_parts: Mapping[str, float] = field(default_factory=dict)
    observed_order: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether the iteration reached its tolerance or the round-off floor."""
        return self.status in ("converged", "stagnated")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries."""
        plain = asdict(self)
        for name in ("residuals", "checks", "fallbacks"):
            plain[name] = list(plain[name])
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`."""
        fields = dict(plain)
        for name in ("residuals", "checks", "fallbacks"):
            fields[name] = tuple(fields.get(name, ()))
        return cls(**fields)

    def __str__(self) -> str:
        lines = [f"{self.status}: {self.method}, {self.iterations} iterations"]
        if self.residuals:
            lines.append(f"algebraic residual bound {self.residuals[-1]:.2e}")
        if self.error_parts:
            parts = ", ".join(f"{k} {v:.2e}" for k, v in self.error_parts.items())
            lines.append(f"error bar (largest): {parts}")
        if self.observed_order is not None:
            lines.append(f"observed order {self.observed_order:.2f}")
        if self.seconds:
            times = ", ".join(f"{k} {v:.3g} s" for k, v in self.seconds.items())
            lines.append(f"time: {times}")
        lines += [f"fallback: {text}" for text in self.fallbacks]
        lines += [f"check: {text}" for text in self.checks]
        return "\n".join(lines)
