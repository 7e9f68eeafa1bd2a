"""Impulse control: moving the state at once, at a cost."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import brentq

import hjbpde as hjb
from hjbpde.methods.impulse import ends

RHO, SIGMA, FIXED = 0.5, 1.0, 1.0
LAM = np.sqrt(2 * RHO) / SIGMA


def bounded(b, A):
    """x^2/rho + sigma^2/rho^2 - A cosh(lam x) up to b: x^2 paid until |X| = b."""

    def value(x):
        inner = np.minimum(np.abs(x), b)
        return inner**2 / RHO + SIGMA**2 / RHO**2 - A * np.cosh(LAM * inner)

    return value


def to_zero():
    """Moves to 0 at a fixed cost K: (b, value).

    The structure is that of Harrison, Sellke and Taylor, Math. Oper. Res. 8 (1983)
    454: wait on (-b, b). There rho V = x^2 + sigma^2/2 V'', V even, hence `bounded`;
    V'(b) = 0 and V(b) = V(0) + K give b^2 - (2 b / lam) tanh(lam b / 2) = rho K.
    """
    b = brentq(
        lambda b: b * b - 2 * b / LAM * np.tanh(LAM * b / 2) - RHO * FIXED,
        1e-2, 20, xtol=1e-13,
    )  # fmt: skip
    value = bounded(b, 2 * b / (RHO * LAM * np.sinh(LAM * b)))
    return b, lambda x: value(x[..., 0])


def to_levels(slope):
    """Moves anywhere at K + slope |x - y|: (q, b, value), best from +-b to +-q.

    V'(q) = V'(b) = slope and V(b) - V(q) = K + slope (b - q) (the same source, and
    Korn, Math. Methods Oper. Res. 50 (1999) 493): for every A the two roots of V' =
    slope, and A such that the area between them is K.
    """

    def rise(x, A):
        return 2 * x / RHO - A * LAM * np.sinh(LAM * x) - slope

    def top(A):
        return np.arccosh(2 / (RHO * A * LAM**2)) / LAM

    def roots(A):
        low = brentq(rise, 0, top(A), (A,), xtol=1e-14)
        return low, brentq(rise, top(A), 40, (A,), xtol=1e-14)

    def area(A):
        q, b = roots(A)
        V = bounded(b, A)
        return V(b) - V(q) - slope * (b - q) - FIXED

    most = brentq(lambda A: rise(top(A), A), 1e-2, 3.99)
    A = brentq(area, 1e-2, (1 - 1e-9) * most, xtol=1e-14)
    q, b = roots(A)
    V = bounded(b, A)

    def value(x):
        away = np.maximum(np.abs(x[..., 0]) - b, 0.0)
        return V(x[..., 0]) + slope * away

    return q, b, value


def upper_only(mu):
    """Drift mu, moves to 0 from above only at K: (b, value) on the whole line.

    Below b: the value of never moving, x^2/rho + 2 mu x/rho^2 + sigma^2/rho^2 + 2
    mu^2/rho^3, minus A e^{lam x} with sigma^2/2 lam^2 + mu lam = rho, lam > 0.
    """
    lam = (-mu + np.sqrt(mu**2 + 2 * RHO * SIGMA**2)) / SIGMA**2

    def free(x):
        constant = SIGMA**2 / RHO**2 + 2 * mu**2 / RHO**3
        return x**2 / RHO + 2 * mu * x / RHO**2 + constant

    def weight(b):
        return (2 * b / RHO + 2 * mu / RHO**2) / (lam * np.exp(lam * b))

    def gap(b):
        return free(b) - free(0) - weight(b) * np.expm1(lam * b) - FIXED

    b = brentq(gap, 1e-2, 20, xtol=1e-13)

    def value(x):
        inner = np.minimum(x[..., 0], b)
        return free(inner) - weight(b) * np.exp(lam * inner)

    return b, value


def squares(impulse, mu=0.0, width=4.0, **fields):
    """Brownian motion with drift mu on the line, x^2 paid a unit of time."""
    return hjb.ControlProblem(
        **{
            "drift": lambda x, a: mu + 0 * x,
            "diffusion": SIGMA,
            "cost": lambda x, a: x[..., 0] ** 2,
            "domain": hjb.Box(-width, width),
            "discount": RHO,
            "impulse": impulse,
            **fields,
        }
    )


def solved(problem, shape) -> hjb.ImpulseSolution:
    solution = hjb.solve(problem, shape)
    assert isinstance(solution, hjb.ImpulseSolution)
    assert np.array_equal(solution.stopping, np.isfinite(solution.target[..., 0]))
    return solution


def distance(x, y):
    return FIXED + 0.5 * np.abs(x[..., 0] - y[..., 0])


def only_down(x, y):
    return np.where(x[..., 0] > y[..., 0], FIXED, np.inf)


CASES = {
    "to zero": (hjb.Impulse([[0.0]], FIXED), 0.0, to_zero()[1]),
    # Beside q other targets are never best; between nodes V is interpolated.
    "to levels": (
        hjb.Impulse(np.array([-1, 1, -2, 2])[:, None] * to_levels(0.5)[0], distance),
        0.0,
        to_levels(0.5)[2],
    ),
    "from above": (hjb.Impulse([[0.0]], only_down), 0.4, upper_only(0.4)[1]),
}


def errors(case, n, boundary=None):
    impulse, mu, exact = CASES[case]
    solution = solved(squares(impulse, mu, boundary=boundary), n)
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    error = np.abs(solution.value - exact(x))[inside]
    return error, solution.error_bar[inside]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n", [51, 100, 101, 137, 201, 401, 801])
def test_the_bar_covers_the_smooth_fit_solutions(case, n):
    """With faces to close: one of "from above" is where nobody moves."""
    error, bar = errors(case, n)
    assert np.mean(error <= bar) >= 0.99


@pytest.mark.parametrize("case", CASES)
def test_the_value_converges_at_second_order(case):
    """Edges and targets lie anywhere in their cells: the order of a fit to 40 grids."""
    low = {(0, "low"): hjb.Dirichlet(CASES[case][2])}
    counts = np.unique(np.geomspace(65, 1601, 40).astype(int))
    found = [errors(case, n, low) for n in counts]
    worst = [error.max() for error, _ in found]
    order = -np.polyfit(np.log(counts), np.log(worst), 1)[0]
    assert abs(order - 2) < 0.2
    # The bar is that order's too, and no more than a grid or two behind.
    widest = [bar.max() for _, bar in found]
    assert abs(-np.polyfit(np.log(counts), np.log(widest), 1)[0] - 2) < 0.3
    assert np.median(np.array(widest) / worst) < 16


def test_it_moves_where_smooth_fit_says_and_to_the_best_level():
    q, b, _ = to_levels(0.5)
    levels = np.linspace(-3, 3, 601)[:, None]
    solution = solved(squares(hjb.Impulse(levels, distance)), 801)
    x, h = solution.grid.axes[0], 0.01
    moving = np.isfinite(solution.target[:, 0])
    edge = x[~moving].max()
    assert b - 1.5 * h < edge < b + 1.5 * h
    chosen = np.abs(solution.target[moving, 0])
    assert np.abs(chosen - q).max() <= 2 * h
    assert (np.sign(solution.target[:, 0]) == np.sign(x))[moving].all()


def test_rewards_mirror_costs_bit_for_bit():
    impulse = CASES["to levels"][0]
    cost = solved(squares(impulse), 101)
    reward = solved(
        squares(impulse, cost=None, reward=lambda x, a: -(x[..., 0] ** 2)), 101
    )
    assert np.array_equal(cost.value, -reward.value)
    assert np.array_equal(cost.error_bar, reward.error_bar)
    assert np.array_equal(cost.target, reward.target, equal_nan=True)


def test_targets_that_depend_on_the_state():
    """Halfway to 0 or all the way: as a function of x and listed, the same value."""
    x = hjb.Grid(hjb.Box(-4.0, 4.0), 81).axes[0]
    listed = np.unique(np.r_[x / 2, 0.0])[:, None]

    def halfway(x, y):
        near = np.abs(y[..., 0] - x[..., 0] / 2) < 1e-9
        return np.where(near | (y[..., 0] == 0), distance(x, y), np.inf)

    def targets(x):
        return np.stack([x / 2, 0 * x], -2)

    one = solved(squares(hjb.Impulse(targets, distance)), 81)
    other = solved(squares(hjb.Impulse(listed, halfway)), 81)
    assert np.abs(one.value - other.value).max() < 1e-10
    assert np.array_equal(one.stopping, other.stopping)


def test_a_circle_of_moves_is_seen():
    """0 -> 1 -> 0 never ends; 0 -> 1 -> halfway between 0 and 2 does, at 2."""
    acts = np.array([True, True, False])
    circle = sp.csr_matrix([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    assert not ends(circle, acts)
    assert ends(sp.csr_matrix([[0, 1, 0], [0.5, 0, 0.5], [0, 0, 1.0]]), acts)


def test_small_fixed_costs_beside_large_ones():
    """K = 1e-4 and 1 per unit: starts from coarser grids suggest circles of moves."""
    problem = hjb.catalogue.get("cash-management", fixed=1e-4, proportional=1.0)
    for n in (51, 101, 201):
        solution = solved(problem, n)
        x = solution.grid.nodes()
        error = np.abs(solution.value - problem.exact.value(x))
        inside = solution.region.contains(x)
        assert np.mean((error <= solution.error_bar)[inside]) >= 0.99


def test_the_catalogue_has_the_levels_found_here():
    q, b, value = to_levels(0.5)
    problem = hjb.catalogue.get("cash-management")
    x = problem.domain.sample(np.random.default_rng(1), 50)
    assert np.abs(problem.exact.value(x) - value(x)).max() < 1e-10
    assert np.abs(problem.impulse.targets - q).min() < 1e-10
    with pytest.raises(hjb.ProblemError, match="half_width larger"):
        hjb.catalogue.get("cash-management", half_width=0.9 * b)
    with pytest.raises(hjb.ProblemError, match="must be > 0"):
        hjb.catalogue.get("cash-management", fixed=0.0)


def plane(**fields):
    """Two states, a drift to choose from three, moves, and a disc that ends it all."""
    return hjb.ControlProblem(
        **{
            "drift": lambda x, a: a - 0.2 * x,
            "diffusion": np.diag([0.8, 0.6]),
            "cost": lambda x, a: (
                x[..., 0] ** 2 + 2 * x[..., 1] ** 2 + 0.1 * a[..., 0] ** 2
            ),
            "controls": hjb.Finite([[0.0, 0.0], [1.0, -1.0], [-1.0, 0.5]]),
            "domain": hjb.Box([-2.0, -2.0], [2.0, 2.0]),
            "boundary": hjb.Reflecting(),
            "discount": 0.6,
            **fields,
        }
    )


def test_the_plane_equals_value_iteration_with_moves_as_actions():
    """The scheme's own Markov chain, one action a control and one a target, iterated
    from 0 until nothing moves: the slow definition of the discrete value."""
    targets = np.array([[0.0, 0.0], [0.13, -0.4], [-1.0, 0.5]])

    def cost(x, y):
        return 0.3 + 0.2 * np.abs(x - y).sum(-1)

    where = hjb.Exit(lambda x: np.abs(x - 2).max(-1) - 0.7, 3.0)
    solution = solved(plane(exit=where, impulse=hjb.Impulse(targets, cost)), (13, 9))
    without = hjb.solve(plane(exit=where), (13, 9))
    chain = without.as_mdp(controls=3)
    x = solution.grid.nodes().reshape(-1, 2)
    ended = np.abs(x - 2).max(-1) <= 0.7
    axes = solution.grid.axes
    corners = []
    for y in targets:
        weights = []
        for k in range(2):
            hats = 1 - np.abs(axes[k] - y[k]) / (axes[k][1] - axes[k][0])
            weights.append(np.maximum(hats, 0))
        corners.append(np.outer(*weights).ravel())
    P = np.stack(corners)
    c = cost(x[:, None], targets[None])
    V = np.zeros(len(x))
    for _ in range(4000):
        moved = (P @ V - c).max(1)
        on = chain.greedy(V)[0]
        new = np.where(ended, on, np.maximum(on, moved))
        change, V = np.abs(new - V).max(), new
        if change < 1e-13:
            break
    assert change < 1e-13
    assert np.abs(solution.value.ravel() + V).max() < 1e-8
    acts = ((P @ V - c).max(1) >= on + 1e-9) & ~ended
    assert np.array_equal(solution.stopping.ravel(), acts)
    assert 0 < acts.sum() < len(x) - ended.sum()


def test_the_plane_equals_the_line():
    """A second state that plays no part changes nothing; multigrid is used."""
    impulse, _, _ = CASES["to zero"]
    wide = squares(
        hjb.Impulse(
            lambda x: np.stack([0 * x[..., 0], x[..., 1]], -1)[..., None, :], FIXED
        ),
        drift=lambda x, a: np.stack([0 * x[..., 0], -x[..., 1]], -1),
        diffusion=np.diag([SIGMA, 0.5]),
        domain=hjb.Box([-4.0, -1.0], [4.0, 1.0]),
        boundary=hjb.Reflecting(),
    )
    line = solved(squares(impulse, boundary=hjb.Reflecting()), 81)
    solution = solved(wide, (81, 17))
    assert np.abs(solution.value - line.value[:, None]).max() < 1e-8
    assert np.array_equal(solution.target[:, 5, 0], line.target[:, 0], equal_nan=True)
    error = np.abs(solution.value - CASES["to zero"][2](solution.grid.nodes()))
    assert np.mean(error <= solution.error_bar) >= 0.99
    assert np.median(solution.error_bar / error) < 10


def test_a_dearer_move_is_made_later_and_never_pays():
    values = [solved(squares(hjb.Impulse([[0.0]], k)), 101).value for k in (0.5, 1, 2)]
    assert (values[0] <= values[1] + 1e-9).all()
    assert (values[1] <= values[2] + 1e-9).all()


def test_a_solution_with_impulses_is_saved_and_loaded(tmp_path):
    solution = solved(squares(hjb.Impulse([[0.0]], FIXED)), 51)
    again = hjb.load(solution.save(tmp_path / "moves.npz"))
    assert isinstance(again, hjb.ImpulseSolution)
    assert np.array_equal(again.target, solution.target, equal_nan=True)
    assert np.array_equal(again.stopping, solution.stopping)
    for refused in (
        solution.as_mdp,
        solution.generator,
        lambda: solution.simulate([0.0], 1.0, 0.1, 3, seed=0),
    ):
        with pytest.raises(hjb.MethodMismatch, match="impulse"):
            refused()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: hjb.Impulse([[0.0]], 0.0), "number > 0"),
        (lambda: hjb.Impulse([[0.0]], -1.0), "number > 0"),
        (lambda: hjb.Impulse([[0.0]], np.nan), "number > 0"),
        (lambda: hjb.Impulse([0.0], 1.0), "one state a row"),
        (lambda: hjb.Impulse([[np.inf]], 1.0), "finite array"),
        (lambda: hjb.Impulse(np.zeros((0, 1)), 1.0), "finite array"),
        (lambda: squares(1.0), "must be hjb.Impulse"),
        (lambda: squares(hjb.Impulse([[0.0, 1.0]], 1.0)), "2 columns for 1 states"),
        (lambda: squares(hjb.Impulse([[9.0]], 1.0)), "outside the domain"),
        (lambda: squares(hjb.Impulse([[0.0]], 1.0), discount=0.0), "discount > 0"),
        (
            lambda: squares(hjb.Impulse([[0.0]], 1.0), stop=lambda x: x[..., 0]),
            "together with 'stop'",
        ),
    ],
)
def test_impulses_that_make_no_sense(build, says):
    with pytest.raises(hjb.ProblemError, match=says):
        build()


@pytest.mark.parametrize(
    ("impulse", "says"),
    [
        # Proportional costs alone: free at x = y.
        (
            hjb.Impulse([[0.0]], lambda x, y: np.abs(x - y)[..., 0]),
            r"from x = \[0.\] to y = \[0.\] is 0; it must be > 0",
        ),
        (hjb.Impulse([[0.0]], lambda x, y: x[..., 0]), "must be > 0"),
        (hjb.Impulse([[0.0]], lambda x, y: np.nan * x[..., 0]), "is nan"),
        (hjb.Impulse([[0.0]], lambda x, y: np.ones(7)), "one number a pair"),
        (hjb.Impulse(lambda x: x, 1.0), r"expected \(\d+, n, 1\)"),
        (hjb.Impulse(lambda x: x[..., None, :] + 1, 1.0), "outside the domain"),
    ],
)
def test_faults_seen_on_the_nodes(impulse, says):
    with pytest.raises(hjb.ProblemError, match=says):
        solved(squares(impulse), 33)


def test_methods_that_do_not_know_impulses_say_so():
    problem = squares(hjb.Impulse([[0.0]], 1.0))
    with pytest.raises(hjb.MethodMismatch, match="order=1"):
        hjb.solve(problem, 33, hjb.PolicyIteration(order=2))
    with pytest.raises(hjb.MethodMismatch, match="without richardson"):
        hjb.solve(problem, 33, hjb.PolicyIteration(order=1, richardson=True))
    with pytest.raises(hjb.MethodMismatch, match="'impulse'"):
        hjb.evaluate(problem, 33, lambda x: np.zeros((*x.shape[:-1], 0)))
