"""Filtered schemes: high order where smooth, convergent whatever is filtered."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.kernels.filtering import keep_within


def test_the_kernel_is_the_filter_of_its_formula():
    rng = np.random.default_rng(0)
    high, monotone, room = rng.normal(size=200), rng.normal(size=200), 0.4
    s = (high - monotone) / room
    kept = np.where(np.abs(s) <= 1, s, np.sign(s) * np.maximum(2 - np.abs(s), 0))
    moved = keep_within(high, monotone, room)
    assert np.allclose(high, monotone + room * kept, rtol=0, atol=1e-15)
    assert moved == np.count_nonzero(np.abs(s) > 1)


def burgers(horizon, terminal):
    """V_t = V_x^2 / 2 on a circle of length 2, as max_a {a p - a^2/2}."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: -0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-1.0], [1.0], periodic=(True,)),
        horizon=horizon,
        terminal=terminal,
    )


def wave(x):
    return hjb.namespace(x).cos(np.pi * x[..., 0]) / np.pi


def roof(x):
    return hjb.namespace(x).abs(x[..., 0])


def values(problem, nodes, scheme, **options):
    """V at t = 0, and what the report tells."""
    method = hjb.ExplicitMarching(scheme, **options)
    solution = hjb.solve(problem, nodes, method, times=[0.0, problem.horizon])
    return solution.value[0], solution.report


def moved_wave(x, t):
    """Hopf-Lax before the shock: V_x = -sin(pi y) along x = y + t sin(pi y)."""
    y = x.copy()
    for _ in range(60):
        y -= (y + t * np.sin(np.pi * y) - x) / (1 + t * np.pi * np.cos(np.pi * y))
    return np.cos(np.pi * y) / np.pi - 0.5 * t * np.sin(np.pi * y) ** 2


def test_smooth_values_pass_at_order_five():
    errors, t = [], 0.15
    problem = burgers(t, wave)
    for n in (80, 160, 320):
        scheme, step = hjb.Filtered(hjb.WENO5(1e-6)), 0.3 * (2 / n) ** (5 / 3)
        got, report = values(problem, n, scheme, step=step)
        assert report.details["filtered"] == 0.0
        x = hjb.Grid(problem.domain, n).axes[0]
        errors.append(np.abs(got - moved_wave(x, t)).mean())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ((orders > 4.5) & (orders < 5.5)).all()


def test_without_room_the_step_is_monotone_and_with_much_of_high_order():
    problem, alike = burgers(0.2, roof), {"step": 2e-3}
    narrow, _ = values(problem, 81, hjb.Filtered(width=1e-300), **alike)
    monotone, _ = values(problem, 81, hjb.FirstOrder(), stages=1, **alike)
    assert np.array_equal(narrow, monotone)
    wide, _ = values(problem, 81, hjb.Filtered(width=1e6), **alike)
    assert np.array_equal(wide, values(problem, 81, hjb.WENO5(), **alike)[0])


@pytest.mark.parametrize("stages", [1, 3])
def test_whatever_is_filtered_stays_as_near_the_monotone_value_as_the_width(stages):
    """|V - V_M| <= T w, since M never enlarges distances and each step adds dt w.

    WENO5 in one stage is unstable: alone it leaves that room.
    """
    t, width = 0.8, 5e-3
    problem, alike = burgers(t, roof), {"step": 2e-3}
    monotone, _ = values(problem, 401, hjb.FirstOrder(), stages=1, **alike)
    alike["stages"] = stages
    ours, report = values(problem, 401, hjb.Filtered(width=width), **alike)
    assert np.abs(ours - monotone).max() <= t * width * (1 + 1e-9)
    assert report.details["filtered"] > 0
    alone, _ = values(problem, 401, hjb.WENO5(), **alike)
    assert np.abs(alone - monotone).max() > t * width


def nonconvex(lowest=np.pi / 64, highest=255 * np.pi / 64):
    """V_t + max_a min_b {-sin a + b (p - a)} = 0, which is V_t - sin V_x = 0.

    -sin is the upper envelope of the cones -sin a - |p - a|. From a convex kink of
    slopes `lowest` and `highest` the value is sup_p {p x - (T - t) sin p} over the
    slopes between (Hopf's second formula; Bardi and Evans, Nonlinear Anal. 8 (1984)).
    These slopes defeat high-order schemes: Qiu and Shu, SIAM J. Sci. Comput. 31 (2008).
    """
    slopes = np.linspace(lowest, highest, 257)

    def terminal(x):
        where = hjb.namespace(x).where
        return where(x[..., 0] < 0, lowest * x[..., 0], highest * x[..., 0])

    def value(x, t):
        return (slopes * x - (1 - t) * np.sin(slopes)).max(-1)

    problem = hjb.ControlProblem(
        drift=lambda x, a, b: b,
        reward=lambda x, a, b: -hjb.namespace(a).sin(a[..., 0]) - a[..., 0] * b[..., 0],
        controls=hjb.Finite(slopes[:, None]),
        adversary=hjb.Finite([[-1.0], [1.0]]),
        domain=hjb.Box([-4.0], [4.0]),
        horizon=1.0,
        terminal=terminal,
    )
    return problem, value


def test_a_game_on_which_high_order_goes_astray():
    problem, value = nonconvex()
    x = hjb.Grid(problem.domain, 201).nodes()
    near = np.abs(x[:, 0]) < 2
    worst = {}
    for scheme in (hjb.FirstOrder(), hjb.WENO5(), hjb.Filtered()):
        got, report = values(problem, 201, scheme)
        worst[type(scheme)] = np.abs(got - value(x, 0.0))[near].max()
    # The last report is the filtered scheme's.
    assert "filtered WENO5" in report.method
    assert 0 < report.details["filtered"] < 0.01
    assert worst[hjb.WENO5] > worst[hjb.FirstOrder]
    assert worst[hjb.Filtered] < 0.25 * worst[hjb.FirstOrder]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"high": hjb.FirstOrder()}, "monotone without a filter"),
        ({"high": "weno"}, "high is 'weno'"),
        ({"width": 0.0}, "positive"),
        ({"width": np.inf}, "finite"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(hjb.MethodMismatch, match=words):
        hjb.Filtered(**options)
