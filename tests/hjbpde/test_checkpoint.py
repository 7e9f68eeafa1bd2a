"""Solves killed on the way go on from their file with the bits of one never killed."""

import time

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde import checkpoint as files
from hjbpde.methods import explicit, marching, nested
from hjbpde.semi_lagrangian import march, system

MARCHING = hjb.Marching(steps=6, levels=2)


@pytest.fixture
def always_due(monkeypatch):
    """Every step is written, not only one after a while."""
    monkeypatch.setattr(files.Checkpoint, "due", property(lambda self: bool(self.path)))


@pytest.fixture
def counted(monkeypatch):
    """``counted(owner, name)``: a list that grows with every call of owner.name."""

    def begin(owner, name):
        whole, calls = getattr(owner, name), []

        def counting(*arguments, **options):
            calls.append(1)
            return whole(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)
        return calls

    return begin


def moving():
    """A payoff awaited: face data and the obstacle move in time."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        discount=0.1,
        horizon=1.0,
        terminal=lambda x: x[..., 0] ** 2,
        boundary=hjb.Dirichlet(lambda x, t: 1.0 + 0.0 * x[..., 0] + 0.1 * (1.0 - t)),
        stop=hjb.Stop(lambda x, t: x[..., 0] ** 2 + 0.2 * (1.0 - t)),
    )


def plane(diffusion=((0.4, 0.0), (0.0, 0.3)), boundary=None):
    """Two states, two controls, a kinked terminal value; artificial faces."""
    return hjb.ControlProblem(
        drift=lambda x, a: a - 0.3 * x,
        diffusion=np.array(diffusion),
        reward=lambda x, a: -((x - 0.2) ** 2).sum(-1) - 0.5 * (a**2).sum(-1),
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        discount=0.1,
        horizon=0.5,
        terminal=lambda x: np.abs(x[..., 0]) - x[..., 1] ** 2,
        boundary=boundary,
    )


def changing_shape(shared=0.0):
    """Noise that turns from one axis to the other: hierarchies of different axes."""

    def diffusion(x, a, t):
        out = np.zeros((*x.shape, 2))
        out[..., 0, 0], out[..., 1, 1] = 0.02 + 0.8 * t, 0.82 - 0.8 * t
        out[..., 1, 0] = shared * out[..., 0, 0]
        return out

    problem = plane(boundary=hjb.Reflecting())
    return hjb.ControlProblem(
        **{**vars_of(problem), "diffusion": diffusion, "horizon": 1.0}
    )


def searched():
    """No closed form: controls are searched from those of the step before."""
    cost = {"cost": lambda x, a: np.abs(a[..., 0]) ** 1.5 + x[..., 0] ** 2}
    return hjb.ControlProblem(**{**vars_of(moving()), **cost})


def vars_of(problem):
    """The fields of a problem that its constructor takes."""
    return {f: getattr(problem, f) for f in problem.__dataclass_fields__}


ANSWERS = (
    *("value", "control", "error_bar", "stopping", "average"),
    *("adversary_control", "swapped_value"),
)


def same_bits(one, two):
    """Of all answers that there are."""
    for name in ANSWERS:
        a, b = getattr(one, name, None), getattr(two, name, None)
        assert (a is None) == (b is None)
        a, b = (None, None) if a is None else (np.asarray(a), np.asarray(b))
        assert a is None or a.tobytes() == b.tobytes(), name


IMPLICIT = {
    "European call": lambda: (hjb.catalogue.get("european-call"), 33),
    "American put": lambda: (hjb.catalogue.get("american-put"), 33),
    "jumps": lambda: (jumping(horizon=1.0, terminal=lambda x: abs(x[..., 0])), 33),
    "dates": lambda: (hjb.catalogue.get("bermudan-put", dates=3), 33),
    "moving data": lambda: (moving(), 33),
    "artificial faces": lambda: (plane(), (17, 13)),
    "correlated noise": lambda: (plane(((0.4, 0.0), (0.25, 0.2))), (17, 17)),
    "modes": lambda: (hjb.catalogue.get("regime-switching-call"), 33),
    "searched controls": lambda: (searched(), 17),
    "changing hierarchies": lambda: (changing_shape(), (25, 25)),
    "changing, correlated": lambda: (changing_shape(0.3), (25, 25)),
}


@pytest.mark.parametrize("name", IMPLICIT)
def test_a_killed_march_ends_with_the_same_bits(
    name, tmp_path, always_due, killed, counted
):
    problem, shape = IMPLICIT[name]()
    times = [0.1, 0.3]
    calls = counted(marching.Stepper, "prepare")
    whole = hjb.solve(problem, shape, MARCHING, times=times)
    total = len(calls)
    for done in (int(share * total) for share in (0.02, 0.45, 0.97)):
        path = tmp_path / f"{done}"
        with killed(marching.Stepper, "prepare", done):
            hjb.solve(problem, shape, MARCHING, times=times, checkpoint=path)
        calls.clear()
        resumed = hjb.solve(problem, shape, MARCHING, times=times, checkpoint=path)
        same_bits(whole, resumed)
        # The steps left, and the last one of at most eight finished runs (two modes),
        # or sixteen where a larger box is solved as well.
        assert len(calls) <= total - done + 32


def test_a_march_killed_many_times_ends_with_the_same_bits(
    tmp_path, always_due, killed
):
    problem, path = plane(), tmp_path / "file"
    whole = hjb.solve(problem, 17, MARCHING, times=[0.2])
    for calls in (3, 11, 12, 13):
        with killed(marching.Stepper, "prepare", calls):
            hjb.solve(problem, 17, MARCHING, times=[0.2], checkpoint=path)
    resumed = hjb.solve(problem, 17, MARCHING, times=[0.2], checkpoint=path)
    same_bits(whole, resumed)


GAMES = {
    "two players": (
        lambda: hjb.catalogue.get("air3d"),
        (13, 11, 9),
        hjb.ExplicitMarching(),
    ),
    "tube, adaptive steps": (
        lambda: hjb.catalogue.get("air3d"),
        (13, 11, 9),
        hjb.ExplicitMarching(tube=hjb.Tube.LEAST, even_steps=False),
    ),
    "one player": (
        lambda: hjb.catalogue.get("harmonic-oscillator"),
        41,
        hjb.ExplicitMarching(scheme=hjb.ENO2(), stages=2),
    ),
    "filtered": (
        lambda: hjb.catalogue.get("harmonic-oscillator"),
        41,
        hjb.ExplicitMarching(scheme=hjb.Filtered()),
    ),
}


@pytest.mark.parametrize("name", GAMES)
def test_a_killed_explicit_march_ends_with_the_same_bits(
    name, tmp_path, always_due, killed, counted
):
    build, shape, method = GAMES[name]
    problem = build()
    times = [0.3 * float(problem.horizon), 0.7 * float(problem.horizon)]
    calls = counted(explicit._March, "advance")
    whole = hjb.solve(problem, shape, method, times=times)
    total = len(calls)
    for done in (int(share * total) for share in (0.1, 0.55, 0.95)):
        path = tmp_path / f"{done}"
        with killed(explicit._March, "advance", done):
            hjb.solve(problem, shape, method, times=times, checkpoint=path)
        calls.clear()
        resumed = hjb.solve(problem, shape, method, times=times, checkpoint=path)
        same_bits(whole, resumed)
        assert whole.report.details == resumed.report.details
        assert len(calls) == total - done
    calls.clear()
    same_bits(whole, hjb.solve(problem, shape, method, times=times, checkpoint=path))
    assert not calls


def cash():
    return hjb.catalogue.get("cash-management")


STATIONARY = {
    "manufactured": (
        lambda: hjb.catalogue.get("manufactured", dimension=2),
        33,
        hjb.PolicyIteration(order=4),
    ),
    "artificial faces": (lambda: hjb.catalogue.get("lqr", dimension=2), 17, None),
    "exit": (lambda: hjb.catalogue.get("unit-ball"), (33, 33), None),
    "impulses": (cash, 65, None),
    "one axis": (lambda: hjb.catalogue.get("merton"), 65, None),
}


@pytest.mark.parametrize("name", STATIONARY)
def test_killed_policies_end_with_the_same_bits(name, tmp_path, killed, counted):
    build, shape, method = STATIONARY[name]
    problem, path = build(), tmp_path / "file"
    calls = counted(nested, "watch_inverse")
    whole = hjb.solve(problem, shape, method)
    grids = len(calls)
    with killed(nested, "watch_inverse", grids - 1):
        hjb.solve(problem, shape, method, checkpoint=path)
    calls.clear()
    same_bits(whole, hjb.solve(problem, shape, method, checkpoint=path))
    assert len(calls) == 1
    same_bits(whole, hjb.solve(problem, shape, method, checkpoint=path))
    assert len(calls) == 1


def long_run(boundary=None):
    return hjb.ControlProblem(
        drift=lambda x, a: a - 0.5 * x,
        diffusion=0.5,
        cost=lambda x, a: x[..., 0] ** 2 + 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        boundary=boundary,
        average=True,
    )


def jumping(**fields):
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.3,
        cost=lambda x, a: x[..., 0] ** 2 + 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        boundary=hjb.Reflecting(),
        discount=0.4,
        jumps=hjb.Jumps(0.7, [[0.3], [-0.5]], [0.4, 0.6]),
        **fields,
    )


def two_modes():
    return hjb.ControlProblem(
        drift=lambda x, a, mode: a - 0.3 * x * (1 + mode),
        diffusion=0.3,
        cost=lambda x, a, mode: (1 + mode) * x[..., 0] ** 2 + 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0]),
        boundary=hjb.Reflecting(),
        discount=0.4,
        modes=hjb.Modes([[-0.5, 0.5], [0.8, -0.8]]),
    )


def doubtful(**fields):
    """A game in which the order of play matters, so that both orders are solved."""
    return hjb.ControlProblem(
        drift=lambda x, a, b: 0.5 * a * b,
        diffusion=0.3,
        reward=lambda x, a, b: x[..., 0] * a[..., 0] * b[..., 0] - x[..., 0] ** 2,
        controls=hjb.Finite([[-1.0], [1.0]]),
        adversary=hjb.Finite([[-1.0], [1.0]]),
        domain=hjb.Box([-1.0], [1.0]),
        boundary=hjb.Reflecting(),
        discount=0.5,
        **fields,
    )


def catalogued(name, **parameters):
    return lambda: hjb.catalogue.get(name, **parameters)


BY_GRIDS = {
    "average": (lambda: long_run(hjb.Reflecting()), 65),
    "average, artificial faces": (long_run, 65),
    "two incomes": (catalogued("consumption-saving"), 400),
    "jumps": (jumping, 65),
    "a game in either order": (doubtful, 65),
    "eikonal": (catalogued("eikonal"), (41, 41)),
    "arcs": (catalogued("zermelo"), (33, 33)),
    "policies": (catalogued("manufactured", dimension=2), 33),
}


@pytest.mark.parametrize("name", BY_GRIDS)
def test_grids_that_are_kept_are_not_solved_again(name, tmp_path, killed, counted):
    """Killed before the first grid is written, half way, and before the last one."""
    build, shape = BY_GRIDS[name]
    whole = hjb.solve(build(), shape)
    calls = counted(files.Checkpoint, "keep")
    hjb.solve(build(), shape, checkpoint=tmp_path / "whole")
    total = len(calls)
    assert total >= 3
    for done in (0, total // 2, total - 1):
        path = tmp_path / f"{done}"
        with killed(files.Checkpoint, "keep", done):
            hjb.solve(build(), shape, checkpoint=path)
        calls.clear()
        same_bits(whole, hjb.solve(build(), shape, checkpoint=path))
        assert len(calls) == total - done
    calls.clear()
    same_bits(whole, hjb.solve(build(), shape, checkpoint=path))
    assert not calls


def test_a_file_of_another_solve_is_refused(tmp_path):
    path, more_steps = tmp_path / "file", hjb.Marching(steps=7, levels=2)
    call = hjb.catalogue.get("european-call")
    hjb.solve(call, 17, MARCHING, times=[0.1], checkpoint=path)
    with pytest.raises(hjb.ProblemError, match="another grid"):
        hjb.solve(call, 19, MARCHING, times=[0.1], checkpoint=path)
    with pytest.raises(hjb.ProblemError, match="other output times"):
        hjb.solve(call, 17, MARCHING, times=[0.2], checkpoint=path)
    with pytest.raises(hjb.ProblemError, match="another method or other options"):
        hjb.solve(call, 17, more_steps, times=[0.1], checkpoint=path)
    dearer = hjb.catalogue.get("european-call", sigma=0.31)
    with pytest.raises(hjb.ProblemError, match="another problem"):
        hjb.solve(dearer, 17, MARCHING, times=[0.1], checkpoint=path)


def test_another_tolerance_or_guess_is_another_solve(tmp_path):
    path, problem = tmp_path / "file", hjb.catalogue.get("manufactured")
    hjb.solve(problem, 17, checkpoint=path)
    for options in ({"tolerance": 1e-6}, {"guess": np.zeros(17)}):
        with pytest.raises(hjb.ProblemError, match="other options"):
            hjb.solve(problem, 17, checkpoint=path, **options)


CHANGES = {
    "drift": lambda x, a: a + 1e-6,
    "diffusion": 0.41,
    "cost": lambda x, a: 0.51 * a[..., 0] ** 2,
    "controls": hjb.Box([-1.0], [1.1]),
    "discount": 0.2,
    "horizon": 1.1,
    "terminal": lambda x: x[..., 0] ** 4,
    "boundary": hjb.Dirichlet(lambda x, t: 1.0 + 0.0 * x[..., 0] + 0.2 * (1.0 - t)),
    "stop": hjb.Stop(lambda x, t: x[..., 0] ** 2 + 0.3 * (1.0 - t)),
    "exit": hjb.Exit(lambda x: 0.1 - abs(x[..., 0]), 1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_tells_problems_apart(name):
    from hjbpde.fingerprint import Fingerprint

    problem = moving()
    same, other = moving(), {**vars_of(problem), name: CHANGES[name]}
    assert Fingerprint.of(problem).matches(Fingerprint.of(same))
    other = Fingerprint.of(hjb.ControlProblem(**other))
    assert not Fingerprint.of(problem).matches(other)


CUBIC, LINEAR = hjb.SemiLagrangian(), hjb.SemiLagrangian("linear")
STEPPED = {
    "a payoff awaited": (moving, 17, LINEAR),
    "artificial faces": (lambda: plane(((0.4, 0.0), (0.25, 0.2))), (9, 9), CUBIC),
    "jumps": (
        lambda: jumping(horizon=0.5, terminal=lambda x: abs(x[..., 0])),
        17,
        CUBIC,
    ),
    "dates": (lambda: hjb.catalogue.get("bermudan-put", dates=3), 17, LINEAR),
    "modes": (lambda: hjb.catalogue.get("regime-switching-call"), 17, CUBIC),
    "weighted readings": (
        lambda: hjb.catalogue.get("harmonic-oscillator"),
        21,
        hjb.SemiLagrangian("weno"),
    ),
    "two players": (lambda: doubtful(horizon=0.5, terminal=0.0), 17, LINEAR),
}


@pytest.mark.parametrize("name", STEPPED)
def test_killed_semi_lagrangian_steps_end_with_the_same_bits(
    name, tmp_path, always_due, killed, counted
):
    build, shape, method = STEPPED[name]
    problem = build()
    times = [0.31 * float(problem.horizon), 0.7 * float(problem.horizon)]
    calls = counted(march.March, "step")
    whole = hjb.solve(problem, shape, method, times=times)
    total = len(calls)
    for done in (int(share * total) for share in (0.03, 0.5, 0.97)):
        path = tmp_path / f"{done}"
        with killed(march.March, "step", done):
            hjb.solve(problem, shape, method, times=times, checkpoint=path)
        calls.clear()
        resumed = hjb.solve(problem, shape, method, times=times, checkpoint=path)
        same_bits(whole, resumed)
        # The steps left, and those of the stride on their way to both output times.
        assert len(calls) <= total - done + 2 * 16
    calls.clear()
    resumed = hjb.solve(problem, shape, method, times=times, checkpoint=path)
    same_bits(whole, resumed)
    assert not calls
    assert whole.report.details == resumed.report.details


def test_semi_lagrangian_steps_killed_many_times_end_with_the_same_bits(
    tmp_path, always_due, killed
):
    problem, path = moving(), tmp_path / "file"
    whole = hjb.solve(problem, 17, CUBIC, times=[0.2])
    for calls in (3, 11, 12, 13):
        with killed(march.March, "step", calls):
            hjb.solve(problem, 17, CUBIC, times=[0.2], checkpoint=path)
    same_bits(whole, hjb.solve(problem, 17, CUBIC, times=[0.2], checkpoint=path))


SETTLED = {
    "noise": (lambda: hjb.catalogue.get("manufactured", sigma=0.2), 33, CUBIC),
    "artificial faces": (lambda: hjb.catalogue.get("lqr"), 33, LINEAR),
    "exit": (lambda: hjb.catalogue.get("unit-ball"), (17, 17), CUBIC),
    "right to stop": (lambda: hjb.catalogue.get("optimal-default"), 33, CUBIC),
    "modes": (lambda: two_modes(), 33, CUBIC),
    "jumps": (lambda: jumping(), 33, CUBIC),
    "a game in either order": (lambda: doubtful(), 33, LINEAR),
    "average": (lambda: long_run(), 33, CUBIC),
    "impulses": (lambda: cash(), 33, CUBIC),
}


@pytest.mark.parametrize("name", SETTLED)
def test_semi_lagrangian_grids_that_are_kept_are_not_settled_again(
    name, tmp_path, killed, counted
):
    """Killed before the first grid is written, half way, and before the last one."""
    build, shape, method = SETTLED[name]
    whole = hjb.solve(build(), shape, method)
    calls = counted(files.Checkpoint, "keep")
    hjb.solve(build(), shape, method, checkpoint=tmp_path / "whole")
    total = len(calls)
    assert total >= 4
    policies = counted(system.System, "improve")
    for done in (0, total // 2, total - 1):
        path = tmp_path / f"{done}"
        with killed(files.Checkpoint, "keep", done):
            hjb.solve(build(), shape, method, checkpoint=path)
        calls.clear()
        same_bits(whole, hjb.solve(build(), shape, method, checkpoint=path))
        assert len(calls) == total - done
    policies.clear()
    again = hjb.solve(build(), shape, method, checkpoint=path)
    same_bits(whole, again)
    assert not policies
    assert whole.report.residuals == again.report.residuals


def test_a_semi_lagrangian_file_is_of_one_method_and_tolerance(tmp_path):
    path, problem = tmp_path / "file", hjb.catalogue.get("manufactured", sigma=0.2)
    hjb.solve(problem, 17, CUBIC, checkpoint=path)
    for method, options in ((LINEAR, {}), (CUBIC, {"tolerance": 1e-6}), (None, {})):
        with pytest.raises(hjb.ProblemError, match="other options"):
            hjb.solve(problem, 17, method, checkpoint=path, **options)
    with pytest.raises(hjb.ProblemError, match="another grid"):
        hjb.solve(problem, 19, CUBIC, checkpoint=path)


def test_writing_takes_a_few_per_cent_of_the_time(tmp_path):
    problem = hjb.catalogue.get("european-call")
    file = files.Checkpoint.at(
        tmp_path / "file", files.Identity.of(problem, hjb.Grid(problem.domain, 17), 0)
    )
    file.keep("one", {"V": np.zeros(3)})
    file.cost = 1.0
    assert not file.due
    file.written = time.monotonic() - 1.01 / files.SHARE
    assert file.due
    assert not files.Checkpoint().due
