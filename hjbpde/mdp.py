"""Finite Markov decision problems, and the one a monotone scheme is.

The discrete Bellman equation over states x, y and actions a::

    V(x) = max_a { r(x, a) + gamma(x, a) sum_y P_a(x, y) V(y) },   0 <= gamma <= 1

(Puterman, Markov Decision Processes (Wiley 1994), equation 6.1.1, with a discount that
may depend on state and action.) A monotone scheme with rates ``L`` and discount rho is
such a problem for every step ``dt <= 1 / (largest rate)``: ``P = I + dt L``, which is
the Markov chain approximation of Kushner and Dupuis (2nd ed., section 5.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import NotConverged, ProblemError

Array = NDArray[np.float64]
ROW_SLACK = 1e-9
"""How far a row of probabilities may sum above 1."""


@dataclass(frozen=True, eq=False)
class MDPSolution:
    """What a solver of an `MDP` returns.

    Parameters
    ----------
    value : (S,)
    policy : (S,) of int
        A greedy action of every state.
    lower, upper : (S,)
        Bounds of the exact value: ``lower <= V* <= upper``.
    iterations : int
        Policies or sweeps.
    residual : float
        ``max |T V - V|`` of the value returned, T the Bellman operator.
    method : str
    """

    value: Array
    policy: NDArray[np.intp]
    lower: Array
    upper: Array
    iterations: int
    residual: float
    method: str


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite Markov decision problem that maximises.

    Parameters
    ----------
    transition : sequence of A sparse (S, S) matrices, or array (A, S, S)
        Row x of matrix a holds the probabilities of the next state. A row may sum to
        less than 1: the rest ends the process with nothing further.
    reward : (S, A)
        Per step; ``-inf`` forbids an action in a state.
    discount : float, (S,) or (S, A)
        Factor per step in [0, 1].
    dt : float, optional
        Length of a step in time, where the problem came from a continuous one.

    Raises
    ------
    ProblemError
        Wrong shapes, a negative probability, a row above 1, a discount outside
        [0, 1], a reward that is NaN or +inf, a state without an action.
    """

    transition: Any
    reward: Any
    discount: Any
    dt: float | None = None

    def __post_init__(self) -> None:
        chains = tuple(sp.csr_matrix(P, dtype=float) for P in self.transition)
        reward = np.asarray(self.reward, dtype=float)
        if not chains or reward.ndim != 2 or reward.shape[1] != len(chains):
            raise ProblemError(
                f"MDP: reward has shape {reward.shape} for {len(chains)} transition "
                "matrices; expected (states, actions), one matrix an action."
            )
        discount = np.asarray(self.discount, dtype=float)
        if discount.ndim == 1:
            discount = discount[:, None]
        try:
            discount = np.broadcast_to(discount, reward.shape)
        except ValueError:
            raise ProblemError(
                f"MDP: discount has shape {np.shape(self.discount)}; give a number, "
                f"({reward.shape[0]},) or {reward.shape}."
            ) from None
        for name, made in zip(
            ("transition", "reward", "discount"),
            (chains, reward, discount),
            strict=True,
        ):
            object.__setattr__(self, name, made)
        self._check()

    def _check(self) -> None:
        for a, P in enumerate(self.transition):
            if P.shape != (self.n_states, self.n_states):
                raise ProblemError(
                    f"MDP: transition {a} has shape {P.shape}, reward has "
                    f"{self.n_states} states."
                )
            if not np.isfinite(P.data).all() or (P.data < 0).any():
                bad = int(np.flatnonzero(~(P.data >= 0) | ~np.isfinite(P.data))[0])
                row = int(np.searchsorted(P.indptr, bad, side="right") - 1)
                raise ProblemError(
                    f"MDP: transition {a} holds {P.data[bad]} in the row of state "
                    f"{row}; probabilities are finite and >= 0."
                )
            total = np.asarray(P.sum(axis=1)).ravel()
            row = int(total.argmax())
            if total[row] > 1 + ROW_SLACK:
                raise ProblemError(
                    f"MDP: the probabilities of state {row} under action {a} sum to "
                    f"{total[row]:.12g}, above 1. Divide the row by its sum."
                )
        gamma, reward = self.discount, self.reward
        if not ((gamma >= 0) & (gamma <= 1)).all():
            raise ProblemError("MDP: a discount factor lies outside [0, 1].")
        if np.isnan(reward).any() or (reward == np.inf).any():
            x, a = np.argwhere(np.isnan(reward) | (reward == np.inf))[0]
            raise ProblemError(
                f"MDP: the reward of state {x}, action {a} is not finite."
            )
        barred = np.flatnonzero((reward == -np.inf).all(axis=1))
        if barred.size:
            raise ProblemError(f"MDP: state {barred[0]} has no action (all are -inf).")

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return self.reward.shape[0]

    @property
    def n_actions(self) -> int:
        """Number of actions A."""
        return self.reward.shape[1]

    @cached_property
    def contraction(self) -> float:
        """``max_{x,a} gamma(x, a) sum_y P_a(x, y)``; below 1, T is a contraction."""
        rows = np.stack([np.asarray(P.sum(axis=1)).ravel() for P in self.transition], 1)
        allowed = self.reward > -np.inf
        return float(np.max((self.discount * rows)[allowed]))

    def action_values(self, value: Array) -> Array:
        """r(x, a) + gamma sum_y P_a(x, y) V(y), shape (S, A)."""
        ahead = np.stack([P @ value for P in self.transition], axis=1)
        return self.reward + self.discount * ahead

    def greedy(self, value: Array) -> tuple[Array, NDArray[np.intp]]:
        """T V and the action that attains it, lowest number among equals."""
        q = self.action_values(value)
        policy = q.argmax(axis=1)
        return q[np.arange(self.n_states), policy], policy

    def chain(self, policy: NDArray[np.intp]) -> tuple[sp.csr_matrix, Array]:
        """``gamma P`` and r under a policy, (S, S) CSR and (S,)."""
        total = sp.csr_matrix((self.n_states, self.n_states))
        for a, P in enumerate(self.transition):
            use = np.where(policy == a, self.discount[:, a], 0.0)
            total = total + sp.diags(use) @ P
        return sp.csr_matrix(total), self.reward[np.arange(self.n_states), policy]

    def evaluate(self, policy: Any) -> Array:
        """The value of a stationary policy (S,) of action numbers.

        Solves ``(I - gamma P) V = r`` directly, and measures the residual.

        Raises
        ------
        ProblemError
            A policy that is not one of actions, or that uses a forbidden one.
        NotConverged
            A value that does not exist (a chain that never ends and is not
            discounted): the system is singular.
        """
        policy = np.asarray(policy)
        if (
            policy.shape != (self.n_states,)
            or not np.isin(policy, np.arange(self.n_actions)).all()
        ):
            raise ProblemError(
                f"MDP.evaluate: the policy has shape {policy.shape}; give one action "
                f"number below {self.n_actions} for each of {self.n_states} states."
            )
        P, reward = self.chain(policy)
        if not np.isfinite(reward).all():
            raise ProblemError("MDP.evaluate: the policy uses a forbidden action.")
        system = sp.csc_matrix(sp.identity(self.n_states) - P)
        try:
            solve = sp.linalg.splu(system).solve
            value = solve(reward)
            value = value + solve(reward - system @ value)
        except RuntimeError:
            value = np.full(self.n_states, np.nan)
        size = float(np.max(np.abs(reward))) + float(np.max(np.abs(value)))
        if not np.max(np.abs(reward - system @ value)) <= 1e-8 * size:
            raise NotConverged(
                "MDP.evaluate: the value of this policy does not exist or is "
                "ill-defined: some states are neither discounted nor ever left."
            )
        return value


def bounds(mdp: MDP, value: Array, improved: Array) -> tuple[Array, Array]:
    """Bounds of the optimal value from V and T V.

    With one discount gamma and rows that sum to 1 (MacQueen, J. Math. Anal. Appl. 14
    (1966) 38; Puterman, theorem 6.6.3)::

        T V + c min(T V - V) <= V* <= T V + c max(T V - V),  c = gamma / (1 - gamma)

    Otherwise ``|V* - T V| <= k max|T V - V| / (1 - k)``, k the contraction; infinite
    where k is 1.
    """
    gap, c = improved - value, mdp.contraction
    if c >= 1.0:
        wide = np.full(mdp.n_states, np.inf)
        return -wide, wide
    rows = [np.asarray(P.sum(axis=1)).ravel() for P in mdp.transition]
    kept = mdp.discount * np.stack(rows, axis=1)
    if np.ptp(kept) <= 1e-12:
        factor = c / (1.0 - c)
        return improved + factor * gap.min(), improved + factor * gap.max()
    half = c / (1.0 - c) * float(np.max(np.abs(gap)))
    return improved - half, improved + half


def value_iteration(
    mdp: MDP,
    tolerance: float = 1e-10,
    max_iterations: int = 1_000_000,
    start: Any = None,
) -> MDPSolution:
    """V <- T V until the bounds are `tolerance` apart; returns their middle.

    Linear, with the contraction factor of the problem; `tolerance` is relative to the
    largest reward and value.

    Raises
    ------
    NotConverged
        After `max_iterations`, carrying the last solution.
    """
    return _iterate(mdp, 0, tolerance, max_iterations, start, "value iteration")


def modified_policy_iteration(
    mdp: MDP,
    sweeps: int = 20,
    tolerance: float = 1e-10,
    max_iterations: int = 1_000_000,
    start: Any = None,
) -> MDPSolution:
    """Improve, then apply the policy's own operator `sweeps` times (Puterman, 6.5).

    Same stop, result and errors as `value_iteration`; 0 sweeps is value iteration.
    """
    if sweeps < 0:
        raise ProblemError("modified_policy_iteration: sweeps must be >= 0.")
    name = f"modified policy iteration, {sweeps} sweeps"
    return _iterate(mdp, sweeps, tolerance, max_iterations, start, name)


def _iterate(
    mdp: MDP, sweeps: int, tolerance: float, most: int, start: Any, name: str
) -> MDPSolution:
    value = _start(mdp, start)
    solution: MDPSolution | None = None
    for count in range(1, most + 1):
        improved, policy = mdp.greedy(value)
        gap = float(np.max(np.abs(improved - value)))
        lower, upper = bounds(mdp, value, improved)
        size = max(float(np.max(np.abs(improved))), 1e-300)
        finite = bool(np.isfinite(lower).all() and np.isfinite(upper).all())
        middle = 0.5 * (lower + upper) if finite else improved
        solution = MDPSolution(middle, policy, lower, upper, count, gap, name)
        width = float(np.max(upper - lower)) if finite else gap
        if width <= tolerance * size:
            return solution
        value = improved
        if sweeps:
            P, reward = mdp.chain(policy)
            for _ in range(sweeps):
                value = reward + P @ value
    raise NotConverged(
        f"{name}: after {most} iterations the residual is "
        f"{solution.residual if solution else np.inf:.3g} (contraction "
        f"{mdp.contraction:.9g}). policy_iteration does not depend on the contraction.",
        solution,
    )


def policy_iteration(
    mdp: MDP, max_policies: int = 1000, start: Any = None
) -> MDPSolution:
    """Howard's policy iteration with exact evaluation, each checked.

    Finite: every policy is strictly better than the one before, until none is
    (Puterman, theorem 6.4.2). `start` is a first value; default 0.

    Raises
    ------
    NotConverged
        A policy without a value, or `max_policies` reached.
    """
    _, policy = mdp.greedy(_start(mdp, start))
    states = np.arange(mdp.n_states)
    for count in range(1, max_policies + 1):
        value = mdp.evaluate(policy)
        q = mdp.action_values(value)
        best = q.argmax(axis=1)
        # Keep the action where another is better by rounding only: no cycling.
        slack = 1e-12 * float(np.max(np.abs(value))) + 1e-300
        better = q[states, best] > q[states, policy] + slack
        if not better.any():
            improved = q[states, best]
            gap = float(np.max(np.abs(improved - value)))
            lower, upper = bounds(mdp, value, improved)
            return MDPSolution(
                value, policy, lower, upper, count, gap, "policy iteration"
            )
        policy = np.where(better, best, policy)
    raise NotConverged(f"policy_iteration: still improving after {max_policies}.")


def _start(mdp: MDP, start: Any) -> Array:
    if start is None:
        return np.zeros(mdp.n_states)
    value = np.asarray(start, dtype=float).ravel()
    if value.shape != (mdp.n_states,) or not np.isfinite(value).all():
        raise ProblemError(f"start must be {mdp.n_states} finite numbers.")
    return value.copy()
