"""Symplectic characteristics: closed forms, order, energy, crossings, the grid."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.characteristics import flow


def observed(errors):
    errors = np.abs(errors)
    return np.log2(errors[:-1] / errors[1:])


OSCILLATOR = hjb.Hamiltonian(
    value=lambda x, p: 0.5 * (x * x + p * p).sum(-1),
    in_x=lambda x, p: x,
    in_p=lambda x, p: p,
)
PENDULUM = hjb.Hamiltonian(
    value=lambda x, p: (0.5 * p * p - np.cos(x)).sum(-1),
    in_x=lambda x, p: np.sin(x),
    in_p=lambda x, p: p,
)
GEODESIC = hjb.Hamiltonian(
    value=lambda x, p: 0.5 * ((1 + x * x) * p * p).sum(-1),
    in_x=lambda x, p: x * p * p,
    in_p=lambda x, p: (1 + x * x) * p,
)
"""H = (1 + x^2) p^2 / 2: free motion in asinh x, and V gains H a unit of time."""


@pytest.mark.parametrize("method", [hjb.StoermerVerlet(), hjb.ImplicitMidpoint()])
def test_the_oscillator_converges_at_order_two(method):
    """q = q_T cos(T - t), V = -tan(T - t) q^2 / 2, grad V = -tan(T - t) q."""
    problem = hjb.catalogue.get("harmonic-oscillator")
    x = np.linspace(-2, 2, 9)[:, None]
    gaps = []
    for steps in (8, 16, 32, 64):
        rays = hjb.characteristics(problem, x, steps, method=method)
        q = x * np.cos(1.0)
        at = [rays.states[:, 0], rays.gradients[:, 0], rays.values[:, 0]]
        wanted = [q, -np.tan(1.0) * q, problem.exact.value(q)]
        gaps.append([np.abs(a - b).max() for a, b in zip(at, wanted, strict=True)])
    assert rays.crossing == -np.inf
    assert np.abs(observed(np.array(gaps)) - 2).max() < 0.1
    assert np.max(gaps[-1]) < 1e-3


def test_a_hamiltonian_that_does_not_separate_converges_at_order_two():
    """asinh x moves at the speed sqrt(1 + x^2) p, and V gains H, both constant."""
    x, p = np.array([[0.3], [-1.0]]), np.array([[0.7], [0.4]])
    speed, energy = np.sqrt(1 + x * x) * p, GEODESIC.value(x, p)
    gaps = []
    for steps in (10, 20, 40, 80):
        out = flow(
            GEODESIC, x, p, np.zeros(2), 2 / steps, steps, hjb.ImplicitMidpoint()
        )
        there = np.sinh(np.arcsinh(x) + 2 * speed)
        gaps.append([np.abs(out[0][-1] - there).max(), np.ptp(out[2][-1] - 2 * energy)])
    assert np.abs(observed(np.array(gaps)) - 2).max() < 0.15
    assert np.max(gaps[-1]) < 1e-2


def test_energy_errors_stay_bounded_over_a_thousand_periods():
    """On the oscillator the matrix of a step, [[1 - h^2/2, h], [h^3/4 - h, 1 - h^2/2]],
    keeps p^2 + (1 - h^2/4) x^2: from x = 0 on H moves by exactly h^2 x^2 / 8."""
    h, start = 0.2, np.array([[0.0]])
    out = flow(
        OSCILLATOR, start, start + 1, np.zeros(1), h, 31_416, hjb.StoermerVerlet()
    )
    x, p = out[0][:, 0, 0], out[1][:, 0, 0]
    energy = 0.5 * (x * x + p * p)
    assert np.abs(energy - 0.5 - h * h * x * x / 8).max() < 1e-11
    assert energy.max() - 0.5 == pytest.approx(h * h / 8 / (1 - h * h / 4), rel=1e-3)


def test_the_midpoint_rule_keeps_quadratic_energies():
    out = flow(
        OSCILLATOR, np.array([[0.4]]), np.array([[0.8]]), np.zeros(1), 0.2, 3000,
        hjb.ImplicitMidpoint(),
    )  # fmt: skip
    energy = 0.5 * (out[0] ** 2 + out[1] ** 2)
    assert np.ptp(energy) < 1e-10


def test_the_pendulum_does_not_drift_and_runs_back_to_its_start():
    start = np.array([[2.5], [0.5]]), np.array([[0.0], [1.0]])
    x, p, V = flow(PENDULUM, *start, np.zeros(2), 0.1, 20_000, hjb.StoermerVerlet())
    energy = 0.5 * p[..., 0] ** 2 - np.cos(x[..., 0])
    off = np.abs(energy - energy[0])
    early, late = off[:10_000].max(0), off[10_000:].max(0)
    assert (late < 1.01 * early).all()
    back = flow(PENDULUM, x[200], p[200], V[200], -0.1, 200, hjb.StoermerVerlet())
    assert np.abs(back[0][-1] - start[0]).max() < 1e-10
    assert np.abs(back[2][-1]).max() < 1e-10


@pytest.mark.slow
def test_rays_agree_with_the_grid_before_the_first_kink():
    """Both against each other within the grid's bar, and against Hopf and Lax."""
    problem = hjb.catalogue.get("hamilton-jacobi")
    solution = hjb.solve(problem, 200)
    rays = hjb.characteristics(problem, np.linspace(-1, 1, 41)[:, None], 20)
    assert rays.crossing == -np.inf
    x, V = rays.states[:, 0], rays.values[:, 0]
    # Straight rays: the differences of the terminal cost are the only error.
    assert np.abs(V - problem.exact.value(x)).max() < 1e-9
    assert (np.abs(V - solution.value_at(x)) <= solution.error_at(x) + 1e-9).all()
    assert np.abs(rays.gradients[:, 0] - solution.gradient_at(x)).max() < 1e-3


def test_the_first_crossing_is_found():
    """Cosine data fold a time 1 / pi before the end, at x = 1 and x = -1."""
    problem = hjb.catalogue.get("hamilton-jacobi", horizon=0.6, dimension=2)
    line = np.linspace(-1, 1, 9)
    x = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    rays = hjb.characteristics(problem, x, 24)
    # In two dimensions the determinant is quadratic between steps.
    assert rays.crossing == pytest.approx(0.6 - 1 / np.pi, abs=(0.6 * np.pi / 24) ** 2)
    assert rays.values.shape == rays.energies.shape == (81, 25)
    one = hjb.catalogue.get("hamilton-jacobi", horizon=0.6)
    rays = hjb.characteristics(one, line[:, None], 24)
    assert rays.crossing == pytest.approx(0.6 - 1 / np.pi, abs=1e-6)
    late = rays.times > rays.crossing
    for k in np.flatnonzero(late):
        wanted = one.exact.value(rays.states[:, k], t=rays.times[k])
        assert np.abs(rays.values[:, k] - wanted).max() < 1e-9
    # Beyond, rays that have met carry more than the least cost.
    start = one.exact.value(rays.states[:, 0])
    assert (rays.values[:, 0] - start).max() > 1e-2


def test_the_hamiltonian_of_a_problem_is_that_written_by_hand():
    """min_a {a p + (a^2 - q^2) / 2} = -(p^2 + q^2) / 2."""
    H = hjb.Hamiltonian.of(hjb.catalogue.get("harmonic-oscillator"))
    rng = np.random.default_rng(1)
    x, p = rng.uniform(-2, 2, (50, 1)), rng.normal(size=(50, 1))
    x[0], x[1] = -2.0, 2.0
    assert H.value(x, p) == pytest.approx(-0.5 * (x * x + p * p)[:, 0], abs=1e-12)
    assert H.in_p(x, p) == pytest.approx(-p, abs=1e-12)
    assert H.in_x(x, p) == pytest.approx(-x, abs=1e-10)
    assert H.separates(x, p)
    assert not GEODESIC.separates(x, p)


def bent_problem(**changes):
    """x' = sqrt(1 + x^2) a, cost a^2 / 2: H = -(1 + x^2) p^2 / 2."""
    fields = {
        "drift": lambda x, a: np.sqrt(1 + x * x) * a,
        "cost": lambda x, a: 0.5 * a[..., 0] ** 2,
        "controls": hjb.Box(-np.inf, np.inf),
        "domain": hjb.Box(-1.0, 1.0),
        "horizon": 0.5,
        "terminal": lambda x: 0.5 * x[..., 0],
    }
    return hjb.ControlProblem(**{**fields, **changes})


def test_problems_and_methods_that_do_not_fit_are_refused():
    x = np.zeros((1, 1))
    with pytest.raises(hjb.MethodMismatch, match="ImplicitMidpoint"):
        hjb.characteristics(bent_problem(), x, 10, method=hjb.StoermerVerlet())
    with pytest.raises(hjb.MethodMismatch, match="noise"):
        hjb.characteristics(bent_problem(diffusion=0.1), x, 10)
    with pytest.raises(hjb.MethodMismatch, match="discount"):
        hjb.characteristics(bent_problem(discount=0.1), x, 10)
    with pytest.raises(hjb.MethodMismatch, match="horizon=T"):
        hjb.characteristics(hjb.catalogue.get("lqr", sigma=0.0), x, 10)
    with pytest.raises(hjb.ProblemError, match="shape"):
        hjb.characteristics(bent_problem(), [0.0], 10)
    with pytest.raises(hjb.ProblemError, match="outside"):
        hjb.characteristics(bent_problem(), [[1.5]], 10)
    method = hjb.ImplicitMidpoint(max_iter=2)
    with pytest.raises(hjb.NotConverged, match="take more"):
        hjb.characteristics(bent_problem(), x, 2, method=method)


def test_a_ray_that_leaves_needs_a_hamiltonian_that_may_be_called_outside():
    """Backward from 0.95 the ray runs to the right, asinh x by sqrt(1 + x^2) / 4."""
    problem, x = bent_problem(), np.array([[0.95]])
    with pytest.raises(hjb.ProblemError, match="leaves the domain"):
        hjb.characteristics(problem, x, 10)
    own = hjb.Hamiltonian(
        lambda x, p: -GEODESIC.value(x, p),
        lambda x, p: -GEODESIC.in_x(x, p),
        lambda x, p: -GEODESIC.in_p(x, p),
    )
    rays = hjb.characteristics(problem, x, 200, hamiltonian=own)
    there = np.sinh(np.arcsinh(0.95) + 0.25 * np.sqrt(1 + 0.95**2))
    assert rays.states[0, 0, 0] == pytest.approx(there, rel=1e-5)
    own_energy = -0.125 * (1 + 0.95**2)
    assert rays.energies[0] == pytest.approx(own_energy, rel=1e-5)
