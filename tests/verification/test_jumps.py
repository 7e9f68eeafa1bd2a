"""Candidates for problems with jumps, against closed forms (kind: exact)."""

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb
import verification
from verification.jumps import jump_part
from verification.subject import subject_of

RATE, MOVES, WEIGHTS = 0.6, np.array([[0.4], [-0.7]]), np.array([0.3, 0.7])
RULES = {
    "none": None,
    "reflecting": hjb.Reflecting(),
    "robin": hjb.Robin(0.5, 1.0, 0.2),
    "dirichlet": hjb.Dirichlet(0.8),
}


def value(x):
    """V = cos(pi x), even about both ends of [-1, 1] or [0, 1]."""
    return np.cos(np.pi * x[..., 0])


def slope(x):
    return -np.pi * np.sin(np.pi * x)


def after(x):
    """sum_j w_j V(x + delta_j), mirrored at the ends, where V is even."""
    return (value(x[..., None, :] + MOVES) * WEIGHTS).sum(-1)


def problem_of(boundary, discount=0.5, noise=0.4):
    """|a| <= 1, payoff -a^2/2 and a source: `value` is the answer if faces reflect."""

    def reward(x, a):
        p, curve = slope(x)[..., 0], -(np.pi**2) * value(x)
        best = np.clip(p, -1.0, 1.0)
        gained = best * p - 0.5 * best**2 + 0.5 * noise**2 * curve
        source = discount * value(x) - gained - RATE * (after(x) - value(x))
        return source - 0.5 * a[..., 0] ** 2

    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=noise,
        reward=reward,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        discount=discount,
        boundary=boundary,
        jumps=hjb.Jumps(RATE, MOVES, WEIGHTS),
    )


def test_the_right_value_and_policy_agree_and_their_residual_is_small():
    candidate = verification.Candidate(
        value=value, control=lambda x: np.clip(slope(x), -1.0, 1.0), gradient=slope
    )
    verdict = verification.cross_check(candidate, problem_of(hjb.Reflecting()))
    assert verdict.status == "agree", verdict
    assert verdict.residual is not None and verdict.residual < 1e-6
    assert verdict.regret is not None and verdict.regret < 1e-2


def test_a_value_that_forgets_the_jumps_and_a_policy_that_rests_differ():
    quiet = hjb.solve(replace(problem_of(hjb.Reflecting()), jumps=None), 201)
    verdict = verification.cross_check(quiet, problem_of(hjb.Reflecting()))
    assert verdict.status == "differ"
    idle = verification.Candidate(value=value, control=lambda x: 0.0 * x)
    verdict = verification.cross_check(idle, problem_of(hjb.Reflecting()))
    assert verdict.status == "differ"
    assert verdict.regret is not None and verdict.regret > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_what_lies_beyond_a_face_follows_its_rule(name):
    """V beyond a face s away: mirrored, the data, or the slope of the rule."""
    problem = problem_of(RULES[name])
    candidate = verification.Candidate(value=value, gradient=slope)
    x = np.linspace(-1.0, 1.0, 41)[:, None]

    def read(y):
        s = np.maximum(np.abs(y) - 1.0, 0.0)[:, 0]
        edge, at = np.clip(y, -1.0, 1.0), value(np.clip(y, -1.0, 1.0))
        outward = np.sign(y[:, 0]) * slope(edge)[:, 0]
        beyond = {
            "none": at + outward * s,
            "reflecting": value(y),
            # kappa = 1/2 and p = 1/5.
            "robin": np.exp(-s / 2) * at + 0.4 * (1 - np.exp(-s / 2)),
            "dirichlet": np.full(len(y), 0.8),
        }
        return np.where(s > 0, beyond[name], value(y))

    wanted = RATE * (
        sum(w * read(x + move) for w, move in zip(WEIGHTS, MOVES, strict=True))
        - value(x)
    )
    got = jump_part(subject_of(candidate, problem), x)
    assert np.allclose(got, wanted, rtol=0, atol=1e-12)


def test_deadlines_with_jumps_are_judged():
    put = hjb.catalogue.get("jump-diffusion-put")
    solution = hjb.solve(put, times=[0.0])
    verdict = verification.cross_check(solution, put, times=[0.0])
    assert verdict.status == "agree", verdict
    dearer = hjb.solve(hjb.catalogue.get("jump-diffusion-put", sigma=0.3), 401)
    assert verification.cross_check(dearer, solution, times=[0.0]).status == "differ"
