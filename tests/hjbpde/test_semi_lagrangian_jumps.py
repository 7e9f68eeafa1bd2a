"""Semi-Lagrangian steps with jumps: a step by its definition, orders, bars.

Problems are built backwards from smooth V(x) or V(x, t), drawn at random; what a
jump beyond a face lands on is said by its rule.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()
FACES = ("dirichlet", "reflecting", "robin", "periodic")


class Jumping:
    """V = sum_j A_j sin(W_j . x + P_j) cos(O_j t) on [-1, 1]^d, one kind of face.

    Rate and displacements depend on x; with a horizon the rate moves in time as well.
    """

    def __init__(self, seed, d, kind, horizon=None):
        rng = np.random.default_rng([seed, d])
        self.d, self.kind, self.horizon = d, kind, horizon
        self.W, self.P = rng.uniform(-1.5, 1.5, (2, d)), rng.uniform(0, 6, 2)
        if kind == "periodic":
            self.W = np.pi * rng.choice([-1.0, 1.0], (2, d))
        if kind == "reflecting":
            # One axis a wave: even about both faces.
            self.W = np.pi / 2 * rng.integers(1, 3, 2)[:, None] * np.eye(2, d)
            self.P = self.W.sum(axis=1) + np.pi / 2
        self.A, self.O = rng.uniform(0.2, 0.6, 2), rng.uniform(0, 2, 2)
        self.rho, self.most = rng.uniform(0.2, 1.0), rng.uniform(0.3, 1.5)
        self.noise = rng.uniform(0.0, 0.5) * (rng.random() < 0.7)
        self.moves = rng.normal(0, 0.5, (int(rng.integers(1, 4)), d))
        self.weights = rng.dirichlet(np.ones(len(self.moves)))
        self.often, self.turn = rng.uniform(0.2, 3.0), rng.uniform(0, 0.8)
        self.kappa = rng.uniform(0.1, 1.0)

    def value(self, x, t=0.0, mode=0):
        return (self.A * np.cos(self.O * t) * np.sin(x @ self.W.T + self.P)).sum(-1)

    def velocity(self, x, t):
        turn = -self.A * self.O * np.sin(self.O * t)
        return (turn * np.sin(x @ self.W.T + self.P)).sum(-1)

    def gradient(self, x, t):
        return (self.A * np.cos(self.O * t) * np.cos(x @ self.W.T + self.P)) @ self.W

    def bend(self, x, t):
        wave = self.A * np.cos(self.O * t) * np.sin(x @ self.W.T + self.P)
        return -(wave * (self.W**2).sum(-1)).sum(-1)

    def rate(self, x, t=0.0):
        moved = 0.0 if self.horizon is None else t
        return self.often * (1 + self.turn * np.cos(2 * x.sum(-1) + 3 * moved))

    def displacements(self, x):
        return self.moves * (1 + 0.2 * np.sin(x))[..., None, :]

    def slope(self, x, t, side):
        """kappa V + dV/dn on the faces of the first axis, which are Robin's."""
        normal = self.gradient(x, t)[..., 0] * (1 if side == "high" else -1)
        return self.kappa * self.value(x, t) + normal

    def beyond(self, y, t):
        """V where jumps to y end, by the rule of the faces."""
        if self.kind == "periodic":
            return self.value(y, t)
        if self.kind == "reflecting":
            turn = np.mod(y + 1.0, 4.0)
            return self.value(np.where(turn > 2.0, 4.0 - turn, turn) - 1.0, t)
        at = np.clip(y, -1.0, 1.0)
        if self.kind == "dirichlet":
            return self.value(at, t)
        total = self.value(at, t)
        for side, depth in (("low", -1.0 - y[..., 0]), ("high", y[..., 0] - 1.0)):
            kept = np.exp(-self.kappa * np.maximum(depth, 0.0))
            total = kept * total + self.slope(at, t, side) * (1 - kept) / self.kappa
        ended = (np.abs(y[..., 1:]) > 1.0).any(axis=-1)
        return np.where(ended, self.value(at, t), total)

    def payoff(self, x, a, t=0.0):
        p = self.gradient(x, t)
        a_star = np.clip(p, -self.most, self.most)
        best = ((0.4 * np.sin(3 * x) + a_star) * p - 0.5 * a_star**2).sum(-1)
        after = self.beyond(x[..., None, :] + self.displacements(x), t)
        jumped = self.rate(x, t) * ((after @ self.weights) - self.value(x, t))
        spread = 0.5 * self.noise**2 * self.bend(x, t)
        known = self.rho * self.value(x, t) - self.velocity(x, t) - spread - jumped
        return known - best - 0.5 * (a * a).sum(-1)

    def rules(self):
        if self.kind == "periodic":
            return None
        if self.kind == "reflecting":
            return hjb.Reflecting()
        if self.horizon is None:
            given = hjb.Dirichlet(lambda x: self.value(x))
            sloped = {
                side: hjb.Robin(self.kappa, 1.0, lambda x, s=side: self.slope(x, 0, s))
                for side in ("low", "high")
            }
        else:
            given = hjb.Dirichlet(lambda x, t: self.value(x, t))
            low = hjb.Robin(self.kappa, 1.0, lambda x, t: self.slope(x, t, "low"))
            high = hjb.Robin(self.kappa, 1.0, lambda x, t: self.slope(x, t, "high"))
            sloped = {"low": low, "high": high}
        faces: Any = {(k, s): given for k in range(self.d) for s in ("low", "high")}
        if self.kind == "robin":
            faces.update({(0, side): rule for side, rule in sloped.items()})
        return faces

    def problem(self):
        d, T = self.d, self.horizon
        still = T is None
        rate: Any = (lambda x: self.rate(x)) if still else self.rate
        return hjb.ControlProblem(
            drift=lambda x, a: 0.4 * np.sin(3 * x) + a,
            diffusion=self.noise or None,
            reward=(lambda x, a: self.payoff(x, a)) if still else self.payoff,
            controls=hjb.Box([-self.most] * d, [self.most] * d),
            domain=hjb.Box([-1.0] * d, [1.0] * d, [self.kind == "periodic"] * d),
            discount=self.rho,
            horizon=T,
            terminal=None if still else lambda x: self.value(x, T),
            boundary=self.rules(),
            jumps=hjb.Jumps(rate, self.displacements, self.weights),
        )

    def judged(self, judge, n, method=CUBIC, **options):
        """Coverage, median bar/error and largest error on about n nodes an axis."""
        shape = (n - (self.kind == "periodic"),) * self.d
        return judge(self.problem(), self.value, shape, method, **options)


# --- one step by its definition -------------------------------------------------


def test_the_value_is_that_of_one_step_until_the_first_jump(cubic_reading):
    """Jumps end inside, are folded by one face, and land in the exit and earn 3."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.2 - 0.1 * x,
        diffusion=0.3,
        reward=lambda x, a: x[..., 0] ** 2,
        domain=hjb.Box(0.0, 1.0),
        discount=0.5,
        boundary=hjb.Reflecting(),
        exit=hjb.Exit(lambda x: x[..., 0] - 0.1, 3.0),
        jumps=hjb.Jumps(2.0, [[0.5], [-0.55]], [0.7, 0.3]),
    )
    delta = 1e-3
    method = hjb.SemiLagrangian(step=delta, tolerance=1e-12)
    solution = hjb.solve(problem, 41, method)
    axis, V, c = solution.grid.axes[0], solution.value, 0.5 + 2.0
    for i in (12, 24, 32):
        m = axis[i] + 0.5 * delta * (0.2 - 0.1 * axis[i])
        up = m + 0.5 if m <= 0.5 else 1.5 - m
        down = abs(m - 0.55)
        left = 3.0 if down <= 0.1 else cubic_reading(axis, V, down)
        fed = 2.0 * (0.7 * cubic_reading(axis, V, up) + 0.3 * left)
        ends = axis[i] + delta * (0.2 - 0.1 * m) + np.array([-1, 1]) * 0.3 * delta**0.5
        after = np.mean([cubic_reading(axis, V, y) for y in ends])
        wanted = -np.expm1(-c * delta) / c * (m**2 + fed) + np.exp(-c * delta) * after
        assert wanted == pytest.approx(V[i], abs=1e-9)


# --- orders ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", FACES)
def test_cubic_readings_beside_jumps_are_of_order_two(judge, kind):
    errors = [Jumping(3, 1, kind).judged(judge, n)[2] for n in (65, 129)]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.35


def test_linear_readings_beside_jumps_are_of_order_one(judge):
    made = Jumping(9, 1, "periodic")
    errors = [made.judged(judge, n, LINEAR)[2] for n in (65, 129, 257)]
    order = -np.polyfit(np.log([64, 128, 256]), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.35


@pytest.mark.parametrize("seed", [0, 1])
def test_jumps_in_time_are_of_order_two(judge, seed):
    made = Jumping(seed, 1, "dirichlet", horizon=0.3)
    errors = [made.judged(judge, n, times=[0.0])[2] for n in (33, 65)]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.4


# --- error bars -----------------------------------------------------------------


@pytest.mark.parametrize("kind", FACES)
@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_the_bar_covers_jumps(judge, kind, method):
    assert Jumping(11, 1, kind).judged(judge, 49, method)[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_bar_covers_jumps_drawn_at_random(judge, seed):
    made = Jumping(100 + seed, 2 if seed % 6 == 5 else 1, FACES[seed % 4])
    assert made.judged(judge, 49 if made.d == 1 else 17)[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_jumps_in_time_drawn_at_random(judge, seed):
    made = Jumping(200 + seed, 1, FACES[seed % 4], horizon=0.2)
    assert made.judged(judge, 25, times=np.linspace(0.0, 0.2, 5))[0] >= 0.99


# --- contracts ------------------------------------------------------------------


def test_jumps_across_a_face_that_admits_none_name_the_state():
    problem = replace(
        Jumping(0, 1, "dirichlet").problem(), boundary=hjb.StateConstraint()
    )
    with pytest.raises(hjb.ProblemError, match="says nothing of what lies there"):
        hjb.solve(replace(problem, diffusion=None), 33, CUBIC)
