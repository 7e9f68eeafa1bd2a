"""What follows from a solution: evaluators, density, paths, files, and its report."""

import pickle
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

import hjbpde as hjb
from hjbpde.simulate import Noise


def ornstein_uhlenbeck(theta=1.0, s=0.5, reward=lambda x, a: x[..., 0] ** 2, **changes):
    fields = {
        "drift": lambda x, a: -theta * x,
        "diffusion": s,
        "reward": reward,
        "domain": hjb.Box(-2.5, 2.5),
        "discount": 0.5,
        "boundary": hjb.Reflecting(),
    }
    return hjb.ControlProblem(**{**fields, **changes})


@pytest.fixture(scope="module")
def solution():
    return hjb.solve(hjb.catalogue.get("manufactured"), 101)


def test_the_stationary_density_of_ornstein_uhlenbeck_is_gaussian():
    """N(0, s^2 / (2 theta)); the scheme's own density converges at order 2."""
    gaps = []
    for n in (101, 201):
        solution = hjb.solve(ornstein_uhlenbeck(), n)
        density = solution.stationary_density()
        mass = (density * solution.node_volumes()).sum()
        assert mass == pytest.approx(1, abs=1e-10)
        wanted = norm.pdf(solution.grid.axes[0], scale=0.5 / np.sqrt(2))
        gaps.append(np.abs(density - wanted).max())
    assert gaps[1] < 2e-3
    assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.2


def test_the_density_on_a_torus_under_constant_drift_is_flat():
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.ones_like(x),
        diffusion=0.3,
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box([0, 0], [1, 2], periodic=(True, True)),
        discount=0.5,
    )
    density = hjb.solve(problem, (16, 20)).stationary_density()
    assert np.allclose(density, 0.5, atol=1e-10)


def test_a_process_that_ends_has_no_stationary_density():
    problem = ornstein_uhlenbeck(boundary=hjb.Dirichlet(0.0))
    with pytest.raises(hjb.ProblemError, match="no stationary density"):
        hjb.solve(problem, 41).stationary_density()


def test_node_volumes_add_up_to_the_domain():
    grid = hjb.Grid.from_axes([np.array([0, 1, 3, 4.0]), np.array([0, 0.5, 2.0])])
    problem = hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=0.5,
        reward=lambda x, a: x[..., 0],
        domain=grid.domain,
        discount=1.0,
        boundary=hjb.Reflecting(),
    )
    assert hjb.solve(problem, grid).node_volumes().sum() == pytest.approx(8)


def euler_second_moment(x0, theta, s, dt, steps):
    """E X_n^2 of X += -theta X dt + s dW, by its own exact recursion."""
    moments = [x0**2]
    for _ in range(steps):
        moments.append((1 - theta * dt) ** 2 * moments[-1] + s**2 * dt)
    return np.array(moments)


def test_simulated_rewards_have_the_mean_of_the_euler_scheme():
    """Mean against the scheme's exact moments, within 4 standard errors."""
    problem = ornstein_uhlenbeck()
    dt, horizon, rho = 0.05, 2.0, 0.5
    paths = hjb.simulate(
        problem, lambda x: np.zeros((len(x), 0)), [1.0], horizon, dt, 20_000, seed=4
    )
    moments = euler_second_moment(1.0, 1.0, 0.5, dt, 40)
    weights = np.exp(-rho * paths.times[:-1]) * -np.expm1(-rho * dt) / rho
    wanted = (weights * moments[:-1]).sum()
    final = paths.rewards[:, -1]
    error = final.std() / np.sqrt(len(final))
    assert abs(final.mean() - wanted) < 4 * error
    assert error < 0.01 * wanted
    states = paths.states[:, -1, 0]
    assert abs((states**2).mean() - moments[-1]) < 4 * (states**2).std() / 141


def test_simulation_converges_weakly_to_the_closed_form_at_order_one():
    """Time-step error against int e^{-rho t} E X_t^2 dt, noise shared by steps."""
    problem = ornstein_uhlenbeck()
    rho, horizon = 0.5, 2.0
    t = np.linspace(0, horizon, 20_001)
    second = np.exp(-2 * t) * (1 - 0.125) + 0.125
    wanted = np.trapezoid(np.exp(-rho * t) * second, t)
    noise = Noise(3, 30_000, 1, horizon, 0.05)
    means = [
        hjb.simulate(
            problem, lambda x: np.zeros((len(x), 0)), [1.0], horizon, dt, 30_000, 3,
            noise=noise,
        ).rewards[:, -1].mean()
        for dt in (0.2, 0.1, 0.05)
    ]  # fmt: skip
    bias = np.array(means) - wanted
    # Shared noise cancels in differences: they halve with the step.
    assert abs((means[0] - means[1]) / (means[1] - means[2]) - 2) < 0.4
    assert abs(2 * bias[2] - bias[1]) < 0.1 * abs(bias[0])


def test_one_seed_gives_the_same_bits_and_another_does_not(solution):
    one, two, other = (
        solution.simulate([0.3], 1.0, 0.1, 50, seed) for seed in (7, 7, 8)
    )
    assert np.array_equal(one.states, two.states)
    assert np.array_equal(one.rewards, two.rewards)
    assert not np.array_equal(one.states, other.states)


def test_paths_that_leave_through_dirichlet_collect_the_data_once():
    """No noise, speed 1 to the wall at distance 1/2: e^{-rho/2} g, rho = 1."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.ones_like(x),
        reward=lambda x, a: 0 * x[..., 0],
        domain=hjb.Box(0.0, 1.0),
        discount=1.0,
        boundary=hjb.Dirichlet(3.0),
    )
    paths = hjb.simulate(
        problem, lambda x: np.zeros((len(x), 0)), [0.5], 2.0, 1 / 256, 4, seed=0
    )
    assert paths.rewards[:, -1] == pytest.approx(3 * np.exp(-0.5), rel=0.01)
    assert paths.exits == {(0, "low"): 0, (0, "high"): 4}


def test_simulated_payoff_of_the_optimal_policy_agrees_with_the_value():
    """Paths against the grid: within 4 standard errors and the bias 3 % of dt .01."""
    solution = hjb.solve(hjb.catalogue.get("lqr"), 201)
    paths = solution.simulate([0.5], 40.0, 0.01, 500, seed=1)
    final = paths.rewards[:, -1]
    error = 4 * final.std() / np.sqrt(len(final))
    value = float(solution.value_at(np.array([0.5])))
    assert abs(final.mean() - value) < error + 0.03 * abs(value)


def test_simulate_refuses_steps_and_starts_that_make_no_sense(solution):
    with pytest.raises(hjb.ProblemError, match="0 < dt <= horizon"):
        solution.simulate([0.0], 1.0, 2.0, 5, seed=0)
    with pytest.raises(hjb.ProblemError, match="outside"):
        solution.simulate([9.0], 1.0, 0.1, 5, seed=0)
    with pytest.raises(hjb.ProblemError, match="not a multiple"):
        Noise(0, 1, 1, 1.0, 0.1).increments(0.15)


def test_saving_and_loading_gives_the_same_answers(solution, tmp_path):
    path = solution.save(tmp_path / "deep" / "one.hjb")
    bare = hjb.load(path)
    x = np.linspace(-2, 2, 57)[:, None]
    for name in ("value_at", "gradient_at", "error_at"):
        assert np.array_equal(getattr(bare, name)(x), getattr(solution, name)(x))
    assert str(bare.report) == str(solution.report)
    assert bare.region.low == solution.region.low
    full = hjb.load(path, problem=solution.problem)
    assert np.array_equal(full.control_at(x), solution.control_at(x))
    assert (full.generator() != solution.generator()).nnz == 0
    with pytest.raises(hjb.ProblemError, match="needs the problem"):
        bare.generator()


def test_loading_with_a_problem_elsewhere_is_refused(solution, tmp_path):
    path = solution.save(tmp_path / "a.hjb")
    with pytest.raises(hjb.ProblemError, match="was solved on"):
        hjb.load(path, problem=hjb.catalogue.get("manufactured", half_width=3.0))


def test_a_failed_save_leaves_the_old_file(solution, tmp_path, monkeypatch):
    path = solution.save(tmp_path / "a.hjb")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        solution.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.hjb"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(solution, tmp_path, share):
    path = solution.save(tmp_path / "a.hjb")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(hjb.ProblemError, match="truncated or not a file of ours"):
        hjb.load(path)


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def test_no_pickle_is_ever_loaded(tmp_path):
    """A raw pickle, a pickled array, and one smuggled in as the header."""
    target = tmp_path / "exploded"
    raw, array, header = (tmp_path / name for name in ("raw", "array", "header"))
    raw.write_bytes(pickle.dumps(Bomb(target)))
    with array.open("wb") as file:
        np.save(file, np.array([Bomb(target)], dtype=object), allow_pickle=True)
    with header.open("wb") as file:
        np.savez(file, header=np.array([Bomb(target)], dtype=object))
    for path in (raw, array, header):
        with pytest.raises(hjb.ProblemError, match="pickled data are never read"):
            hjb.load(path)
    assert not target.exists()


def test_foreign_and_missing_files_are_refused(tmp_path):
    foreign, archive = tmp_path / "foreign.npz", tmp_path / "archive.zip"
    np.savez(foreign, value=np.zeros(3))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello.txt", "hello")
    for path in (foreign, archive):
        with pytest.raises(hjb.ProblemError, match="not a file of ours"):
            hjb.load(path)
    with pytest.raises(hjb.ProblemError, match="there is no file"):
        hjb.load(tmp_path / "missing")


def test_a_checkpoint_of_a_solve_is_not_a_solution(tmp_path):
    path = tmp_path / "check"
    hjb.solve(hjb.catalogue.get("manufactured"), 33, checkpoint=path)
    with pytest.raises(hjb.ProblemError, match="checkpoint"):
        hjb.load(path)


def test_an_interrupted_solve_resumes_to_the_same_answer(tmp_path, monkeypatch):
    problem = hjb.catalogue.get("manufactured", dimension=2)
    wanted = hjb.solve(problem, 33)
    from hjbpde.checkpoint import Checkpoint

    keep = Checkpoint.keep

    def interrupt(self, part, arrays):
        keep(self, part, arrays)
        if len(self.parts) == 2:
            raise KeyboardInterrupt

    path = tmp_path / "check"
    monkeypatch.setattr(Checkpoint, "keep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hjb.solve(problem, 33, checkpoint=path)
    assert path.exists()
    monkeypatch.setattr(Checkpoint, "keep", keep)
    resumed = hjb.solve(problem, 33, checkpoint=path)
    assert np.array_equal(resumed.value, wanted.value)
    with pytest.raises(hjb.ProblemError, match="another grid"):
        hjb.solve(problem, 35, checkpoint=path)


def test_not_converged_carries_its_solution():
    problem = hjb.catalogue.get("manufactured", dimension=2)
    method = hjb.PolicyIteration(max_policies=1)
    with pytest.raises(hjb.NotConverged, match="strict=False") as caught:
        hjb.solve(problem, 33, method)
    carried = caught.value.solution
    assert carried.value.shape == (33, 33)
    assert not carried.report.converged
    assert np.isinf(carried.error_bar).all()
    returned = hjb.solve(problem, 33, method, strict=False)
    assert np.array_equal(returned.value, carried.value)


def test_a_budget_of_no_time_gives_up_with_what_it_has():
    problem = hjb.catalogue.get("manufactured", dimension=2)
    found = hjb.solve(problem, 129, budget=0.0, strict=False)
    assert found.value.shape == (129, 129)
    assert found.report.status == "not converged"
    assert np.isinf(found.error_bar).all()


def test_a_stalled_tolerance_is_success_at_the_round_off_floor():
    problem = hjb.catalogue.get("manufactured", dimension=2)
    found = hjb.solve(problem, 33, tolerance=0.0)
    assert found.report.converged
    assert found.report.residuals[-1] < 1e-10


def test_a_solve_is_silent_and_a_report_is_a_few_lines(solution, capsys):
    hjb.solve(hjb.catalogue.get("manufactured"), 33)
    assert capsys.readouterr() == ("", "")
    assert 2 <= len(str(solution.report).splitlines()) <= 12
    assert "converged" in repr(solution)


def test_evaluators_agree_with_the_nodes_and_keep_shapes(solution):
    nodes = solution.grid.nodes()
    assert np.allclose(solution.value_at(nodes), solution.value, atol=1e-12)
    x = np.zeros((3, 2, 1))
    assert solution.value_at(x).shape == (3, 2)
    assert solution.gradient_at(x).shape == (3, 2, 1)
    assert solution.control_at(x).shape == (3, 2, 1)
    assert solution.error_at(x).shape == (3, 2)
    assert solution.value_at(np.zeros(1)).shape == ()


def test_evaluators_between_nodes_lie_within_their_own_bars(solution):
    """Against the exact value, gradient and control of the manufactured problem."""
    exact = solution.problem.exact
    x = np.linspace(-1.9, 1.9, 401)[:, None]
    error = np.abs(solution.value_at(x) - exact.value(x))
    assert np.mean(error <= solution.error_at(x)) >= 0.99
    slope = np.abs(solution.gradient_at(x) - exact.gradient(x))
    assert np.mean(slope <= solution.gradient_error_at(x)) >= 0.95
    assert np.abs(solution.control_at(x) - exact.control(x)).max() < 5e-3


def test_the_solver_never_reads_the_exact_answer():
    """Bit for bit the same without it, as DESIGN asks of every solver and bar."""
    import dataclasses

    for name, shape in (("lqr", 101), ("manufactured", 101)):
        problem = hjb.catalogue.get(name)
        blind = dataclasses.replace(problem, exact=None)
        one, two = hjb.solve(problem, shape), hjb.solve(blind, shape)
        assert np.array_equal(one.value, two.value)
        assert np.array_equal(one.error_bar, two.error_bar)
        assert np.array_equal(one.control, two.control)


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("lqr", 17, ["x0"]),
        ("american-put", 33, ["time", "x0"]),
        ("consumption-saving", 50, ["mode", "x0"]),
        ("regime-switching-call", 31, ["time", "mode", "x0"]),
        ("robust-lqr", 33, ["x0"]),
        ("cash-management", 33, ["x0"]),
    ],
)
def test_labelled_arrays_name_every_axis(name, shape, axes, monkeypatch):
    """By a stand-in for xarray.Dataset, which refuses axes that do not fit too."""

    def dataset(variables, coords):
        for names, values in variables.values():
            assert len(names) == values.ndim
            for one, length in zip(names, values.shape, strict=True):
                assert one.endswith("_index") or len(coords[one]) == length
        return variables

    monkeypatch.setitem(sys.modules, "xarray", SimpleNamespace(Dataset=dataset))
    solution = hjb.solve(hjb.catalogue.get(name), shape)
    found = solution.to_xarray()
    assert found["value"] == (axes, solution.value)
    assert ("stopping" in found) == (solution.stopping is not None)
    assert found["control"][0] == [*axes, "control_index"]
