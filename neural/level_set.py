"""A stopping set in many states: where a smooth function is not positive.

In five and more states no affordable number of states on a surface says how it bends
between them. Here the surface of every right is ``phi = 0`` with phi a quadratic and a
few random features (`neural.features`), and moving the surface is a correction of phi,
fitted to the steps of all its states: the noise that each of them has from a fit of V
averages out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from hjbpde.sets import Box

from .features import FeatureBasis, FeatureValue
from .sampling import interior_points
from .stopping_set import StoppingSet
from .tikhonov import regularised_solve

Array = NDArray[np.float64]
Labels = Callable[[Array], tuple[NDArray[np.bool_], NDArray[np.int64]]]

FEATURES, SCALE = 60, 0.5
"""Random features of phi beside the quadratic, and their slope."""
SMOOTHING = 1e-2
"""Tikhonov weight of phi and of its corrections: a tenth of it lets noise of V make
pockets, where a run then stays."""
DRAWN, CENTRAL = 8192, 0.5
"""States at which labels are asked, and the share of them drawn towards the centre."""
VOTERS = 9
"""States, the nearest ones, whose majority a label must have."""
HINGES, ROUNDS = 60, 5
"""Iterations in which states that have what they want drop out, or are taken in."""
KEPT = 0.3
"""A correction may not change the sign of phi where it is farther than this from 0:
three of the longest steps that a surface takes."""
ASIDE = 0.05
"""Half widths from known states of the surface at which others are looked for."""


@dataclass(frozen=True, eq=False)
class LevelSet(StoppingSet):
    """Stop where ``phi(x) <= 0`` for one of the rights.

    Parameters
    ----------
    levels : one phi for every right that is used
    rights : (len(levels),)
        Which right each phi belongs to.
    wanted : int
        How many states the surface is sampled by.
    """

    levels: tuple[FeatureValue, ...] = ()
    rights: tuple[int, ...] = ()
    wanted: int = 0

    @classmethod
    def parting(
        cls, box: Box, labels: Labels, n: int, rng: np.random.Generator
    ) -> StoppingSet:
        """Roughly the set that labels describe, by n states of its surface."""
        none = StoppingSet.constant(0.5 * box.width, False)
        x = interior_points(box, DRAWN, rng, CENTRAL)
        stops, _ = labels(x)
        if stops.all() or not stops.any():
            return replace(none, everywhere=bool(stops.all()))
        rare = x[stops] if stops.mean() < 0.5 else x[~stops]
        x = np.concatenate([x, rng.uniform(rare.min(0), rare.max(0), x.shape)])
        stops, owners = labels(x)
        rights = tuple(int(k) for k in np.unique(owners[stops]))
        near = np.asarray(KDTree(x / none.half).query(x / none.half, VOTERS)[1])
        levels = []
        for k in rights:
            voted = (stops & (owners == k))[near].mean(1) > 0.5
            if voted.any() and not voted.all():
                levels.append((k, level_between(box, x, voted, rng)))
        if not levels:
            return none
        found = cls(
            **vars(none),
            levels=tuple(level for _, level in levels),
            rights=tuple(k for k, _ in levels),
        )
        return found.sampled(n)

    @property
    def box(self) -> Box:
        """The domain."""
        basis = self.levels[0].basis
        return Box(basis.centre - basis.half, basis.centre + basis.half)

    def heights(self, x: Array) -> Array:
        """phi of every right at x (n, d), shape (rights, n)."""
        return np.stack([level.value(x) for level in self.levels])

    def signed(self, x: Array) -> Array:
        """The least phi at x (n, d), negative where one stops, (n,)."""
        return self.heights(x).min(0)

    def owner_at(self, x: Array) -> NDArray[np.int64]:
        """Which right to stop is used at x (n, d), or is nearest to it, shape (n,)."""
        return np.asarray(self.rights, dtype=np.int64)[self.heights(x).argmin(0)]

    def moved(self, states: Array, normals: Array) -> StoppingSet:
        """The set whose surface passes the states, up to smoothing; sampled afresh."""
        del normals
        levels = []
        for right, level in zip(self.rights, self.levels, strict=True):
            on = states[self.owners == right]
            levels.append(_corrected(level, on) if len(on) else level)
        return replace(self, levels=tuple(levels)).sampled(self.wanted)

    def sampled(self, n: int) -> StoppingSet:
        """The same set by n new states: where segments across its surface meet it."""
        rng = np.random.default_rng(0)
        x = self._scattered(rng)
        goes = self.signed(x) > 0
        if goes.all():
            return StoppingSet.constant(self.half, False)
        if not goes.any():
            return replace(self, wanted=n)
        inner = x[rng.choice(np.flatnonzero(goes), n)]
        outer = x[rng.choice(np.flatnonzero(~goes), n)]
        for _ in range(50):
            middle = 0.5 * (inner + outer)
            runs = (self.signed(middle) > 0)[:, None]
            inner, outer = np.where(runs, middle, inner), np.where(runs, outer, middle)
        owners = self.owner_at(outer)
        slopes = np.zeros_like(inner)
        for right, level in zip(self.rights, self.levels, strict=True):
            here = owners == right
            slopes[here] = level.gradient(inner[here]) * self.half
        size = np.maximum(np.linalg.norm(slopes, axis=1), 1e-300)[:, None]
        return replace(
            self, states=inner, normals=slopes / size, owners=owners, wanted=n
        )

    def _scattered(self, rng: np.random.Generator) -> Array:
        """States all over the box, and on both sides of the surface as it is known."""
        x, y = self.box.sample(rng, DRAWN), self.states
        aside = ASIDE * self.half * self.normals
        between = 0.5 * (y + y[rng.permutation(len(y))])
        more = np.concatenate([y + aside, y - aside, between])
        return np.concatenate([x, more[self.box.contains(more)]])

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        found = super().arrays()
        found["rights"] = np.array(self.rights, dtype=float)
        found["wanted"] = np.array([float(self.wanted)])
        for k, level in enumerate(self.levels):
            found |= {f"level{k}.{name}": v for name, v in level.arrays().items()}
        return found


def stopping_from_arrays(arrays: dict[str, Array]) -> StoppingSet:
    """The inverse of `arrays` of either kind of set."""
    plain = StoppingSet.from_arrays(arrays)
    if "rights" not in arrays:
        return plain
    levels = []
    for k in range(len(arrays["rights"])):
        start = f"level{k}."
        names = [name for name in arrays if name.startswith(start)]
        part = {name.removeprefix(start): arrays[name] for name in names}
        levels.append(FeatureValue.from_arrays(part))
    return LevelSet(
        **vars(plain),
        levels=tuple(levels),
        rights=tuple(int(k) for k in arrays["rights"]),
        wanted=int(arrays["wanted"][0]),
    )


def level_between(
    box: Box, x: Array, stops: NDArray[np.bool_], rng: np.random.Generator
) -> FeatureValue:
    """A quadratic phi that parts states x (n, d) by their labels, a rough distance.

    Every state asks for phi of its sign, and at least half its distance to the nearest
    one of the other kind; both kinds count the same, however many there are. The
    features have no weight yet: labels are too rough for them.
    """
    basis = FeatureBasis.draw(box, FEATURES, SCALE, rng)
    plain = FeatureBasis.draw(box, 0, SCALE, rng)
    z = x / basis.half
    far = np.where(stops, *(KDTree(z[k]).query(z)[0] for k in (~stops, stops)))
    share = np.where(stops, stops.mean(), 1.0 - stops.mean())
    weight = 1.0 / np.sqrt(len(x) * share)
    rows, side = plain.at(x).values() * weight[:, None], far * weight
    side = np.where(stops, -side, side)
    square = rows.T @ rows
    square += SMOOTHING**2 * np.trace(square) * np.eye(len(square))
    c = np.linalg.solve(square, rows.T @ side)
    for _ in range(HINGES):
        now = rows @ c
        content = now * np.sign(side) >= 0.5 * np.abs(side)
        c = np.linalg.solve(square, rows.T @ np.where(content, now, 0.5 * side))
    return FeatureValue(basis, np.r_[np.zeros(FEATURES), c])


def _corrected(level: FeatureValue, states: Array) -> FeatureValue:
    """phi less what it is at the states, smoothed; far from them its sign is kept."""
    basis, off = level.basis, level.value(states)
    z = np.random.default_rng(1).uniform(-1.0, 1.0, (DRAWN // 4, basis.dimension))
    x = basis.centre + basis.half * z
    old = level.value(x)
    x, old = x[np.abs(old) > KEPT], old[np.abs(old) > KEPT]
    rows, far = basis.at(states).values(), basis.at(x).values()
    change, asked = np.zeros(basis.size), np.zeros(len(x), bool)
    for _ in range(ROUNDS):
        stacked = np.vstack([rows, far[asked]])
        side = np.r_[-off, np.zeros(asked.sum())][:, None]
        change = regularised_solve(stacked, side, SMOOTHING)[:, 0]
        crossed = (old + far @ change) * np.sign(old) < 0.5 * np.abs(old)
        if not (crossed & ~asked).any():
            break
        asked |= crossed
    return FeatureValue(basis, level.coefficients + change)
