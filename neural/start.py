"""A policy to start from: its value must be finite, or nothing learned is true."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_continuous_are

from hjbpde.errors import HJBError, ProblemError
from hjbpde.probe import base_and_step, control_range
from hjbpde.problem import ControlProblem
from hjbpde.real_numbers import real_array
from hjbpde.sets import Box, Finite
from hjbpde.state_constraint import hold_policy, is_constrained

Array = NDArray[np.float64]
Policy = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class LinearPolicy:
    """a(x) = a0 - K (x - centre), clipped to the control set.

    The feedback of the discounted Riccati equation of the problem's linearisation;
    P and p are its value ``-sign (z'P z/2 + p.z)`` up to a constant.
    """

    problem: ControlProblem
    centre: Array
    offset: Array
    gain: Array

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        a = self.offset - (x - self.centre) @ self.gain.T
        return clip_controls(self.problem, x, a)


@dataclass(frozen=True, eq=False)
class ConstantPolicy:
    """The same control everywhere."""

    control: Array

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        return np.array(np.broadcast_to(self.control, (len(x), len(self.control))))


@dataclass(frozen=True, eq=False)
class HeldPolicy:
    """A policy whose controls on faces with a state constraint lead across none."""

    problem: ControlProblem
    policy: Policy

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        return hold_policy(self.problem, x, self.policy(x))


def held_inside(problem: ControlProblem, policy: Policy) -> Policy:
    """The policy itself, or held on faces with a state constraint."""
    return HeldPolicy(problem, policy) if is_constrained(problem) else policy


def clip_controls(problem: ControlProblem, x: Array, a: Array) -> Array:
    """The nearest admissible controls to a (n, m) at x (n, d)."""
    controls = problem.controls
    if isinstance(controls, Box):
        low, high = control_range(problem, x)
        return np.clip(a, low.T, high.T)
    return controls.clip(a) if isinstance(controls, Finite) else a


def checked_start(problem: ControlProblem, start: Callable[[Array], object]) -> Policy:
    """A user's start(x) -> (..., m) whose shape, numbers and set are checked.

    Raises
    ------
    ProblemError
        Wrong shape, NaN, or a control outside the admissible set, with the point.
    """

    def policy(x: Array) -> Array:
        try:
            a = real_array(start(x), "PolicyIteration: what start returned")
        except HJBError:
            raise
        except Exception as cause:
            raise ProblemError(
                f"PolicyIteration: start failed on states of shape {x.shape}: "
                f"{type(cause).__name__}: {cause}. It is called with NumPy arrays x "
                "(n, d) and returns (n, m)."
            ) from cause
        wanted = (len(x), problem.n_controls)
        if a.shape != wanted:
            raise ProblemError(
                f"PolicyIteration: start returned shape {a.shape} for states of shape "
                f"{x.shape}; expected {wanted}, one row a state."
            )
        off = np.abs(clip_controls(problem, x, a) - a).max(-1, initial=0.0)
        bad = ~np.isfinite(a).all(-1) | (off > 1e-9 * (1 + np.abs(a).max(initial=0)))
        if bad.any():
            n = int(np.flatnonzero(bad)[0])
            raise ProblemError(
                f"PolicyIteration: start gives a = {a[n]} at x = {x[n]}, which is not "
                "in the control set. Clip it to the set's bounds."
            )
        return a

    return policy


def linear_start(problem: ControlProblem) -> LinearPolicy | None:
    """Riccati feedback of the linearisation at the box centre, or None.

    With z = x - centre, u = a - a0, drift ``f0 + A z + B u`` and cost
    ``z'Q z/2 + z'N u + u'R u/2 + q.z + s.u``:
    ``K = R^-1 (B'P + N')``, P from the algebraic Riccati equation of
    ``A - rho I/2`` (Yong and Zhou, Stochastic Controls, 1999, chapter 6).
    None where there is nothing to solve: no control in the drift, a payoff that is
    not strictly concave in a, noise that depends on the control, or no stabilising
    root.
    """
    if problem.domain is None:
        return None
    local = expand(problem, problem.domain.centre)
    if local is None:
        return None
    return LinearPolicy(problem, local.at, local.offset, local.gain)


@dataclass(frozen=True, eq=False)
class Expansion:
    """The linear-quadratic problem that touches the given one at a state, solved.

    With z = x - at, in the minimising sense: value ``z'P z/2 + p.z + c``, control
    ``offset - gain z``, closed-loop drift ``push + closed z``.
    """

    at: Array
    offset: Array
    gain: Array
    P: Array
    p: Array
    c: float
    push: Array
    closed: Array


def expand(
    problem: ControlProblem, at: Array, control: Array | None = None
) -> Expansion | None:
    """Linearise at a state (d,) and control (m,), and solve the Riccati equation.

    None where there is nothing to solve, see `linear_start`.
    """
    if not isinstance(problem.controls, Box):
        return None
    low, high = control_range(problem, at[None])
    base, step = base_and_step(low, high)
    base, step = (base[:, 0] if control is None else control), step[:, 0]
    local = _linearise(problem, at, base, step)
    if local is None:
        return None
    f0, A, B, l0, q, Q, N, s, R, noise = local
    rho = float(np.asarray(problem.discount_at(at[None]))[0])
    gain_and_P = _riccati(A - 0.5 * rho * np.eye(len(A)), B, Q, N, R)
    if gain_and_P is None:
        return None
    gain, P = gain_and_P
    closed = A - B @ gain
    p = np.linalg.solve(rho * np.eye(len(A)) - closed.T, q + P @ f0 - gain.T @ s)
    u0 = -np.linalg.solve(R, s + B.T @ p)
    paid = l0 + s @ u0 + 0.5 * u0 @ R @ u0 + 0.5 * (noise * P).sum()
    c = float(paid + p @ (f0 + B @ u0)) / rho
    return Expansion(at, base + u0, gain, P, p, c, f0 + B @ u0, closed)


def _riccati(
    A: Array, B: Array, Q: Array, N: Array, R: Array
) -> tuple[Array, Array] | None:
    """Stabilising gain and P; A is already shifted by half the discount.

    Where the payoff bends the wrong way at the centre there may be no stabilising
    root; its convex part then still gives a stabilising gain.
    """
    try:
        np.linalg.cholesky(R)
    except np.linalg.LinAlgError:
        return None
    mixed = N @ np.linalg.solve(R, N.T)
    size, axes = np.linalg.eigh(Q - mixed)
    floor = 1e-3 * np.abs(size).max()
    convex = (axes * np.maximum(size, floor)) @ axes.T + mixed
    for bend in (Q, convex):
        try:
            P = np.asarray(solve_continuous_are(A, B, bend, R, s=N), dtype=float)
        except (np.linalg.LinAlgError, ValueError):
            continue
        gain = np.asarray(np.linalg.solve(R, B.T @ P + N.T), dtype=float)
        if np.linalg.eigvals(A - B @ gain).real.max() < 0:
            return gain, P
    return None


def _linearise(
    problem: ControlProblem, at: Array, base: Array, step: Array
) -> tuple[Any, ...] | None:
    """f0, A, B, l0, q, Q, N, s, R, sigma sigma' by central differences."""
    assert problem.domain is not None
    d, m = problem.dimension, problem.n_controls
    half = 0.5 * problem.domain.width
    h = np.r_[1e-3 * half, 1e-2 * step]
    y0 = np.r_[at, base]
    moves = np.diag(h)
    n = d + m
    pairs = [(i, j) for i in range(n) for j in range(i)]
    stack = [y0, *(y0 + moves), *(y0 - moves)]
    for i, j in pairs:
        stack += [
            y0 + si * moves[i] + sj * moves[j] for si in (1, -1) for sj in (1, -1)
        ]
    y = np.array(stack)
    x, a = np.ascontiguousarray(y[:, :d]), np.ascontiguousarray(y[:, d:])
    sigma = np.asarray(problem.diffusion_at(x, a))
    moved = np.abs(sigma[1 + d : 1 + n] - sigma[:1]).max(initial=0.0)
    if moved > 1e-10 * (1 + np.abs(sigma).max()):
        return None
    f = np.asarray(problem.drift_at(x, a))
    cost = -problem.sign * np.asarray(problem.payoff_at(x, a))
    J = ((f[1 : 1 + n] - f[1 + n : 1 + 2 * n]) / (2 * h[:, None])).T
    up, down = cost[1 : 1 + n], cost[1 + n : 1 + 2 * n]
    grad = (up - down) / (2 * h)
    H = np.diag((up - 2 * cost[0] + down) / h**2)
    for k, (i, j) in enumerate(pairs):
        pp, pm, mp, mm = cost[1 + 2 * n + 4 * k : 5 + 2 * n + 4 * k]
        H[i, j] = H[j, i] = (pp - pm - mp + mm) / (4 * h[i] * h[j])
    noise = sigma[0] @ sigma[0].T
    sides = grad[:d], H[:d, :d], H[:d, d:], grad[d:], H[d:, d:]
    return f[0], J[:, :d], J[:, d:], cost[0], *sides, noise


def constant_starts(problem: ControlProblem, per_axis: int = 4) -> list[ConstantPolicy]:
    """Constant policies worth trying, spread over the set (logarithmically if > 0)."""
    controls = problem.controls
    assert problem.domain is not None
    if controls is None:
        return [ConstantPolicy(np.zeros(0))]
    if isinstance(controls, Finite):
        few = np.linspace(0, len(controls.points) - 1, min(len(controls.points), 33))
        return [ConstantPolicy(controls.points[k]) for k in few.round().astype(int)]
    low, high = control_range(problem, problem.domain.centre[None])
    axes = []
    for lo, hi in zip(low[:, 0], high[:, 0], strict=True):
        lo, hi = _finite_range(float(lo), float(hi))
        if lo > 0:
            axes.append(np.geomspace(lo, hi, per_axis + 2)[:-1])
        else:
            axes.append(np.linspace(lo, hi, per_axis + 1))
    points = list(itertools.product(*axes))
    return [ConstantPolicy(np.array(point)) for point in points[:256]]


def _finite_range(low: float, high: float) -> tuple[float, float]:
    if np.isfinite(low):
        return low, high if np.isfinite(high) else low + 1.0 + abs(low)
    return (high - 1.0 - abs(high) if np.isfinite(high) else -1.0), min(high, 1.0)
