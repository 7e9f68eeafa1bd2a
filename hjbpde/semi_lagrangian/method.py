"""The semi-Lagrangian method: its options, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..boundary import Extrapolate, Robin
from ..errors import MethodMismatch, ProblemError
from ..grid import Grid
from ..held import keywords
from ..methods.ergodic import check_average_faces
from ..methods.stationary_game import check_game_faces
from ..problem import ControlProblem
from .kruzkov import check_undiscounted, is_undiscounted

MAX_DIMENSION = 3
LEAST_NODES = 5


@dataclass(frozen=True)
class SemiLagrangian:
    """Dynamic programming over steps that may cross cells, 1 to 3 dimensions.

    ``V(x) = max_a { int_0^delta e^{-rho s} r ds + e^{-rho delta} E I[V](X_delta) }``
    with I the interpolation between nodes, the drift followed by Runge and Kutta's
    midpoint and the noise as branches along the columns of sigma. An opinion that
    shares nothing with finite differences but the nodes; the noise may be correlated
    between axes and depend on the control as well.

    Linear readings are monotone, of order 1 in h; cubic ones are of order 2 where V is
    smooth: steps are ~ h without noise, ~ h^2 where noise rules (Camilli and Falcone,
    RAIRO M2AN 29 (1995) 97; Debrabant and Jakobsen, Math. Comp. 82 (2013) 1433;
    Falcone and Ferretti, Semi-Lagrangian Approximation Schemes, SIAM 2013).

    Until an exit the step is shortened to where a branch meets the surface, and the
    order kept there. Without noise, discount and horizon the costs until then are
    transformed first (see `kruzkov`): V is infinite where the exit is out of reach.
    With a right to stop V is the better of psi and the step.

    With a horizon the same step is marched backwards from the terminal value, V(t) from
    V(t + delta). It is explicit, yet there is no CFL condition: feet lie wherever the
    process goes. delta is chosen for accuracy as above. Each step is exact to
    O(delta^3) without noise, to O(delta^2) with noise; Runge and Kutta's midpoint is
    one in time, too. The control at the horizon itself is that of the last step.

    In the long run (``average=True``) every step is charged the average for its own
    time (see `average`).

    With impulses V is the better of the step and of a move, read at its target like a
    branch (see `impulse`).

    Other modes are a payoff until the first switch: the rate of leaving adds to rho and
    ``sum_j q_kj V_j``, half way, to r (see `switching`); likewise jumps until the first
    one (see `jumping`). With an adversary the maximum is that of the worst replies, in
    every step (see `game_search`).

    Parameters
    ----------
    interpolation : {"linear", "cubic", "weno"}
        Multilinear, tensor-product cubic through four nodes an axis, or WENO: two
        parabolas an axis, weighted by how smooth they are, which make the cubic where V
        is smooth and do not overshoot at jumps. WENO needs a horizon.
    feet : {"rk2", "euler"}
        How the drift is followed; "euler" is of order 1 in the step.
    step : float, optional
        Length delta of a step on the finest grid, in units of time; by default the
        errors of steps and readings are balanced. Coarser grids take longer ones.
    tolerance : float
        Change of V between policies, relative to sup|V|, that ends the iteration.
    max_policies : int
        Policies on one grid before giving up.
    max_steps : int
        Most steps to a horizon; more are refused before work is spent.
    limiter : bool
        Cut cubic or WENO readings to the range of the values at their cell's corners:
        no overshoot at all, order 1 at maxima and minima. Needs a horizon and no noise.

    Raises
    ------
    ProblemError
        Options out of range.
    """

    interpolation: Literal["linear", "cubic", "weno"] = "cubic"
    feet: Literal["rk2", "euler"] = "rk2"
    step: float | None = None
    tolerance: float = 1e-9
    max_policies: int = 100
    max_steps: int = 200_000
    limiter: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in ("linear", "cubic", "weno"):
            raise ProblemError(
                f"SemiLagrangian: interpolation = {self.interpolation!r}; give "
                "'linear', 'cubic' or 'weno'."
            )
        if self.limiter and self.interpolation == "linear":
            raise ProblemError(
                "SemiLagrangian: linear readings never overshoot; leave limiter out."
            )
        if self.feet not in ("rk2", "euler"):
            raise ProblemError(
                f"SemiLagrangian: feet = {self.feet!r}; give 'rk2' or 'euler'."
            )
        if self.step is not None and not 0 < self.step < np.inf:
            raise ProblemError(
                f"SemiLagrangian: step = {self.step!r}; give a time > 0, or None."
            )
        if not 0 < self.tolerance < 1 or self.max_policies < 1:
            raise ProblemError(
                f"SemiLagrangian: tolerance = {self.tolerance!r} and max_policies = "
                f"{self.max_policies!r}; give a share of sup|V| and a number >= 1."
            )
        if self.max_steps < 1:
            raise ProblemError(
                f"SemiLagrangian: max_steps = {self.max_steps!r}; give a number >= 1."
            )

    @property
    def width(self) -> int:
        """Nodes an axis that one reading takes."""
        return 2 if self.interpolation == "linear" else 4

    @property
    def order(self) -> int:
        """Order in h where V is smooth."""
        first = self.interpolation == "linear" or self.feet == "euler" or self.limiter
        return 1 if first else 2

    @property
    def name(self) -> str:
        """The method in words."""
        kind = "limited " * self.limiter + self.interpolation
        return f"semi-Lagrangian, {kind} readings, {self.feet} feet"


def check_steps(problem: ControlProblem, grid: Grid, method: SemiLagrangian) -> None:
    """Refuse what no step can be taken in.

    Raises
    ------
    MethodMismatch
        Readings that depend on V without a horizon, a limiter with noise; a rule that
        says nothing about values beyond its face, or feeds value back there so that
        several values solve the problem; for cubic readings an exit with a region of
        its own in every mode; without noise and discount until an exit what
        `check_undiscounted` refuses; too few nodes.
    """
    _check_readings(problem, method)
    if problem.adversary is not None:
        check_game_faces(problem)
    if problem.average:
        check_average_faces(problem)
    if problem.impulse is not None and np.min(problem.discount_at(grid.nodes())) <= 0:
        raise ProblemError("'impulse' needs a discount > 0 at every node.")
    for face, rule in problem.faces.items():
        if isinstance(rule, Robin) and rule.alpha / rule.beta < 0:
            raise MethodMismatch(
                f"SemiLagrangian: Robin on face {face} has alpha / beta < 0 and feeds "
                "value back, so that several values solve the problem; give Dirichlet "
                "data there, or use hjb.PolicyIteration, which starts from below."
            )
        if isinstance(rule, Extrapolate):
            raise MethodMismatch(
                f"SemiLagrangian: Extrapolate() on face {face} says nothing about the "
                "value where a long step ends; use Dirichlet, Robin, Reflecting, "
                "StateConstraint or no rule."
            )
    if problem.exit is not None:
        _check_exit(problem, grid, method)
    if min(grid.shape) < LEAST_NODES:
        raise MethodMismatch(
            f"SemiLagrangian: the grid {grid.shape} has fewer than {LEAST_NODES} "
            "nodes on an axis."
        )


def _check_exit(problem: ControlProblem, grid: Grid, method: SemiLagrangian) -> None:
    """Refuse exits in modes of their own, and what the transform does not take."""
    if method.width > 2 and "mode" in keywords(problem.exit.region):
        raise MethodMismatch(
            "SemiLagrangian: the region of 'exit' names the mode: cubic readings go "
            "astray where other modes' values bend or jump at a surface that is not "
            "their own. Take hjb.SemiLagrangian('linear'), or hjb.PolicyIteration or "
            "hjb.Marching."
        )
    if is_undiscounted(problem, grid):
        check_undiscounted(problem, grid)


def _check_readings(problem: ControlProblem, method: SemiLagrangian) -> None:
    """Refuse readings that the problem makes no sense of."""
    guarded = method.limiter or method.interpolation == "weno"
    if guarded and problem.horizon is None:
        raise MethodMismatch(
            "SemiLagrangian: WENO and limited readings depend on V itself, and without "
            "a horizon a policy's value would be no linear system; take 'cubic' or "
            "'linear' readings."
        )
    if method.limiter and problem.diffusion is not None:
        raise MethodMismatch(
            "SemiLagrangian: limiter=True cuts maxima inside cells at every one of the "
            "short steps that noise asks for, more than it spreads them; leave it out, "
            "or take 'weno' or 'linear' readings."
        )
