"""The rules of the verdict, applied to measurements; no measuring here.

With e = |candidate - reference|, s the scale, u the reference's bar, at points x
(n, d), with a horizon and with modes (n, d + 1) or more, time and mode last:

differ        somewhere e > tol s + u; or the gradient exceeds 10 tol beyond its bar;
              or a kink has the wrong sign; or regret exceeds tol s beyond its bar; or
              a NaN; or the policy drives the state out where the reference does not.
agree         e + u <= tol s everywhere sampled, and gradient and regret pass.
inconclusive  anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .when import When

Array = NDArray[np.float64]

GRADIENT_FACTOR = 10.0
ACCUSING = 2.0
"""Bars of the regret, seen on two grids only, beyond which it counts against one."""
BLIND = 0.5
"""Share of points where the reference may know its gradient too poorly to judge it."""


@dataclass(frozen=True)
class Finding:
    """One sentence and the place it speaks of."""

    text: str
    where: Array | None = None


@dataclass
class Ruling:
    """Findings against the candidate, and doubts that stop an agreement."""

    faults: list[Finding] = field(default_factory=list)
    doubts: list[Finding] = field(default_factory=list)
    when: When = field(default_factory=When)
    """Of the kind of the last coordinates of a place."""

    @property
    def status(self) -> str:
        """What the findings amount to."""
        if self.faults:
            return "differ"
        return "inconclusive" if self.doubts else "agree"

    @property
    def findings(self) -> list[Finding]:
        """What decided."""
        return self.faults or self.doubts

    def place(self, x: Array) -> str:
        """A point, and its time and mode where there are any, in a few digits."""
        x, when = self.when.read(x)
        return f"{place(x)}, {when}" if when.numbers else place(x)

    def doubt(self, text: str) -> None:
        """Something that could not be judged."""
        self.doubts.append(Finding(text))

    def fault(self, text: str) -> None:
        """Something that speaks against the candidate, wherever it is looked at."""
        self.faults.append(Finding(text))

    def judge_not_finite(self, what: str, values: Array, x: Array) -> bool:
        """A NaN or infinity is a fault; returns whether there was one."""
        flat = values.reshape(len(x), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if bad.size:
            self.faults.append(
                Finding(
                    f"the {what} is not finite at {bad.size} of {len(x)} points, "
                    f"first at {self.place(x[bad[0]])}.",
                    x[bad[0]],
                )
            )
        return bool(bad.size)

    def judge_value(
        self, e: Array, u: Array, s: Array, tolerance: float, x: Array
    ) -> None:
        """The rule on e, u and tol s at points x (n, d)."""
        excess = (e - u) / s
        worst = int(np.nanargmax(excess))
        if excess[worst] > tolerance:
            spot = self.place(x[worst])
            self.faults.append(
                Finding(
                    f"value off by {e[worst] / s[worst]:.3g} of the scale at "
                    f"{spot}, where {tolerance:g} + the reference's bar "
                    f"{u[worst] / s[worst]:.2g} are allowed.",
                    x[worst],
                )
            )
            return
        self.judge_reference(u, s, tolerance, x)
        total = (e + u) / s
        worst = int(total.argmax())
        if total[worst] > tolerance and (u <= tolerance * s).all():
            self.doubts.append(
                Finding(
                    f"error {e[worst] / s[worst]:.2g} plus the reference's bar "
                    f"{u[worst] / s[worst]:.2g} exceed the tolerance {tolerance:g} at "
                    f"{self.place(x[worst])}: a finer reference would decide.",
                    x[worst],
                )
            )

    def judge_reference(self, u: Array, s: Array, tolerance: float, x: Array) -> None:
        """A bar beyond the tolerance can never support an agreement."""
        worst = int((u / s).argmax())
        if not u[worst] <= tolerance * s[worst]:
            bar, spot = u[worst] / s[worst], self.place(x[worst])
            none = (
                f"the reference's bar is infinite at {spot}, beside an infinite value."
                if np.isfinite(u).any()
                else "the reference has no error bar (a learned one cannot confirm)."
            )
            text = (
                f"the reference's own bar {bar:.2g} exceeds the tolerance "
                f"{tolerance:g} at {spot}: refine it or widen the tolerance."
                if np.isfinite(bar)
                else none
            )
            self.doubts.append(Finding(text, x[worst]))

    def judge_gradient(
        self, excess: Array, bar: Array, tolerance: float, x: Array
    ) -> None:
        """The rule on gradients; arrays (n,) hold NaN near kinks."""
        if np.isnan(excess).all():
            return
        limit = GRADIENT_FACTOR * tolerance
        worst = int(np.nanargmax(excess))
        if excess[worst] > limit:
            spot = self.place(x[worst])
            self.faults.append(
                Finding(
                    f"gradient off by {excess[worst] + bar[worst]:.3g} (times width "
                    f"over oscillation) at {spot}, where {limit:g} + its "
                    f"bar {bar[worst]:.2g} are allowed.",
                    x[worst],
                )
            )
        elif np.nanmean(bar > limit) > BLIND:
            blind = int(np.nanargmax(bar))
            spot = self.place(x[blind])
            self.doubts.append(
                Finding(
                    f"the reference knows its gradient only to {bar[blind]:.2g} at "
                    f"{spot}, more than the {limit:g} allowed, and to more "
                    f"than that at {np.nanmean(bar > limit):.0%} of the points.",
                    x[blind],
                )
            )

    def judge_kinks(self, wrong: Array) -> None:
        """A kink of the other sign is another solution of the equation."""
        if len(wrong):
            self.faults.append(
                Finding(
                    f"the candidate bends the wrong way at {len(wrong)} kinks of the "
                    f"value, first at {self.place(wrong[0])}: another, non-viscosity "
                    "solution.",
                    wrong[0],
                )
            )

    def judge_regret(
        self,
        who: str,
        measured: tuple[float, float],
        s: float,
        tolerance: float,
        where: Array,
    ) -> None:
        """The rule on regret and its bar, `measured`, in units of V; `who` loses it."""
        regret, bar = measured
        if np.isinf(regret) and np.isfinite(bar):
            text = f"the {who} does not end the process from {self.place(where)}."
            self.faults.append(Finding(text, where))
        elif regret - ACCUSING * bar > tolerance * s:
            self.faults.append(
                Finding(
                    f"the {who} loses {regret / s:.3g} of the scale at "
                    f"{self.place(where)} (bar {bar / s:.2g}, allowed {tolerance:g}).",
                    where,
                )
            )
        elif not regret + bar <= tolerance * s:
            self.doubts.append(
                Finding(
                    f"the loss of the {who} is {regret / s:.2g} +- {bar / s:.2g} of "
                    f"the scale: a finer grid would decide against {tolerance:g}.",
                    where,
                )
            )

    def judge_excursion(self, share: float, reference_share: float, out: bool) -> None:
        """The rule on paths that leave the region."""
        if out:
            self.faults.append(
                Finding(
                    f"the policy drives the state out: {share:.0%} of the paths leave "
                    f"the region, {reference_share:.0%} under the reference."
                )
            )


def place(x: Array) -> str:
    """A point in a few digits."""
    return "x = (" + ", ".join(f"{c:.4g}" for c in np.atleast_1d(x)) + ")"
