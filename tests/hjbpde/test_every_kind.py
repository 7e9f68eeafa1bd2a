"""Every kind of problem x kind of controls, solved by two methods that share nothing.

Differences and semi-Lagrangian steps have no scheme in common, so what one of them
forgets the other does not (kind: second method, both bars counted).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb

NODES = 41
STEPS = 24
LEVELS = (-0.4, 0.7)
CONTROLS = {
    "one": hjb.Finite([[0.0]]),
    "finite": hjb.Finite([[-1.0], [-0.3], [0.4], [1.0]]),
    "quadratic": hjb.Box(-1.0, 1.0),
    "searched": hjb.Box(-1.0, 1.0),
}
KINDS = ("plain", "modes", "game", "stop", "exit", "jumps", "impulse", "average")
PAIRS = (
    "modes+stop", "modes+exit", "stop+exit", "jumps+stop", "jumps+exit", "game+stop",
    "game+exit",
)  # fmt: skip
STATIONARY = {"impulse", "average"}


def payoff(a: Any, controls: str) -> Any:
    """What controls cost, quadratic or of no closed form."""
    u = a[..., 0]
    if controls == "searched":
        return 0.25 * u**4 + 0.3 * np.sqrt(0.01 + u**2)
    return 0.5 * u**2


def plain(controls: str, sense: str) -> dict[str, Any]:
    """A pull to a wave, waves paid, a quarter of the noise by the state."""
    sign = 1.0 if sense == "reward" else -1.0

    def pay(x, a):
        return sign * (np.cos(1.3 * x[..., 0] + 0.7) - payoff(a, controls))

    return {
        "drift": lambda x, a: 0.5 * np.sin(1.1 * x) + a,
        "diffusion": lambda x, a: 0.45 * (1 + 0.25 * np.cos(x))[..., None],
        sense: pay,
        "controls": CONTROLS[controls],
        "domain": hjb.Box(-1.2, 1.2),
        "boundary": hjb.Reflecting(),
        "discount": 0.6,
    }


def problem_of(kind: str, controls: str, horizon: float | None, sense: str) -> Any:
    """One of the kinds, or of the pairs, in one state."""
    names, sign = kind.split("+"), 1.0 if sense == "reward" else -1.0
    fields = plain(controls, sense)
    drift, pay = fields["drift"], fields[sense]

    def psi(x):
        return sign * (0.15 + 0.4 * np.cos(1.3 * x[..., 0] + 0.7))

    def end(x):
        return 0.3 * np.sin(1.3 * x[..., 0])

    if "modes" in names:
        fields["modes"] = hjb.Modes([[-0.8, 0.8], [1.5, -1.5]])
        fields["drift"] = lambda x, a, mode: drift(x, a) + 0.3 * LEVELS[mode]
        fields[sense] = lambda x, a, mode: pay(x, a) + LEVELS[mode] * np.sin(x[..., 0])
    if "game" in names:
        fields["adversary"] = hjb.Box(-1.0, 1.0)
        if controls in ("one", "finite"):
            fields["adversary"] = hjb.Finite([[-1.0], [0.0], [1.0]])
        fields["drift"] = lambda x, a, b: drift(x, a) + 0.5 * b
        fields[sense] = lambda x, a, b: pay(x, a) + sign * 0.6 * b[..., 0] ** 2
    if "stop" in names:
        fields["stop"], end = psi, psi
    if "exit" in names:
        fields["exit"] = hjb.Exit(
            lambda x: 0.9 - np.abs(x[..., 0]), lambda x: 0.2 * x[..., 0]
        )
    if "jumps" in names:
        fields["jumps"] = hjb.Jumps(0.8, [[-0.35], [0.2]], [0.4, 0.6])
    if "impulse" in names:
        fields["impulse"] = hjb.Impulse(
            np.linspace(-1, 1, 9)[:, None],
            lambda x, y: 0.35 + 0.1 * np.abs(x - y)[..., 0],
        )
    if "average" in names:
        fields |= {"average": True, "discount": 0.0}
    if horizon is not None:
        fields |= {"horizon": horizon, "terminal": end}
    return hjb.ControlProblem(**fields)


def is_asked(kind: str, controls: str, horizon: float | None) -> bool:
    """Not what there is not, nor a timed game that is searched: steps take minutes."""
    if horizon is not None and STATIONARY & set(kind.split("+")):
        return False
    return horizon is None or "game" not in kind or controls in ("one", "finite")


CASES = [
    case
    for case in [
        *product(KINDS, CONTROLS, (None, 0.5)),
        *product(PAIRS, ("finite", "searched"), (None, 0.5)),
    ]
    if is_asked(*case)
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "controls", "horizon"), CASES)
def test_two_methods_agree_on_every_kind(kind, controls, horizon, assert_agreement):
    sense = "cost" if len(kind) % 2 else "reward"
    problem = problem_of(kind, controls, horizon, sense)
    # Not the default 64: the bars are the same to 1 % and far below those of the other.
    own = None if horizon is None else hjb.Marching(steps=STEPS)
    assert_agreement(problem, NODES, hjb.SemiLagrangian(), own)


@pytest.mark.parametrize(
    ("kind", "horizon"),
    [(kind, None) for kind in KINDS]
    + [
        pytest.param(kind, 0.5, marks=pytest.mark.slow)
        for kind in KINDS
        if kind not in STATIONARY
    ],
)
def test_a_reward_and_the_negated_cost_have_opposite_values(kind, horizon):
    """min of a cost is -max of its negative; an adversary is on the other side."""
    reward = problem_of(kind, "finite", horizon, "reward")
    cost = problem_of(kind, "finite", horizon, "cost")
    if horizon is not None:
        end = reward.terminal
        cost = replace(cost, terminal=lambda x: -end(x))
    if cost.exit is not None:
        beyond = reward.exit.value
        cost = replace(cost, exit=replace(cost.exit, value=lambda x: -beyond(x)))
    if kind == "modes":
        pay = reward.reward
        cost = replace(cost, cost=lambda x, a, mode: -pay(x, a, mode))
    values = [hjb.solve(p, NODES).value for p in (reward, cost)]
    assert np.allclose(values[0], -values[1], rtol=1e-9, atol=1e-11)
