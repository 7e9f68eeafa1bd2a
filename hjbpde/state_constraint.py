"""Controls on a face with a state constraint: no drift and no noise across it.

On such a face only ``f.n <= 0`` (n outward) and ``sigma' n = 0`` are admissible. The
constrained maximum is that of the Lagrangian,

    max_a { r + f . (p - sum_k lam_k n_k) + D . q },    lam_k >= 0,  lam_k f.n_k = 0,

so that the maximiser for given slopes is asked again with slopes that fall outwards.
It is exact where the Hamiltonian is concave in a, and where drift and payoff are affine
in a (two controls mixed); elsewhere a scan of the control set is a second opinion.

Source: Soner, SIAM J. Control Optim. 24 (1986) 552, equation 1.3 and theorem 2.1; the
Lagrangian is Boyd and Vandenberghe, Convex Optimization (2004), section 5.5.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from .boundary import StateConstraint
from .control_search import SCAN
from .errors import ProblemError
from .multipliers import SLACK, Multipliers
from .point_tables import tables_at
from .probe import base_and_step, control_range
from .problem import ControlProblem
from .sets import Finite

Array = NDArray[np.float64]

ON_FACE = 1e-12
"""Distance from a face, as a share of the axis, at which a state lies on it."""
HALVINGS = 60


def outward_normals(problem: ControlProblem, x: Array) -> Array:
    """n_k in {-1, 0, 1} at states x (n, d), shape (n, d): 0 where no face constrains.

    Each axis has its own normal: a state in a corner has several.
    """
    normals = np.zeros(x.shape)
    if problem.domain is None:
        return normals
    for (axis, side), rule in problem.faces.items():
        if isinstance(rule, StateConstraint):
            sign = -1.0 if side == "low" else 1.0
            ends = problem.domain.low if side == "low" else problem.domain.high
            gap = np.abs(x[:, axis] - np.asarray(ends)[axis])
            normals[gap <= ON_FACE * problem.domain.width[axis], axis] = sign
    return normals


def is_constrained(problem: ControlProblem) -> bool:
    """Whether some face has the rule StateConstraint."""
    return any(isinstance(rule, StateConstraint) for rule in problem.faces.values())


def hold_greedy(
    problem: ControlProblem,
    x: Array,
    p: Array,
    hess: Array | None,
    a: Array,
    strict: bool = True,
) -> Array:
    """Greedy controls a (n, m) at x (n, d), maximised anew where a face forbids them.

    p (n, d) and hess (n, d, d) or None are the derivatives of V that a is greedy for;
    returns (n, m). Costs nothing where no state lies on a constrained face.

    Raises
    ------
    ProblemError
        A state whose face admits no control, named; unless not `strict`, then its
        control stays as it is.
    """
    if not is_constrained(problem) or not len(x):
        return a
    normals = outward_normals(problem, x)
    at = np.flatnonzero(normals.any(1))
    if not len(at):
        return a
    away = _forbidden(problem, x[at], a[at], normals[at])
    at = at[away]
    if not len(at):
        return a
    out = a.copy()
    bends = None if hess is None else hess[at]
    found = _constrained(problem, x[at], normals[at], p[at], bends)
    if strict:
        _refuse(problem, x[at], found, normals[at])
    kept = ~_forbidden(problem, x[at], found, normals[at])
    out[at[kept]] = found[kept]
    return out


def hold_policy(
    problem: ControlProblem, x: Array, a: Array, strict: bool = True
) -> Array:
    """Controls a (n, m) at x (n, d) with those that a face forbids pulled back.

    Moved towards an admissible control, the best for the payoff alone, just so far
    that nothing crosses the face; of a finite set that control itself.

    Raises
    ------
    ProblemError
        A state whose face admits no control, named; unless not `strict`, then its
        control stays as it is.
    """
    if not is_constrained(problem):
        return a
    normals = outward_normals(problem, x)
    at = np.flatnonzero(normals.any(1))
    at = at[_forbidden(problem, x[at], a[at], normals[at])] if len(at) else at
    if not len(at):
        return a
    out, n = a.copy(), normals[at]
    goal = _constrained(problem, x[at], n, np.zeros_like(x[at]), None)
    if strict:
        _refuse(problem, x[at], goal, n)
    kept = ~_forbidden(problem, x[at], goal, n)
    at, n, goal = at[kept], n[kept], goal[kept]
    if isinstance(problem.controls, Finite):
        out[at] = goal
        return out
    out[at] = _pulled(problem, x[at], n, a[at], goal)
    return out


def _forbidden(
    problem: ControlProblem, x: Array, a: Array, normals: Array
) -> NDArray[np.bool_]:
    """Where drift or noise under a (n, m) crosses a constrained face, (n,)."""
    push, noise, size = _across(problem, x, a, normals)
    return np.asarray((np.maximum(push, noise) > SLACK * size).any(1))


def _across(
    problem: ControlProblem, x: Array, a: Array, normals: Array
) -> tuple[Array, Array, Array]:
    """f.n_k and |sigma' n_k|, 0 on other axes, both (n, d), and 1 + |f| (n, 1)."""
    f = np.asarray(problem.drift_at(x, a), dtype=float)
    sigma = np.asarray(problem.diffusion_at(x, a), dtype=float)
    noise = np.linalg.norm(sigma, axis=-1) * np.abs(normals)
    return normals * f, noise, 1.0 + np.linalg.norm(f, axis=1, keepdims=True)


def _constrained(
    problem: ControlProblem, x: Array, normals: Array, p: Array, hess: Array | None
) -> Array:
    """The constrained maximiser at states x (n, d), shape (n, m).

    Where a face admits no control, one that crosses it least.
    """
    if isinstance(problem.controls, Finite):
        return _best_of_set(_States(problem, x, normals, p, hess))
    if problem.controls is None:
        return np.zeros((len(x), 0))
    low, high = _quiet_range(problem, x, normals)
    a = np.empty((len(x), problem.n_controls))
    corner = (normals != 0).sum(1) > 1
    for several in (False, True):
        at = np.flatnonzero(corner == several)
        if len(at):
            state = _States(problem, x[at], normals[at], p[at], _at(hess, at))
            find = _in_corners if several else _on_one_face
            a[at] = find(state, low[:, at], high[:, at])
    return a


@dataclass(frozen=True, eq=False)
class _States:
    """States on faces, their normals, and V's derivatives, in the problem's sense."""

    problem: ControlProblem
    x: Array
    normals: Array
    p: Array
    hess: Array | None

    def gain(self, a: Array) -> Array:
        """sign (r + f . p + tr(sigma sigma' hess) / 2), to be raised, (n,)."""
        problem, x = self.problem, self.x
        gain = np.asarray(problem.payoff_at(x, a), dtype=float)
        gain = gain + (np.asarray(problem.drift_at(x, a)) * self.p).sum(-1)
        if self.hess is not None:
            sigma = np.asarray(problem.diffusion_at(x, a))
            bend = np.einsum("nii->ni", self.hess)
            gain = gain + 0.5 * np.einsum("nik,nik,ni->n", sigma, sigma, bend)
        return problem.sign * gain

    def crossing(self, a: Array) -> Array:
        """The largest drift or noise across a face, over the slack's size, (n,)."""
        push, noise, size = _across(self.problem, self.x, a, self.normals)
        return np.asarray((np.maximum(push, noise) / size).max(1))

    def taken(self, at: NDArray[np.intp]) -> _States:
        """Some of them."""
        parts = self.x[at], self.normals[at], self.p[at], _at(self.hess, at)
        return _States(self.problem, *parts)


def _at(hess: Array | None, at: NDArray[np.intp]) -> Array | None:
    return None if hess is None else hess[at]


def _on_one_face(states: _States, low: Array, high: Array) -> Array:
    """The best admissible controls by duality, a scan where that proves nothing."""
    problem, x, p = states.problem, states.x, states.p
    q = np.zeros(x.shape)
    if states.hess is not None:
        q = np.einsum("nii->ni", states.hess)
    tables = tables_at(problem, x, (low, high))
    slopes = problem.sign * p, problem.sign * q
    found, unproved = Multipliers(tables, states.normals, *slopes).solve()
    a, at = np.ascontiguousarray(found.T), np.flatnonzero(unproved)
    if len(at):
        a[at] = _scanned(states.taken(at), low[:, at].T, high[:, at].T, a[at])
    return a


def _scanned(states: _States, low: Array, high: Array, a: Array) -> Array:
    """Better admissible controls than a (n, m), from a coarse grid on a finite box.

    Every candidate is pulled towards a.
    """
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return a
    best, value = a, states.gain(a)
    shares = np.linspace(0.0, 1.0, SCAN.get(a.shape[1], 3))
    for share in itertools.product(shares, repeat=a.shape[1]):
        trial = low + np.array(share) * (high - low)
        trial = _pulled(states.problem, states.x, states.normals, trial, a)
        gain = states.gain(trial)
        best = np.where((gain > value)[:, None], trial, best)
        value = np.maximum(gain, value)
    return best


def _in_corners(states: _States, low: Array, high: Array) -> Array:
    """Where several faces meet: sequential quadratic programming, state by state."""
    out = np.empty((len(states.x), len(low)))
    for n in range(len(out)):
        one = states.taken(np.array([n]))
        out[n] = _programmed(one, low[:, n], high[:, n])
    return out


def _programmed(one: _States, low: Array, high: Array) -> Array:
    """The best admissible control of one state, else the least inadmissible found."""
    faces = np.flatnonzero(one.normals[0])

    def inwards(a: Array) -> Array:
        f = np.asarray(one.problem.drift_at(one.x, a[None]), dtype=float)[0]
        return -(one.normals[0] * f)[faces]

    middle, step = base_and_step(low[:, None], high[:, None])
    best, rank = middle[:, 0], (np.inf, np.inf)
    for share in (0.0, 1.0, -1.0):
        start = np.clip(middle + share * step, low[:, None], high[:, None])[:, 0]
        found = minimize(
            lambda a: -one.gain(np.clip(a, low, high)[None])[0],
            start,
            method="SLSQP",
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "ineq", "fun": inwards},
            options={"ftol": 1e-14, "maxiter": 200},
        )
        a = np.clip(found.x, low, high)
        crossing = float(one.crossing(a[None])[0])
        mine = max(crossing, SLACK), -float(one.gain(a[None])[0])
        if np.isfinite(mine).all() and mine < rank:
            best, rank = a, mine
    return best


def _refuse(problem: ControlProblem, x: Array, a: Array, normals: Array) -> None:
    """Raise where even the controls a (n, m), the most inward ones, cross a face."""
    push, noise, size = _across(problem, x, a, normals)
    for crossing, word in ((noise, "stills the noise"), (push, "turns the drift")):
        bad = np.argwhere(crossing > SLACK * size)
        if len(bad):
            n, k = (int(i) for i in bad[0])
            side = "low" if normals[n, k] < 0 else "high"
            raise ProblemError(
                f"x = {x[n]} lies on the face {(k, side)} with StateConstraint, and no "
                f"control found {word} across it ({crossing[n, k]:.3g} is left at a = "
                f"{a[n]}): nothing keeps the state inside. Let the diffusion vanish "
                "there, change the control set, or take another rule (Reflecting, "
                "Dirichlet)."
            )


def _best_of_set(states: _States) -> Array:
    """The best admissible control of a finite set, else the least inadmissible."""
    problem = states.problem
    assert isinstance(problem.controls, Finite)
    a = np.empty((len(states.x), problem.n_controls))
    best, least = np.full(len(a), -np.inf), np.full(len(a), np.inf)
    for point in problem.controls.points:
        trial = np.array(np.broadcast_to(point, a.shape))
        crossing = np.maximum(states.crossing(trial), SLACK)
        gain = states.gain(trial)
        take = (crossing < least) | ((crossing == least) & (gain > best))
        a[take], best[take], least[take] = trial[take], gain[take], crossing[take]
    return a


def _quiet_range(
    problem: ControlProblem, x: Array, normals: Array
) -> tuple[Array, Array]:
    """The control box at x with entries that raise noise across a face held still.

    Each at 0 or at a bound, whichever leaves no noise; both (m, n).
    """
    low, high = (np.array(bound) for bound in control_range(problem, x))
    if not callable(problem.diffusion):
        return low, high
    base, step = base_and_step(low, high)
    start = np.ascontiguousarray(base.T)

    def noise(a: Array) -> Array:
        sigma = np.asarray(problem.diffusion_at(x, a)) * np.abs(normals)[..., None]
        return sigma.reshape(len(x), -1)

    for i in range(len(low)):
        moved = start.copy()
        moved[:, i] += step[i]
        felt = (np.abs(noise(moved) - noise(start)) > SLACK).any(1)
        for held in (low[i], high[i], np.clip(0.0, low[i], high[i])):
            trial = start.copy()
            trial[:, i] = held
            with np.errstate(all="ignore"):
                less = np.linalg.norm(noise(trial), axis=1)
            still = felt & (less <= np.linalg.norm(noise(start), axis=1))
            start[still, i] = np.broadcast_to(held, len(x))[still]
        low[i, felt], high[i, felt] = start[felt, i], start[felt, i]
    return low, high


def _pulled(
    problem: ControlProblem, x: Array, normals: Array, a: Array, goal: Array
) -> Array:
    """The first admissible control on the way from a to the admissible goal, (n, m)."""

    def crosses(share: Array) -> NDArray[np.bool_]:
        return _forbidden(problem, x, a + share[:, None] * (goal - a), normals)

    push, _, _ = _across(problem, x, a, normals)
    other, _, _ = _across(problem, x, goal, normals)
    # Exact for a drift affine in a, which is nearly all of them.
    gap = np.where(push > 0, push - np.minimum(other, 0.0), 1.0)
    share = np.clip(np.maximum(push, 0.0) / gap, 0.0, 1.0).max(1)
    wrong = crosses(share)
    low, high = np.where(wrong, share, 0.0), np.where(wrong, 1.0, share)
    tight = ~wrong & ((share == 0) | crosses(share - 1e-9))
    for _ in range(0 if tight.all() else HALVINGS):
        middle = 0.5 * (low + high)
        outside = crosses(middle)
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return a + np.where(tight, share, high)[:, None] * (goal - a)
