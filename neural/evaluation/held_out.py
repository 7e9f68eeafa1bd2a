"""How far a least-squares value may be off, from its residual at states it never met.

With r the residual of the equation for a value U under its greedy policy a,

    (rho - L^a) e = |r| inside,   B e = |B U - g| on faces,

and |V - U| <= e up to terms of second order in the change of policy, by comparison. e
spreads a residual along the paths that meet it, where sup|r| / rho would take a spike
at a kink for an error everywhere. It is fitted by some of U's own features at new
states, half of them near faces, and taken twice, because a fit takes a little off
spikes: an estimate, no bound.

A face that has no rows, because what its rule does decays like e^(-k s / half) with a
large k, is off by the height of that layer, ``|alpha U + beta U_n - g| / (alpha +
beta k / half)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Extrapolate, Face, Robin
from hjbpde.problem import ControlProblem

from ..collocation import (
    FACE_SHARE,
    INWARD,
    FaceTables,
    exit_rows,
    face_points,
    face_rows,
    influence_rate,
    periodic_points,
)
from ..ends import face_data
from ..exit_region import running_states
from ..features import FeatureBasis, FeatureValue
from ..outcome import GreedyPolicy
from ..sampling import interior_points
from ..stopping_payoff import Payoffs
from ..stopping_set import StoppingSet
from ..tikhonov import regularised_solve
from ..value_model import hjb_residual, row_scale

Array = NDArray[np.float64]
PROMISED = 1e-2
"""Up to this estimate, over sup|V|, a value that has settled has converged: what
`verification.cross_check` takes for agreement unless it is told otherwise."""
POINTS_PER_FEATURE = 6.0
NEAR, DECADES = 0.5, 4.0
"""Share of the states drawn near faces, over how many decades of the distance."""
CHECKED = 2000
"""States at which going on is compared with stopping."""
SMOOTHING = 1e-6
"""Tikhonov weight of the fit of e, whose data are rough."""
SAFETY = 2.0
"""Taken once, e missed 7 of 60 random problems with kinks, by up to 1.8."""


@dataclass(frozen=True)
class HeldOutError:
    """An estimate of sup|V - U| over sup|U|, and where it is largest.

    `layer` is the face without rows whose layer decides, if that does.
    """

    size: float
    place: tuple[float, ...]
    layer: Face | None = None

    @property
    def is_small(self) -> bool:
        """Whether the value is as good as "converged" says."""
        return self.size <= PROMISED

    def __str__(self) -> str:
        at = np.array2string(np.array(self.place), precision=3, separator=", ")
        words = f"V may be off by {self.size:.1e} of sup|V|, most at {at}"
        if self.layer is None:
            return f"held-out states: {words}"
        return (
            f"held-out states: {words}: the rule of face {self.layer} makes a layer "
            "there too thin for these features"
        )

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.layer is not None:
            return "solve on a grid (hjbpde.solve) with nodes in that layer"
        return "give more features, or solve on a grid (hjbpde.solve): kinks and layers"


def held_out_error(problem: ControlProblem, value: FeatureValue) -> HeldOutError:
    """The estimate for `value` under its greedy policy; the same every time."""
    rng = np.random.default_rng(0)
    basis, policy = _part(value.basis), GreedyPolicy(problem, value)
    x = _states(problem, round(POINTS_PER_FEATURE * basis.size), rng)
    a, thin = policy(x), []
    rows = [_inside(problem, basis, x, a)]
    sides = [np.abs(hjb_residual(problem, value, x, a))]
    for own, other in _faces(problem, value.basis, basis, rng):
        asked, found = (face_rows(problem, face, policy) for face in (own, other))
        if asked.rows is not None and found.rows is not None:
            rows.append(found.rows)
            gap = np.abs(asked.rows @ value.coefficients - asked.data)
            sides.append(gap if _bounds(problem, own) else np.zeros_like(gap))
        elif not asked.is_open and problem.faces[own.face] is not None:
            thin.append(own)
    side = np.concatenate(sides)[:, None]
    weights = regularised_solve(np.vstack(rows), side, SMOOTHING)[:, 0]
    fitted = FeatureValue(basis, weights.copy())
    size = max(float(np.abs(value.value(x)).max()), 1e-300)
    share = SAFETY * np.abs(fitted.value(x)) / size
    found = [_largest(share, x)]
    for face in thin:
        here = face.points.x
        share = SAFETY * np.abs(fitted.value(here))
        share = (share + _layer(problem, face, value, policy)) / size
        found.append(_largest(share, here, face.face))
    return max(found, key=lambda error: error.size)


def stopped_error(
    payoffs: Payoffs, stopping: StoppingSet, value: FeatureValue
) -> HeldOutError:
    """The estimate for the value of going on, with what its set gives away.

    The equation is asked where one goes on, psi on the surface, as on that of an exit;
    where going on is worth less than psi, one would rather stop, by that much.
    """
    problem = payoffs.running_until(stopping)
    off = held_out_error(problem, value)
    x = _states(problem, CHECKED, np.random.default_rng(1))
    worse = -payoffs.excess(value, x, stopping.owner_at(x))
    k = int(worse.argmax())
    size = max(float(np.abs(value.value(x)).max()), 1e-300)
    if worse[k] <= 0:
        return off
    if worse[k] / size > off.size:
        return HeldOutError(off.size + float(worse[k]) / size, tuple(x[k].tolist()))
    return replace(off, size=off.size + float(worse[k]) / size)


def _largest(share: Array, x: Array, layer: Face | None = None) -> HeldOutError:
    """The largest of shares (n,) of sup|V| at x (n, d)."""
    k = int(share.argmax())
    return HeldOutError(float(share[k]), tuple(x[k].tolist()), layer)


def _part(basis: FeatureBasis) -> FeatureBasis:
    """A quarter of the features, all in one state: e is wanted to one digit."""
    n = len(basis.bias)
    few = n if basis.dimension == 1 else min(n, max(20, n // 4))
    return FeatureBasis(basis.centre, basis.half, basis.weights[:few], basis.bias[:few])


def _states(problem: ControlProblem, n: int, rng: np.random.Generator) -> Array:
    """n states where the process runs, `NEAR` of them close to a face."""
    box = getattr(problem.exit, "within", None) or problem.domain
    assert box is not None
    low, high = np.asarray(box.low), np.asarray(box.high)
    central = INWARD if box.dimension >= 5 and problem.exit is not None else 0.0

    def draw(n: int) -> Array:
        x, k = box.sample(rng, n), np.arange(round(NEAR * n))
        if central:
            x = interior_points(box, n, rng, central)[rng.permutation(n)]
        axis = rng.integers(box.dimension, size=len(k))
        inward = 0.5 * box.width[axis] * 10.0 ** (-DECADES * rng.random(len(k)))
        upper = rng.integers(2, size=len(k)).astype(bool)
        x[k, axis] = np.where(upper, high[axis] - inward, low[axis] + inward)
        return x

    return draw(n) if problem.exit is None else running_states(problem, draw, n)


def _inside(problem: ControlProblem, basis: FeatureBasis, x: Array, a: Array) -> Array:
    """(rho - L^a) of the features at x (n, d), over `row_scale`."""
    tables = basis.at(x)
    rows = np.asarray(problem.discount_at(x))[:, None] * tables.values()
    rows = rows - tables.along(np.asarray(problem.drift_at(x, a)))
    rows = rows - tables.curvature(np.asarray(problem.diffusion_at(x, a)))
    return rows / row_scale(problem, x, a)[:, None]


def _faces(
    problem: ControlProblem,
    own: FeatureBasis,
    other: FeatureBasis,
    rng: np.random.Generator,
) -> Iterator[tuple[FaceTables, FaceTables]]:
    """New states of every face and of an exit's surface, with both bases there."""
    assert problem.domain is not None
    n = max(4, round(FACE_SHARE * other.size / own.dimension))
    for face in problem.faces:
        points = face_points(problem, face, n, rng)
        if len(points.x):
            yield (
                FaceTables(face, points, own.at(points.x)),
                FaceTables(face, points, other.at(points.x)),
            )
    for low, beyond in periodic_points(problem.domain, n, rng):
        name = (low.axis, "low")
        yield (
            FaceTables(name, low, own.at(low.x), own.at(beyond)),
            FaceTables(name, low, other.at(low.x), other.at(beyond)),
        )
    if problem.exit is not None:
        surface = exit_rows(problem, other, n * 2 * own.dimension, rng)
        x = surface.points.x
        yield (
            FaceTables(surface.face, surface.points, own.at(x), is_exit=True),
            surface,
        )


def _bounds(problem: ControlProblem, face: FaceTables) -> bool:
    """Whether a misfit of this face's rows, taken positive, only raises e."""
    if face.is_exit or face.partner is not None:
        return face.is_exit
    rule = problem.faces[face.face]
    return rule is not None and not isinstance(rule, Extrapolate)


def _layer(
    problem: ControlProblem,
    face: FaceTables,
    value: FeatureValue,
    policy: GreedyPolicy,
) -> Array:
    """How high the layer of a rule without rows, Reflecting or Robin, is, (n,)."""
    rule, x, axis = problem.faces[face.face], face.points.x, face.points.axis
    rule = rule if isinstance(rule, Robin) else Robin(0.0, 1.0)
    assert problem.domain is not None
    rate = influence_rate(problem, face.points, policy(x))
    decay = rate / (0.5 * problem.domain.width[axis])
    slope = face.points.sign * value.gradient(x)[:, axis]
    gap = rule.alpha * value.value(x) + rule.beta * slope
    gap = np.abs(gap - face_data(rule.g, x, face.face))
    return gap / np.abs(rule.alpha + rule.beta * decay)
