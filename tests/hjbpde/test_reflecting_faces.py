"""Reflecting faces of explicit marching: held there, whatever slope V has."""

from functools import cache

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.methods.hamiltonians import AffineHamiltonian, SampledHamiltonian
from hjbpde.methods.reflecting_faces import reflecting_faces
from hjbpde.one_sided import End, FirstOrder, OneSided

DRIFT, HORIZON = 0.6, 0.7
REACHES = hjb.LaxFriedrichs.AXIS, hjb.LaxFriedrichs.CONTROLS


def ending(x):
    return 0.5 * np.sin(5.0 * x[..., 0] + 2.2)


def moved_at_a_price():
    """x' = a + .6 at the price a^2 / 2 a unit of time in [0, 1], both ends reflecting.

    V falls from the low face and rises towards the high one, both with a slope.
    """
    return hjb.ControlProblem(
        drift=lambda x, a: a + DRIFT,
        reward=lambda x, a: -0.5 * a[..., 0] ** 2,
        controls=hjb.Box(-6.0, 6.0),
        domain=hjb.Box(0.0, 1.0),
        boundary=hjb.Reflecting(),
        horizon=HORIZON,
        terminal=ending,
    )


@cache
def best_of_all_paths():
    """V at 26 nodes by its definition: straight on, or to 1 to wait there, and on.

    The drift presses against the high face, where waiting has no price.
    """
    x, y = np.linspace(0.0, 1.0, 26), np.linspace(0.0, 1.0, 5001)
    price = lambda way, time: 0.5 * time * (way / time - DRIFT) ** 2  # noqa: E731
    best = (ending(y[:, None])[:, None] - price(y[:, None] - x, HORIZON)).max(0)
    s = np.linspace(1e-6, HORIZON, 701)
    there = np.maximum.accumulate(-price(1.0 - x, s[:, None]), axis=0)
    onward = [(ending(y[:, None]) - price(y - 1.0, HORIZON - t)).max() for t in s[:-1]]
    onward.append(ending(np.ones((1, 1)))[0])
    return np.maximum(best, (there + np.array(onward)[:, None]).max(0))


@pytest.mark.parametrize(
    "hamiltonian",
    [hjb.Godunov(), *(hjb.LaxFriedrichs(reach) for reach in REACHES)],
    ids=["Godunov", "Lax-Friedrichs", "speeds of all controls"],
)
def test_v_with_slopes_at_its_faces_is_found_at_first_order(hamiltonian):
    # The fan at the low face begins in a kink of the mirrored data: no order above 1.
    method = hjb.ExplicitMarching(hamiltonian=hamiltonian)
    wanted, errors = best_of_all_paths(), []
    for n in (51, 101, 201):
        solution = hjb.solve(moved_at_a_price(), n, method)
        errors.append(np.abs(solution.value[0, :: (n - 1) // 25] - wanted))
        assert errors[-1][[0, -1]].max() < 2e-5
    largest = [float(error.max()) for error in errors]
    assert largest[-1] < 2e-3
    orders = np.log2(np.array(largest[:-1]) / largest[1:])
    assert ((orders > 0.8) & (orders < 1.2)).all()


def test_bars_cover_what_all_paths_give():
    solution = hjb.solve(moved_at_a_price(), 101)
    error = np.abs(solution.value[0, ::4] - best_of_all_paths())
    # The definition is evaluated to 1e-6.
    assert (error <= solution.error_bar[0, ::4] + 1e-6).all()
    assert solution.error_bar[0].max() < 1e-2


def test_differences_and_semi_lagrangian_steps_agree_where_faces_meet():
    # Five motions to choose from in a square that no path leaves, V sloping everywhere.
    motions = np.array([[0.9, 0.2], [-0.4, 0.8], [-0.7, -0.6], [0.3, -0.9], [0.0, 0.0]])
    problem = hjb.ControlProblem(
        drift=lambda x, a: a + 0.3 * np.sin(2.0 * x[..., ::-1]),
        reward=lambda x, a: np.cos(x @ np.array([0.8, 1.3])) - 0.3 * (a * a).sum(-1),
        controls=hjb.Finite(motions),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        boundary=hjb.Reflecting(),
        horizon=0.6,
        terminal=lambda x: 0.3 * np.sin(x.sum(-1)),
    )
    ours = hjb.solve(problem, 25, hjb.ExplicitMarching())
    other = hjb.solve(problem, 49, hjb.SemiLagrangian())
    gap = np.abs(ours.value[0] - other.value[0, ::2, ::2])
    assert (gap <= ours.error_bar[0] + other.error_bar[0, ::2, ::2]).mean() >= 0.99
    assert gap.max() < 2e-2 * np.abs(ours.value[0]).max()


@pytest.mark.parametrize("timed", [False, True], ids=["discounted", "a horizon"])
def test_what_drifts_against_a_reflecting_face_stays_there(timed):
    # V at the face: nothing but the payoff there, from now on.
    problem = hjb.ControlProblem(
        drift=lambda x, a: -1.0 - x,
        reward=lambda x, a: np.cos(3.0 * x[..., 0] + 0.4),
        discount=0.5,
        domain=hjb.Box(0.0, 1.0),
        boundary=hjb.Reflecting(),
        **({"horizon": 2.0, "terminal": 0.0} if timed else {}),
    )
    method = hjb.Marching() if timed else hjb.PolicyIteration()
    found = np.asarray(hjb.solve(problem, 21, method).value)
    wanted = np.cos(0.4) / 0.5 * (1.0 - np.exp(-0.5 * 2.0) if timed else 1.0)
    at_the_face = float(found[0, 0] if timed else found[0])
    assert at_the_face == pytest.approx(wanted, rel=1e-6)


def on_a_face(V, low):
    grid = hjb.Grid(hjb.Box([0.0, 0.0], [1.0, 1.0]), V.shape)
    pair = (End.MIRROR, End.LINEAR) if low else (End.LINEAR, End.MIRROR)
    one_sided = OneSided.on(grid, FirstOrder(), [pair, (End.LINEAR, End.LINEAR)])
    inverse_h = np.array([[s.item()] for s in one_sided.inverse_steps()])
    (face,) = reflecting_faces(one_sided, inverse_h)
    return face


def bilinear(rng, shape, low):
    """V with one gradient along the face, so that nothing is dissipated along it."""
    slopes = rng.uniform(-1.0, 1.0, 2)
    x, y = np.meshgrid(*(np.linspace(0.0, 1.0, n) for n in shape), indexing="ij")
    return slopes[0] * x + slopes[1] * y, slopes[0] if low else -slopes[0], slopes[1]


@pytest.mark.parametrize("low", [True, False], ids=["low", "high"])
def test_a_face_takes_the_best_control_whose_outward_drift_does_not_count(low):
    rng = np.random.default_rng(4)
    for _ in range(20):
        V, inward, along = bilinear(rng, (6, 7), low)
        B, f0 = rng.uniform(-1.0, 1.0, (2, 1, 1)), rng.uniform(-0.5, 0.5, (2, 1))
        r1, R = rng.uniform(-0.3, 0.3, (1, 1)), np.array([[0.7]])
        ends = np.array([[-1.0]]), np.array([[1.0]])
        hamiltonian = AffineHamiltonian(f0, B, np.zeros(1), r1, R, *ends, np.ones(1))
        # Where the drift is 0 the payoff bends.
        u = np.append(np.linspace(-1.0, 1.0, 20001), -f0[0] / B[0, 0])
        u = np.clip(u, -1.0, 1.0)
        f = f0 + B[:, 0] * u
        outward_drift_off = np.maximum(f[0] if low else -f[0], 0.0)
        payoff = r1[0] * u - 0.5 * R[0] * u * u
        wanted = (payoff + outward_drift_off * inward + f[1] * along).max()
        face = on_a_face(V, low)
        found = face.rate(V.ravel(), hamiltonian, hjb.LaxFriedrichs())
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_a_face_of_a_sampled_game_takes_godunovs_extremum():
    rng = np.random.default_rng(5)
    for _ in range(20):
        V, inward, along = bilinear(rng, (6, 7), low=True)
        f, r = rng.uniform(-1.0, 1.0, (3, 4, 2)), rng.uniform(-0.3, 0.3, (3, 4))
        wide = np.repeat(f[..., None], 42, -1), np.repeat(r[..., None], 42, -1)
        hamiltonian = SampledHamiltonian(*wide, np.zeros((3, 1)), np.zeros((4, 1)))
        q = inward * np.linspace(0.0, 1.0, 20001)
        G = (r[..., None] + f[..., :1] * q + f[..., 1:] * along).min(1).max(0)
        wanted = G.max() if inward > 0.0 else G.min()
        face = on_a_face(V, low=True)
        found = face.rate(V.ravel(), hamiltonian, hjb.LaxFriedrichs())
        np.testing.assert_allclose(found, wanted, atol=1e-4)
