"""What strategies cost: their values against the best one's, on one operator."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, Grid

from .long_run import Averages
from .ruling import ACCUSING
from .when import When

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Regret:
    """V minus the value of the judged policy (with cost: the reverse), on nodes.

    Of an adversary's strategy the reverse of that: what it leaves to the controller.

    `map` (*shape) >= 0; `bar` (*shape) is its change from the grid twice as coarse.
    `policy` and `best_policy` (*shape, m) are the controls compared: outside the
    region both are the best one, None if unknown. `moved` (*shape, m) is how far the
    candidate's controls lay outside their set. `note` says why there is no map,
    `when` at what time, in what mode. `averages` are the policy's, where the loss is
    one in the long-run average.
    """

    grid: Grid
    inside: NDArray[np.bool_]
    policy: Array
    best_policy: Array | None
    moved: Array
    map: Array | None
    bar: Array | None
    note: str = ""
    averages: Averages | None = None
    when: When = field(default_factory=When)

    def worst(self) -> tuple[float, Array]:
        """Largest regret in the region and its place."""
        assert self.map is not None
        inside = np.where(self.inside, self.map, -np.inf)
        place = np.unravel_index(int(inside.argmax()), inside.shape)
        return float(inside[place]), self.grid.nodes()[place]

    def places(self, x: Array) -> Array:
        """Points x (..., d), with time and mode as last columns where there are any."""
        return self.when.places(x)

    def by_mode(self) -> tuple[Regret, ...]:
        """One regret a mode of one whose arrays have the modes first."""
        names = ("policy", "best_policy", "moved", "map", "bar")
        arrays = {name: getattr(self, name) for name in names}
        return tuple(
            replace(
                self,
                **{name: None if a is None else a[k] for name, a in arrays.items()},
                when=When(self.when.time, k),
            )
            for k in range(len(self.policy))
        )

    def undecided(self, allowed: float) -> bool:
        """Whether the bar leaves open which side of `allowed` the regret is."""
        if self.map is None:
            return False
        regret, bar = self.worst()[0], self.largest_bar()
        return regret - ACCUSING * bar <= allowed < regret + bar

    def largest_bar(self) -> float:
        """Largest bar in the region."""
        assert self.bar is not None
        return float(self.bar[self.inside].max())


@dataclass(frozen=True, eq=False)
class Tables:
    """Both policies on the nodes, (T, *shape, m), at times (T,); one stationary.

    `nearest`: whether between nodes the controls are those of the nearest node, where
    others might not be admissible.
    """

    grid: Grid
    times: Array
    policy: Array
    best_policy: Array
    nearest: bool = False


@dataclass(frozen=True, eq=False)
class Losses:
    """The regret at every time judged, and the policies behind it.

    `tables` is None where the best policy is not known; with an adversary it holds both
    players' controls side by side, and `replies` the regret of the adversary's.
    """

    regrets: tuple[Regret, ...]
    tables: Tables | None
    replies: tuple[Regret, ...] = ()

    def undecided(self, allowed: float) -> bool:
        """Whether the bar hides somewhere which side of `allowed` the regret is."""
        every = self.regrets + self.replies
        return any(regret.undecided(allowed) for regret in every)

    @property
    def missing(self) -> Regret | None:
        """One whose regret could not be computed, if there is one."""
        every = self.regrets + self.replies
        return next((r for r in every if r.map is None), None)

    @property
    def of_the_adversary(self) -> Losses | None:
        """The same of the adversary's strategy alone, if there is an adversary."""
        return Losses(self.replies, None) if self.replies else None

    def deciding(self, allowed: float) -> Regret:
        """The time that loses more than `allowed` by most, else the least certain."""

        def surely(regret: Regret) -> float:
            return regret.worst()[0] - ACCUSING * regret.largest_bar()

        def perhaps(regret: Regret) -> float:
            return regret.worst()[0] + regret.largest_bar()

        worst = max(self.regrets, key=surely)
        return worst if surely(worst) > allowed else max(self.regrets, key=perhaps)


def within(grid: Grid, region: Box) -> NDArray[np.bool_]:
    """Which nodes lie in `region`, (*shape)."""
    slack = 1e-12 * float(np.max(region.width))
    return Box(region.low, region.high).contains(grid.nodes(), slack)


def change_by_halving(grid: Grid, fine: Array, coarse: Array) -> Array:
    """|coarse - fine| at the nodes of `grid`, of maps (..., *shape) on it and on the
    grid twice as coarse.
    """
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    less, change = grid.coarsened(), np.abs(coarse - fine[(..., *kept)])
    parts = change.reshape(-1, *less.shape)
    return np.reshape([grid_map(less, part, grid) for part in parts], fine.shape)


def grid_map(coarse: Grid, values: Array, fine: Grid) -> Array:
    """Values of a coarse grid at the nodes of a finer one, linear in between."""
    return coarse.interpolate(values, fine.nodes())
