"""Little noise, and a cost with kinks at which the state may rest.

Nodes read the cost at a kink too high or too low, and all from which the state comes
there feel it; nested grids may cut the kink alike. Where corrections are refused near
it, nodes elsewhere were corrected with them. Problems drawn at random, against sixteen
times as many nodes.
"""

import numpy as np
import pytest

import hjbpde as hjb


def drawn(seed):
    """A bounded pull around a circle, noise from .03 to .1, a kinked cost."""
    rng = np.random.default_rng(seed)
    noise, turn, pull = rng.uniform(0.03, 0.1), rng.uniform(-1, 1), rng.uniform(0.3, 2)
    phase, wave = rng.uniform(0, 2 * np.pi, 3), rng.integers(1, 3)

    def cost(x, a):
        bent = np.abs(np.sin(x[..., 0] + phase[0]))
        return 0.5 * a[..., 0] ** 2 + np.cos(wave * x[..., 0] + phase[1]) + bent

    return hjb.ControlProblem(
        drift=lambda x, a: turn * np.sin(x + phase[2]) + pull * a,
        cost=cost,
        diffusion=noise,
        discount=rng.uniform(0.2, 2.0),
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-np.pi, np.pi, periodic=True),
    )


@pytest.mark.parametrize("seed", range(24))
def test_bars_see_what_kinks_do_elsewhere(seed):
    problem, nodes = drawn(seed), (96, 120, 160)[seed % 3]
    coarse, fine = hjb.solve(problem, nodes), hjb.solve(problem, 16 * nodes)
    error = np.abs(coarse.value - fine.value[::16])
    covered = error <= coarse.error_bar + fine.error_bar[::16]
    assert np.mean(covered) >= 0.99
