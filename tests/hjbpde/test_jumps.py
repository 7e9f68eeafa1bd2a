"""Jumps: where they land, rates, rows, values and bars.

Values are exact by construction: the payoff holds the jump term of a chosen V, with
what lies beyond every face as `hjbpde.landing` defines it.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from scipy.optimize import brentq

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.kernels.spline import spline_weights
from hjbpde.landing import landing
from hjbpde.mdp import policy_iteration
from hjbpde.methods.state import make_state
from hjbpde.tabulate import tabulate

SEEDS = st.integers(0, 2**32 - 1)
MONOTONE = hjb.PolicyIteration(order=1)
SIDES = ("low", "high")


class Made:
    """A random problem on [-1, 1]^d whose value is a sum of products of sines.

    Every axis is periodic, reflecting (V even about both faces), Dirichlet, Robin, or
    Dirichlet below and Robin above.
    """

    kinds = ("dirichlet", "reflecting", "periodic", "robin", "mixed")

    def __init__(self, seed, d, kinds=None):
        rng = np.random.default_rng(seed)
        self.d, self.kinds = (
            d,
            kinds or [self.kinds[i] for i in np.atleast_1d(rng.integers(5, size=d))],
        )
        self.sizes = rng.uniform(0.3, 0.6, 2) * rng.choice([-1, 1], 2)
        self.waves, self.phases = (
            rng.uniform(0.4, 1.8, (2, d)),
            rng.uniform(-2, 2, (2, d)),
        )
        for k, kind in enumerate(self.kinds):
            if kind == "reflecting":
                self.waves[:, k] = np.pi / 2 * rng.integers(0, 3, 2)
                self.phases[:, k] = self.waves[:, k] + np.pi / 2
            elif kind == "periodic":
                self.waves[:, k] = np.pi * rng.integers(0, 2, 2)
        count = int(rng.integers(1, 6))
        self.moves = rng.normal(0, 0.5, (count, d))
        self.weights = rng.dirichlet(np.ones(count))
        self.rate, self.rho = 10 ** rng.uniform(-1, 0.7), 10 ** rng.uniform(-1, 0.3)
        self.noise = np.diag(rng.uniform(0.4, 0.9, d))
        if d > 1 and rng.random() < 0.4:
            r, size = rng.uniform(-0.6, 0.6), self.noise[1, 1]
            self.noise[1, :2] = size * r, size * np.sqrt(1 - r**2)
        self.kappa = rng.uniform(0, 1, (d, 2))
        self.most, self.turn = rng.uniform(0.3, 1.5), rng.normal(0, 0.3, (d, d))

    def derivative(self, x, *axes):
        """V differentiated once along each of `axes`, (...)."""
        out = self.sizes
        for k in range(self.d):
            n = axes.count(k)
            angle = (
                self.waves[:, k] * x[..., k, None] + self.phases[:, k] + n * np.pi / 2
            )
            out = out * self.waves[:, k] ** n * np.sin(angle)
        return out.sum(-1)

    def gradient(self, x):
        return np.stack([self.derivative(x, k) for k in range(self.d)], -1)

    def slope(self, x, k, side):
        """kappa V + dV/dn on a face."""
        sign = 1.0 if side else -1.0
        return self.kappa[k, side] * self.derivative(x) + sign * self.derivative(x, k)

    def rule(self, k, side):
        if self.kinds[k] == "reflecting":
            return hjb.Reflecting()
        if self.kinds[k] == "dirichlet" or (self.kinds[k] == "mixed" and side == 0):
            return hjb.Dirichlet(self.derivative)
        return hjb.Robin(self.kappa[k, side], 1.0, lambda x: self.slope(x, k, side))

    def beyond(self, y):
        """V at landing points y (..., d), by the definition of every rule."""
        at, ended, continued = y.copy(), np.zeros(y.shape[:-1], bool), []
        for k, kind in enumerate(self.kinds):
            if kind in ("periodic", "reflecting"):
                continue
            for side, depth in enumerate((-1.0 - y[..., k], y[..., k] - 1.0)):
                depth = np.maximum(depth, 0.0)
                if isinstance(self.rule(k, side), hjb.Dirichlet):
                    ended |= depth > 0
                else:
                    continued.append((k, side, depth))
            at[..., k] = np.clip(y[..., k], -1.0, 1.0)
        total, kept = 0.0, 1.0
        for k, side, depth in continued:
            kappa = self.kappa[k, side]
            left = np.where(ended, 1.0, np.exp(-kappa * depth))
            total = total + kept * self.slope(at, k, side) * (1 - left) / kappa
            kept = kept * left
        return total + kept * self.derivative(at)

    def gain(self, x):
        after = self.beyond(x[..., None, :] + self.moves)
        return self.rate * ((after * self.weights).sum(-1) - self.derivative(x))

    def free(self, x):
        return 0.5 * np.sin(2 * x @ self.turn.T) - 0.2 * np.sin(np.pi * x)

    def reward(self, x, a):
        p = self.gradient(x)
        best = np.clip(2 * p, -self.most, self.most)
        C = 0.5 * self.noise @ self.noise.T
        bends = [
            C[i, j] * self.derivative(x, i, j)
            for i in range(self.d)
            for j in range(self.d)
        ]
        gained = ((self.free(x) + best) * p - 0.25 * best**2).sum(-1) + sum(bends)
        source = self.rho * self.derivative(x) - gained - self.gain(x)
        return source - 0.25 * (a * a).sum(-1)

    def problem(self, **changes):
        d, round_ = self.d, [kind == "periodic" for kind in self.kinds]
        rules = {
            (k, side): self.rule(k, i)
            for k in range(d)
            for i, side in enumerate(SIDES)
            if not round_[k]
        }
        fields = {
            "drift": lambda x, a: self.free(x) + a,
            "diffusion": self.noise,
            "reward": self.reward,
            "controls": hjb.Box([-self.most] * d, [self.most] * d),
            "domain": hjb.Box([-1.0] * d, [1.0] * d, periodic=round_),
            "discount": self.rho,
            "boundary": rules,
            "jumps": hjb.Jumps(self.rate, self.moves, self.weights),
        }
        return hjb.ControlProblem(**{**fields, **changes})

    def solved(self, n, method=None):
        """Solution, largest error, and the share of nodes whose bar covers theirs."""
        shape = [n - (kind == "periodic") for kind in self.kinds]
        solution = hjb.solve(self.problem(), shape, method)
        error = np.abs(solution.value - self.derivative(solution.grid.nodes()))
        covered = float(np.mean(error <= solution.error_bar))
        return solution, error, covered


def line(jumps, **changes):
    """A problem without controls on [0, 1]."""
    fields = {
        "drift": lambda x, a: 0.1 + 0.0 * x,
        "diffusion": 0.3,
        "reward": lambda x, a: x[..., 0],
        "domain": hjb.Box(0.0, 1.0),
        "discount": 0.5,
        "boundary": hjb.Reflecting(),
        "jumps": jumps,
    }
    return hjb.ControlProblem(**{**fields, **changes})


def state_of(problem, shape):
    grid = hjb.Grid(problem.domain, shape)
    faces = Faces.of(problem, grid)
    return make_state(faces, tabulate(problem, grid, faces), hjb.Hybrid().code)


# --- what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((-1.0, [[0.1]], [1.0]), "rate is -1"),
        ((np.inf, [[0.1]], [1.0]), "rate is inf"),
        ((1.0, [0.1], [1.0]), "expected \\(J, d\\)"),
        ((1.0, [[np.nan]], [1.0]), "must be finite"),
        ((1.0, [[0.1], [0.2]], [1.0]), "expected \\(2,\\)"),
        ((1.0, [[0.1], [0.2]], [0.5, 0.4]), "must be 1"),
        ((1.0, [[0.1], [0.2]], [1.5, -0.5]), "must be >= 0"),
        ((lambda x, a: 1.0, [[0.1]], [1.0]), "rate names a"),
        ((1.0, lambda x, mode: x, [1.0]), "displacements names mode"),
    ],
)
def test_unusable_jumps_are_refused_where_they_are_made(parts, says):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.Jumps(*parts)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jumps": 1.0}, "must be hjb.Jumps"),
        ({"jumps": hjb.Jumps(1.0, [[0.1, 0.2]], [1.0])}, "2 columns for 1 states"),
        ({"jumps": hjb.Jumps(lambda x, t: t, [[0.1]], [1.0])}, "no horizon"),
        ({"modes": hjb.Modes([[-1, 1], [1, -1]])}, "together with 'modes'"),
        ({"impulse": hjb.Impulse([[0.5]], 1.0)}, "together with 'impulse'"),
        (
            {"adversary": hjb.Box(0, 1), "drift": lambda x, a, b: b + 0.0 * x},
            "together with 'adversary'",
        ),
        ({"average": True, "discount": 0.0}, "together with 'average'"),
    ],
)
def test_a_problem_whose_jumps_no_method_takes_is_refused(changes, says):
    jumps = changes.pop("jumps", hjb.Jumps(1.0, [[0.1]], [1.0]))
    with pytest.raises(hjb.ProblemError, match=says):
        line(jumps, **changes)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ((lambda x: 0.5 - x[..., 0], [[0.1]], [1.0]), "rate is -.* at x = "),
        ((lambda x: x, [[0.1]], [1.0]), "rate.x. returned shape"),
        ((1.0, lambda x: x, [1.0]), "displacements.x. returned shape"),
        ((1.0, lambda x: np.sqrt(x[..., None] - 0.5), [1.0]), "displacement is .*nan"),
        ((1.0, [[0.1]], lambda x: 2 * x), "sum of the weights is .* at x = "),
        ((lambda x: x.missing, [[0.1]], [1.0]), "raised AttributeError"),
    ],
)
def test_functions_are_probed_and_the_state_at_fault_is_named(parts, says):
    with pytest.raises(hjb.ProblemError, match=says):
        hjb.solve(line(hjb.Jumps(*parts)), 11)


@pytest.mark.parametrize("rule", [hjb.StateConstraint(), hjb.Extrapolate()])
def test_a_jump_across_a_face_that_admits_none_names_the_state(rule):
    jumps = hjb.Jumps(1.0, [[0.15]], [1.0])
    changes = {"diffusion": None, "drift": lambda x, a: 0.5 - x}
    with pytest.raises(
        hjb.ProblemError, match=r"from x = \[1.\] one lands at \[1.15\]"
    ):
        hjb.solve(line(jumps, boundary=rule, **changes), 11)
    inward = hjb.Jumps(1.0, lambda x: (0.5 - x)[..., None], [1.0])
    hjb.solve(line(inward, boundary=rule, **changes), 11)


def test_what_does_not_know_jumps_says_so():
    problem = line(hjb.Jumps(1.0, [[0.1]], [1.0]))
    for method in (hjb.Sweeping(), hjb.ExplicitMarching(), hjb.Marching()):
        with pytest.raises(hjb.MethodMismatch, match="jumps"):
            hjb.solve(problem, 11, method)
    with pytest.raises(hjb.MethodMismatch, match="'jumps'"):
        hjb.characteristics(problem, np.zeros((1, 1)), steps=4)


# --- landing -------------------------------------------------------------------


@given(seed=SEEDS)
def test_reflecting_faces_fold_the_line_as_a_triangle_wave(seed):
    """The fold of y on [0, 1] is the distance to the nearest even number."""
    y = np.random.default_rng(seed).uniform(-7, 7, (20, 1))
    problem = line(hjb.Jumps(1.0, [[0.1]], [1.0]))
    found = landing(problem, y)
    assert np.allclose(found.x[:, 0], np.abs(y[:, 0] - 2 * np.rint(y[:, 0] / 2)))
    assert not found.over
    assert not found.ended.any()


def test_a_dirichlet_face_ends_the_process_at_the_nearest_point():
    rules = {(0, "low"): hjb.Dirichlet(0.0), (0, "high"): hjb.Reflecting()}
    problem = line(hjb.Jumps(1.0, [[0.1]], [1.0]), boundary=rules)
    found = landing(problem, np.array([[-0.5], [0.5], [1.25], [2.5]]))
    assert found.x[:, 0] == pytest.approx([0.0, 0.5, 0.75, 0.0])
    assert found.ended.tolist() == [True, False, False, True]


# --- weights -------------------------------------------------------------------


def weights_by_definition(x, y):
    """B-splines on whole knots over control points x, both ends continued by a line.

    The parameter is where the curve through the control points meets y.
    """
    n = len(x)
    control = np.r_[2 * x[0] - x[1], x, 2 * x[-1] - x[-2]]
    knots = np.arange(-3.0, n + 3.0)
    spline = BSpline(knots, control, 3)
    s = brentq(lambda s: spline(s) - y, 0.0, n - 1.0, xtol=1e-15)
    basis = np.array([BSpline(knots, row, 3)(s) for row in np.eye(n + 2)])
    out = basis[1:-1].copy()
    out[:2] += basis[0] * np.array([2.0, -1.0])
    out[-2:] += basis[-1] * np.array([-1.0, 2.0])
    return out


@settings(max_examples=8)
@given(seed=SEEDS)
def test_spline_weights_agree_with_their_definition(seed):
    rng = np.random.default_rng(seed)
    x = np.cumsum(0.2 + rng.random(rng.integers(3, 9)))
    y = np.sort(rng.uniform(x[0], x[-1], 6))
    source, weight = np.zeros((6, 4), int), np.zeros((6, 4))
    spline_weights(x, 0.0, y, source, weight)
    found = np.zeros((6, len(x)))
    np.add.at(found, (np.arange(6)[:, None], source), weight)
    wanted = np.stack([weights_by_definition(x, point) for point in y])
    assert np.allclose(found, wanted, atol=1e-9)


@given(seed=SEEDS, periodic=st.booleans())
def test_spline_weights_are_a_chain_and_keep_linear_functions(seed, periodic):
    rng = np.random.default_rng(seed)
    x = np.cumsum(0.2 + rng.random(8))
    period = float(x[-1] - x[0] + 0.7) if periodic else 0.0
    y = rng.uniform(x[0], x[0] + period if periodic else x[-1], 20)
    source, weight = np.zeros((20, 4), int), np.zeros((20, 4))
    spline_weights(x, period, y, source, weight)
    assert weight.min() >= -1e-15
    assert np.allclose(weight.sum(1), 1.0, atol=1e-14)
    away = x[source] - y[:, None]
    if periodic:
        away -= period * np.rint(away / period)
    assert np.allclose((weight * away).sum(1), 0.0, atol=1e-12)


def test_spline_weights_have_one_variance_wherever_the_point_lies():
    """h^2 / 3 on even steps: the error of reading V there is h^2 V'' / 6."""
    x, y = np.linspace(0.0, 1.0, 11), np.linspace(0.2, 0.8, 37)
    source, weight = np.zeros((37, 4), int), np.zeros((37, 4))
    spline_weights(x, 0.0, y, source, weight)
    variance = (weight * (x[source] - y[:, None]) ** 2).sum(1)
    assert np.allclose(variance, 0.1**2 / 3, atol=1e-14)


# --- rates ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_rates_have_the_jump_term_of_linear_values_exactly(seed):
    """V = x_1 + 2 x_2: spline and cubic reproduce it, and so do all rules.

    Its slope on the faces is data, as is its value; mirrored and periodic axes, of
    which V would have kinks, are left to the smooth problems below.
    """
    made = Made(seed, 2, ["dirichlet", "robin"] if seed % 2 else ["mixed", "robin"])
    made.derivative = lambda x, *axes: (
        x @ np.array([1.0, 2.0]) if not axes else (1.0 + axes[0]) * (len(axes) == 1)
    )
    state = state_of(made.problem(), (9, 12))
    V = made.derivative(state.grid.nodes()).ravel()
    free = ~state.faces.fixed_mask.ravel()
    wanted = made.gain(state.grid.nodes()).ravel()[free]
    found = np.zeros(V.size)
    jumps = type(state.off_axes)(state.faces, None, state.off_axes.jumps)
    jumps.add_to(found, V)
    assert np.allclose(found[free], wanted, atol=1e-11)
    assert np.allclose(jumps.jumps.smooth(V)[free], wanted, atol=1e-11)


def test_a_landing_in_the_exit_takes_the_exits_own_value():
    """From .5 to .82 inside {x > .8}: g = 3 + x there, whatever the nodes say."""
    ends = hjb.Exit(lambda x: 0.8 - x[..., 0], lambda x: 3.0 + x[..., 0])
    problem = line(hjb.Jumps(2.0, [[0.32]], [1.0]), exit=ends)
    state = state_of(problem, 11)
    V = np.where(state.faces.fixed_mask, state.faces.fixed_values, 0.0)
    found = np.zeros(11)
    state.off_axes.add_to(found, V)
    assert found[5] == pytest.approx(2.0 * (3.82 - V[5]), abs=1e-12)
    rates = state.off_axes.rates.toarray()[5]
    assert rates[8:].sum() == pytest.approx(2.0)


def test_the_generator_is_that_of_a_chain():
    """Row sums 0 less what Robin faces take; no negative rate; value of the chain."""
    made = Made(3, 2, ["reflecting", "dirichlet"])
    solution, _, _ = made.solved(9, MONOTONE)
    L = solution.generator().toarray()
    off = L - np.diag(L.diagonal())
    assert off.min() >= 0
    assert np.abs(L.sum(axis=1)).max() <= 1e-12 * np.abs(L.diagonal()).max()
    mdp = solution.as_mdp()
    value = policy_iteration(mdp).value.reshape(solution.grid.shape)
    assert np.allclose(value, solution.value, atol=1e-7)


def test_the_rows_sum_to_minus_the_discount_and_the_rate_of_what_robin_takes():
    """Under Robin(1, 1) beyond 1, from .9 by .3: lambda (1 - e^-.2) is lost."""
    rules = {(0, "low"): hjb.Reflecting(), (0, "high"): hjb.Robin(1.0, 1.0, 0.0)}
    problem = line(hjb.Jumps(2.0, [[0.3]], [1.0]), boundary=rules)
    state = state_of(problem, 11)
    rows, _ = state.folded(state.tables.under(state.a))
    sums = -np.asarray(rows.matrix().sum(axis=1)).ravel()
    assert sums[:8] == pytest.approx(-0.5)
    assert sums[9] == pytest.approx(-0.5 - 2.0 * (1 - np.exp(-0.2)), rel=1e-12)


def test_mass_that_jumps_out_is_gone_and_the_rest_stays():
    """Killed at the rate lambda P(out): from .5, jumps of 2 leave at rate 1."""
    problem = line(
        hjb.Jumps(1.0, [[2.0]], [1.0]), boundary=hjb.Dirichlet(0.0), diffusion=None,
        drift=lambda x, a: 0.0 * x,
    )  # fmt: skip
    solution = hjb.solve(problem, 21, MONOTONE)
    mass = solution.density(0.7, start=[0.5]) * solution.node_volumes()
    assert mass.sum() == pytest.approx(np.exp(-0.7), rel=1e-9)


# --- values --------------------------------------------------------------------


def orders(made, shapes, method):
    errors = []
    for n in shapes:
        _, error, covered = made.solved(n, method)
        assert covered >= 0.99
        errors.append(error.max())
    steps = np.log2((np.array(shapes)[1:] - 1) / (np.array(shapes)[:-1] - 1))
    return np.log2(np.array(errors)[:-1] / np.array(errors)[1:]) / steps, errors


@pytest.mark.parametrize(("order", "wanted"), [(1, 2.0), (2, 2.0), (4, 4.0)])
def test_values_on_the_line_converge_and_bars_cover(order, wanted):
    """The monotone hybrid scheme is central here, hence of order 2 as well."""
    made = Made(11, 1, ["dirichlet"])
    found, errors = orders(made, [41, 81, 161], hjb.PolicyIteration(order=order))
    assert np.all(np.abs(found - wanted) < (0.3 if order < 4 else 0.8))
    assert errors[-1] < (1e-4 if order < 4 else 1e-7)


@pytest.mark.parametrize(("order", "wanted"), [(2, 2.0), (4, 4.0)])
@pytest.mark.parametrize("seed", [9, 25])
def test_values_in_the_plane_with_correlated_noise_converge(seed, order, wanted):
    made = Made(seed, 2, ["dirichlet", "dirichlet"])
    made.noise = np.array([[0.7, 0.0], [0.35, 0.6]])
    found, _ = orders(made, [17, 33], hjb.PolicyIteration(order=order))
    assert abs(found[0] - wanted) < 0.6


def test_upwind_is_of_first_order():
    method = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)
    found, _ = orders(Made(11, 1, ["dirichlet"]), [81, 161, 321], method)
    assert np.all(np.abs(found - 1.0) < 0.2)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_bars_cover_random_problems(d):
    ratios = []
    for seed in range({1: 10, 2: 6, 3: 2}[d]):
        solution, error, covered = Made(1000 + seed, d).solved({1: 61, 2: 25, 3: 11}[d])
        assert covered >= 0.99
        ratios.append(np.median(solution.error_bar / np.maximum(error, 1e-13)))
    assert np.median(ratios) < 10


@pytest.mark.slow
def test_bars_cover_many_random_problems():
    shares = [
        Made(seed, 1 + seed % 3).solved((61, 25, 13)[seed % 3])[2] for seed in range(60)
    ]
    assert min(shares) >= 0.99


def test_cost_is_the_negated_reward():
    made = Made(2, 1)
    problem = made.problem()
    other = made.problem(reward=None, cost=lambda x, a: -made.reward(x, a))
    rules = {}
    for face, rule in problem.faces.items():
        if isinstance(rule, hjb.Dirichlet):
            rule = hjb.Dirichlet(lambda x: -made.derivative(x))
        elif isinstance(rule, hjb.Robin):
            rule = hjb.Robin(rule.alpha, 1.0, lambda x, g=rule.g: -g(x))
        rules[face] = rule
    other = made.problem(
        reward=None, cost=lambda x, a: -made.reward(x, a), boundary=rules
    )
    one, two = (hjb.solve(p, 31).value for p in (problem, other))
    assert np.array_equal(one, -two)


def test_a_policy_that_is_evaluated_is_worth_what_solving_says():
    made = Made(5, 2, ["dirichlet", "reflecting"])
    best = hjb.solve(made.problem(), 17, MONOTONE)
    own = hjb.evaluate(made.problem(), 17, best.control)
    assert np.allclose(own.value, best.value, atol=1e-7 * np.abs(best.value).max())


def test_the_artificial_faces_of_a_quadratic_value_are_answered_for():
    """Whole line, f = -x + a, r = -x^2 - a^2, jumps of +-.6: V = -(P x^2 + C).

    rho P = 1 - 2 P - P^2 and rho C = (sigma^2 + lambda .36) P, by hand.
    """
    rho, sigma, rate = 0.5, 0.4, 0.8
    problem = hjb.ControlProblem(
        drift=lambda x, a: -x + a,
        diffusion=sigma,
        reward=lambda x, a: -(x[..., 0] ** 2) - a[..., 0] ** 2,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(-3.0, 3.0),
        discount=rho,
        jumps=hjb.Jumps(rate, [[-0.6], [0.6]], [0.5, 0.5]),
    )
    P = (-(rho + 2) + np.sqrt((rho + 2) ** 2 + 4)) / 2
    C = (sigma**2 + rate * 0.36) * P / rho
    solution = hjb.solve(problem, 121)
    x = solution.grid.axes[0]
    inside = solution.region.contains(x[:, None])
    error = np.abs(solution.value + P * x**2 + C)
    assert np.mean((error <= solution.error_bar)[inside]) >= 0.99
    assert error[np.abs(x) < 1.5].max() < 1e-3 * np.abs(solution.value).max()


def test_simulated_paths_earn_the_value():
    """Mean of 2000 paths on a circle within three standard errors.

    Steps and half steps are extrapolated: their bias is of order 1.
    """
    made = Made(8, 1, ["periodic"])
    made.rho, made.rate, made.waves = 2.0, 3.0, np.full((2, 1), np.pi)
    solution = hjb.solve(made.problem(), 64)
    one, two = (
        solution.simulate([0.2], 4.0, dt, paths=2000, seed=3).rewards[:, -1]
        for dt in (0.04, 0.02)
    )
    error = abs(2 * two.mean() - one.mean() - float(solution.value_at([[0.2]])[0]))
    assert error <= 3 * np.sqrt((4 * two.var() + one.var()) / 2000)


def test_simulated_jumps_out_of_the_domain_collect_the_faces_data():
    """No noise: killed at the rate 2 P(out) = 1 with g = 3: V = 3 / (1 + 1/2)."""
    problem = line(
        hjb.Jumps(2.0, [[2.0], [0.0]], [0.5, 0.5]), boundary=hjb.Dirichlet(3.0),
        diffusion=None, drift=lambda x, a: 0.0 * x, reward=lambda x, a: 0.0 * x[..., 0],
    )  # fmt: skip
    solution = hjb.solve(problem, 21, MONOTONE)
    assert solution.value_at([[0.5]])[0] == pytest.approx(2.0, rel=1e-8)
    paths = solution.simulate([0.5], horizon=8.0, dt=0.02, paths=2000, seed=0)
    earned = paths.rewards[:, -1]
    # Half a step late and one jump in two missed when two fall into one step.
    bias = 2.0 * 0.02
    assert abs(earned.mean() - 2.0) <= 3 * earned.std() / np.sqrt(2000) + bias
    assert paths.exits[0, "high"] == np.isfinite(paths.ended).sum()


def test_the_number_of_jumps_is_that_of_the_thinned_process():
    """Jumps of a whole turn of a circle cannot be seen; of 1/2, they change sides."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(0.0, 1.0, periodic=True),
        discount=1.0,
        jumps=hjb.Jumps(3.0, [[0.5]], [1.0]),
    )
    paths = hjb.simulate(
        problem, lambda x: np.zeros((len(x), 0)), [0.1], 1.0, 0.01, 5000, 1
    )
    moved = np.abs(np.diff(paths.states[:, :, 0], axis=1)) > 0.25
    chance = -np.expm1(-3.0 * 0.01)
    spread = np.sqrt(100 * chance * (1 - chance) / 5000)
    assert abs(moved.sum(axis=1).mean() - 100 * chance) < 4 * spread
