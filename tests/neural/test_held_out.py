"""What held-out states say of a least-squares value (kinds: exact, agreement, law)."""

import numpy as np
import pytest

import hjbpde as hjb
import neural
from neural.evaluation.held_out import PROMISED, held_out_error
from neural.features import FeatureValue


def bang_bang(seed, d):
    """At most one unit of speed on each axis, kinked costs, reflecting faces."""
    rng = np.random.default_rng(seed)
    at, weight = rng.uniform(-0.6, 0.6, (2, d)), rng.uniform(0.2, 1.5, 3)
    speed, pull = rng.uniform(0.5, 1.5, d), rng.uniform(-0.3, 0.3, d)

    def cost(x, a):
        xp = hjb.namespace(x)
        out = weight[0] * (x**2).sum(-1)
        for i in range(d):
            out = out + weight[1] * xp.abs(x[..., i] - at[0, i])
            out = out + 0.3 * xp.cos(3 * (x[..., i] - at[1, i]))
        return out + 0 * a.sum(-1)

    def drift(x, a):
        return hjb.constant(speed, like=x) * a + hjb.constant(pull, like=x) * x

    return hjb.ControlProblem(
        drift=drift,
        diffusion=float(np.exp(rng.uniform(np.log(0.12), np.log(0.8)))),
        cost=cost,
        controls=hjb.Box([-1.0] * d, [1.0] * d),
        domain=hjb.Box([-1.0] * d, [1.0] * d),
        discount=float(rng.uniform(0.5, 2.0)),
        boundary=hjb.Reflecting(),
    )


@pytest.mark.parametrize(
    ("seed", "d", "shape"),
    [(1, 1, 401), (2, 1, 401), (3, 1, 401), (4, 1, 401), (5, 2, 65), (6, 2, 65)],
)
def test_the_estimate_covers_the_error_that_a_grid_finds(seed, d, shape):
    """Beyond the grid's own bar; no more than 30 times too large."""
    problem = bang_bang(seed, d)
    truth = hjb.solve(problem, (shape,) * d)
    learned = neural.solve(problem, neural.PolicyIteration(neural.LeastSquares()))
    x = truth.grid.nodes().reshape(-1, d)
    gap = np.abs(learned.value_at(x) - truth.value.ravel())
    bar, size = truth.error_bar.ravel(), np.abs(truth.value).max()
    estimate = learned.report.details["error_estimate"]
    assert ((gap - bar).max() / size) <= estimate
    assert estimate <= 30.0 * (gap + bar).max() / size
    settled = learned.report.status in ("converged", "stagnated")
    assert not (settled and estimate > PROMISED)


def blown(sigma, level=0.0):
    """dx = dt + sigma dW between two reflecting faces, cost x + `level`, rho = 1.

    ``V = x + level + 1 + c1 e^(r1 x) + c2 e^(r2 x)`` with roots of ``s^2/2 r^2 + r - 1
    = 0`` and V' = 0 at both faces. The layer at the low face decays like 2 / sigma^2.
    """
    D = 0.5 * sigma**2
    root = np.sqrt(1.0 + 4.0 * D)
    fast, slow = (-1.0 - root) / (2.0 * D), (-1.0 + root) / (2.0 * D)

    def value(x):
        # Scaled to the faces where they are 1, or the fast one would overflow.
        rows = np.array(
            [
                [fast, slow * np.exp(-2.0 * slow)],
                [fast * np.exp(2.0 * fast), slow],
            ]
        )
        c = np.linalg.solve(rows, [-1.0, -1.0])
        z = x[..., 0]
        low, high = np.exp(fast * (z + 1.0)), np.exp(slow * (z - 1.0))
        return z + level + 1.0 + c[0] * low + c[1] * high

    return hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.0 * x,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] + level,
        domain=hjb.Box([-1.0], [1.0]),
        discount=1.0,
        boundary=hjb.Reflecting(),
        exact=hjb.Exact(value),
    )


def off_by(problem, learned):
    x = np.linspace(-1.0, 1.0, 4001)[:, None]
    wanted = problem.exact.value(x)
    gap = np.abs(learned.value_at(x) - wanted)
    return gap.max() / np.abs(wanted).max(), x[gap.argmax()]


def test_a_layer_too_thin_to_fit_is_named_with_its_face():
    """The face is left out of the fit (rate 2 / sigma^2 > 100), V' = 1 stays there."""
    ends = blown(0.13).exact.value(np.array([[-1.0], [1.0]]))
    problem = blown(0.13, level=-ends.mean())
    learned = neural.solve(problem, neural.PolicyIteration(neural.LeastSquares()))
    error, place = off_by(problem, learned)
    details = learned.report.details
    assert details["error_estimate"] == pytest.approx(error, rel=0.2)
    assert details["error_at"] == place.tolist() == [-1.0]
    assert error > PROMISED
    assert learned.report.status == "not converged"
    assert "face (0, 'low')" in str(learned.report)
    assert "hjbpde.solve" in str(learned.report)
    (finding,) = neural.diagnose(learned, show=False).findings
    assert finding.name == "not converged"
    assert "hjbpde.solve" in finding.remedy


def test_a_layer_that_features_resolve_is_no_finding():
    problem = blown(0.8)
    learned = neural.solve(problem, neural.PolicyIteration(neural.LeastSquares()))
    error, _ = off_by(problem, learned)
    assert error <= learned.report.details["error_estimate"] < 1e-6
    assert learned.report.status == "converged"


@pytest.mark.parametrize("name", ["lqr", "manufactured", "merton", "unit-ball"])
def test_smooth_problems_keep_their_status(name):
    problem = hjb.catalogue.get(name)
    learned = neural.solve(problem, neural.PolicyIteration(neural.LeastSquares()))
    assert learned.report.details["error_estimate"] < 1e-6
    assert learned.report.status in ("converged", "stagnated")


def test_the_estimate_grows_with_what_is_put_on_top_of_a_value():
    """A bump of h on V is seen as an error of h, up to the fit of |r|."""
    problem = hjb.catalogue.get("manufactured")
    value = neural.solve(problem).model
    assert isinstance(value, FeatureValue)
    size = np.abs(value.value(np.linspace(-2, 2, 101)[:, None])).max()
    for height in (1e-3, 1e-1):
        moved = FeatureValue(value.basis, value.coefficients.copy())
        moved.coefficients[len(value.basis.bias)] += height * size
        found = held_out_error(problem, moved).size
        assert height / 3.0 < found < 3.0 * height
