"""What the learned policy and rule earn from states set aside, against the learned V.

Fresh paths, many from each state, so that their noise is known and taken off. It says
how far V is from what its own policy and rule earn; how much less than the best that
is, it cannot say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..start import Policy
from ..value_model import ValueModel
from .held_out import PROMISED
from .rollout import Rollout

Array = NDArray[np.float64]
PATHS = 64
"""From each state, half of them on the mirrored noise of the others."""


@dataclass(frozen=True)
class Earned:
    """Root mean square and mean over states of (earned - V), over sup|V| there."""

    size: float
    mean: float

    @property
    def is_small(self) -> bool:
        """Whether V is as good as "converged" says."""
        return self.size <= PROMISED

    def __str__(self) -> str:
        return (
            f"fresh paths: policy and rule earn V up to {self.size:.1e} of sup|V| "
            f"where one goes on (rms over states; on average {self.mean:+.1e})"
        )


def earned(
    rollout: Rollout, policy: Policy, model: ValueModel, x: Array,
    rng: np.random.Generator,
) -> Earned:  # fmt: skip
    """What paths from states x (n, d), where one goes on, say of `model`."""
    if not len(x):
        return Earned(0.0, 0.0)
    plain = replace(rollout, richardson=False, fitted_share=False)
    found, _ = plain.payoffs(policy, model, np.tile(x, (PATHS, 1)), rng)
    value = model.value(x)
    # Antithetic halves, see `Rollout.payoffs`: pairs are independent, paths are not.
    pairs = found.reshape(2, PATHS // 2, len(x)).mean(0) - value
    gap, noise = pairs.mean(0), pairs.var(0, ddof=1) / len(pairs)
    size = max(float(np.abs(value).max()), 1e-300)
    square = max(float((gap**2).mean() - noise.mean()), 0.0)
    return Earned(square**0.5 / size, float(gap.mean()) / size)
