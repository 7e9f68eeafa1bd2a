"""The stochastic linear-quadratic regulator, discounted, in any dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import solve_continuous_are

from ..arrays import constant, namespace
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def lqr(
    *,
    A: Any = None,
    B: Any = None,
    Q: Any = None,
    R: Any = None,
    D: Any = None,
    discount: float = 0.1,
    alpha: float = -0.5,
    beta: float = 1.0,
    q: float = 1.0,
    r_a: float = 0.1,
    sigma: float = 0.3,
    dimension: int = 1,
    half_width: float = 2.0,
    boundary: Any = None,
) -> ControlProblem:
    """Stochastic LQR: linear drift, quadratic cost, constant noise; Riccati answer.

    ``dX = (A X + B a) dt + D dW``, reward ``-(x'Q x + a'R a)/2``. Matrices default
    to ``alpha I``, ``beta I``, ``q I``, ``r_a I`` and ``sigma I`` in `dimension`
    states: at 1 the article's parameters. Then ``V = -x'P x/2 - c`` with
    ``rho P = Q + A'P + P A - P B R^-1 B'P``, ``c = tr(D D'P)/(2 rho)``,
    ``a* = -R^-1 B'P x``. The HJB has further roots; only the stabilising one is V.

    Source: Yong and Zhou, Stochastic Controls (1999), chapter 6, with A replaced
    by ``A - rho I/2`` for the discount.
    """
    given = [np.atleast_2d(M) for M in (A, Q) if M is not None]
    d = given[0].shape[0] if given else dimension
    A = alpha * np.eye(d) if A is None else np.atleast_2d(np.asarray(A, float))
    B = beta * np.eye(d) if B is None else np.asarray(B, float).reshape(d, -1)
    m = B.shape[1]
    Q = q * np.eye(d) if Q is None else np.atleast_2d(np.asarray(Q, float))
    R = r_a * np.eye(m) if R is None else np.atleast_2d(np.asarray(R, float))
    D = sigma * np.eye(d) if D is None else np.asarray(D, float).reshape(d, -1)
    try:
        P = np.asarray(
            solve_continuous_are(A - 0.5 * discount * np.eye(d), B, Q, R), dtype=float
        )
    except (np.linalg.LinAlgError, ValueError) as cause:
        raise ProblemError(
            "lqr: the discounted Riccati equation has no stabilising solution for "
            f"these matrices ({cause}); R must be positive definite and (A, B) "
            "stabilisable."
        ) from cause
    P = 0.5 * (P + P.T)
    c = float(np.trace(D @ D.T @ P)) / (2 * discount)
    K = np.linalg.solve(R, B.T @ P)

    def drift(x: Any, a: Any) -> Any:
        xp = namespace(x)
        AT, BT = constant(A.T, like=x), constant(B.T, like=x)
        return xp.matmul(x, AT) + xp.matmul(a, BT)

    def reward(x: Any, a: Any) -> Any:
        xp = namespace(x)
        Qx = xp.matmul(x, constant(Q, like=x))
        Ra = xp.matmul(a, constant(R, like=x))
        return -0.5 * (xp.sum(x * Qx, axis=-1) + xp.sum(a * Ra, axis=-1))

    exact = Exact(
        value=lambda x: -0.5 * np.sum(x * (x @ P), axis=-1) - c,
        gradient=lambda x: -(x @ P),
        control=lambda x: -(x @ K.T),
        source="discounted algebraic Riccati equation, Yong and Zhou (1999), ch. 6",
    )
    domain = Box([-half_width] * d, [half_width] * d)
    nodes = {1: 401, 2: 101, 3: 49, 4: 25}.get(d, 9)
    return ControlProblem(
        drift=drift,
        diffusion=D,
        reward=reward,
        controls=Box([-np.inf] * m, [np.inf] * m),
        domain=domain,
        discount=discount,
        boundary=boundary,
        exact=exact,
        name="lqr",
        suggested_grid=Grid(domain, (nodes,) * d),
    )
