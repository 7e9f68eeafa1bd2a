"""Options against published prices: accuracy in currency, seconds of a warm solve."""

import numpy as np

import hjbpde as hjb

from .measuring import Measured, seconds

SEYDEL = {100.0: 17.44876443}
"""American put, S = K = 100, r .05, sigma .5, T 1: Seydel, Tools for Computational
Finance, 6th ed., section 4.6."""
TABLE = {90.0: 11.4928, 100.0: 6.0903, 110.0: 2.9866, 120.0: 1.3672}
"""The same with sigma .2, binomial, good to 1.5e-4."""
BENCHOP = {90.0: 2.758443856146076, 100.0: 7.485087593912603, 110.0: 14.702019669720769}
"""European call, r .03, sigma .15: von Sydow et al., Int. J. Comp. Math. 92 (2015)."""


def priced(
    what: str,
    problem: hjb.ControlProblem,
    n: int,
    method: hjb.Marching,
    published: dict[float, float],
    error: float,
    limit: float,
) -> list[Measured]:
    """The largest error at the published prices, and the time of the solve."""

    def solve() -> hjb.Solution:
        return hjb.solve(problem, n, method, times=[0.0])

    x = np.log(np.array(list(published)))[:, None]
    found = np.abs(solve().value_at(x) - list(published.values()))
    return [
        Measured(
            f"{what}, error at {len(published)} prices", float(found.max()), error
        ),
        Measured(f"{what}, whole solve", seconds(solve), limit, unit="s"),
    ]


def measure() -> list[Measured]:
    """Seydel's put, four strikes, the European call."""
    get = hjb.catalogue.get
    put, table = get("american-put"), get("american-put", sigma=0.2, half_width=1.5)
    call = get("european-call")
    return [
        *priced("Seydel's put", put, 801, hjb.Marching(steps=100), SEYDEL, 1e-5, 2.0),
        *priced("put, table", table, 801, hjb.Marching(), TABLE, 1.5e-4, 2.0),
        *priced(
            "European call",
            call,
            1601,
            hjb.Marching(steps=48, levels=5),
            BENCHOP,
            1e-8,
            10.0,
        ),
    ]
