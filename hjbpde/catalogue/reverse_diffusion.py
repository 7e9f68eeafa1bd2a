"""Generation as control: the noising of a mixture, run backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import logsumexp

from ..arrays import constant, namespace
from ..boundary import Dirichlet
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive


def reverse_diffusion(
    *,
    weights: Any = (0.3, 0.4, 0.3),
    means: Any = ((-2.0,), (0.0,), (1.5,)),
    variances: Any = (0.16, 0.09, 0.16),
    theta: float = 1.0,
    sigma: float = 2.0**0.5,
    horizon: float = 1.0,
    half_width: float = 4.0,
    boundary: Any = "exact",
) -> ControlProblem:
    """Reverse diffusion: turn noise into a Gaussian mixture at least cost; -log p.

    Data from ``p_0 = sum_k w_k N(mu_k, s_k^2 I)`` are noised by ``dY = -theta Y dt +
    sigma dB``, so that Y_s has the density p_s: means ``e^(-theta s) mu_k``, variances
    ``e^(-2 theta s) s_k^2 + sigma^2 (1 - e^(-2 theta s)) / (2 theta)``. Then
    ``V(x, t) = -log p_(T-t)(x)`` is the least cost of

        dX = (theta X + sigma a) dt + sigma dW,
        E int_t^T ( |a|^2 / 2 - theta d ) ds - log p_0(X_T),

    and ``a = sigma grad log p_(T-t)``, the score, is the control that generates.
    ``boundary="exact"`` puts V on the faces; None leaves them artificial.

    Source: Berner, Richter and Ullrich, An optimal control perspective on
    diffusion-based generative modeling, TMLR 2024 (arXiv 2211.01364), lemma 2.1 and
    theorem 2.4; Pavon, Appl. Math. Optim. 19 (1989) 187.

    Raises
    ------
    ProblemError
        Weights, means (K, d) and variances (K,) that do not fit or are not positive.
    """
    w, mu, s2 = _mixture(weights, means, variances)
    require_positive("reverse-diffusion", theta=theta, sigma=sigma, horizon=horizon)
    d = mu.shape[1]

    def marginal(t: float) -> tuple[Any, Any]:
        fade = np.exp(-theta * (horizon - t))
        return fade * mu, fade**2 * s2 + sigma**2 * (1.0 - fade**2) / (2.0 * theta)

    def parts(x: Any, t: float) -> tuple[Any, Any]:
        """log(w_k N_k), (..., K), and (mu_k - x) / s_k^2, (..., K, d)."""
        centre, spread = marginal(t)
        gap = centre - x[..., None, :]
        logs = np.log(w) - 0.5 * d * np.log(2.0 * np.pi * spread)
        return logs - 0.5 * (gap**2).sum(-1) / spread, gap / spread[:, None]

    def value(x: Any, t: float = 0.0) -> Any:
        return -logsumexp(parts(x, t)[0], axis=-1)

    def gradient(x: Any, t: float = 0.0) -> Any:
        logs, pull = parts(x, t)
        share = np.exp(logs - logsumexp(logs, axis=-1, keepdims=True))
        return -(share[..., None] * pull).sum(-2)

    if isinstance(boundary, str):
        if boundary != "exact":
            raise ProblemError(
                "reverse-diffusion: boundary must be 'exact', a rule or None; got "
                f"{boundary!r}."
            )
        boundary = Dirichlet(value)
    domain = Box([-half_width] * d, [half_width] * d)
    return ControlProblem(
        drift=lambda x, a: theta * x + sigma * a,
        diffusion=sigma,
        cost=lambda x, a: 0.5 * namespace(a).sum(a * a, axis=-1) - theta * d,
        controls=Box([-np.inf] * d, [np.inf] * d),
        domain=domain,
        horizon=horizon,
        terminal=lambda x: _surprise(x, w, mu, s2),
        boundary=boundary,
        exact=Exact(
            value,
            gradient,
            control=lambda x, t=0.0: -sigma * gradient(x, t),
            source="the noised mixture is a mixture; Berner et al. (2024)",
        ),
        name="reverse-diffusion",
        suggested_grid=Grid(domain, ({1: 401, 2: 101}.get(d, 33),)),
    )


def _surprise(x: Any, w: Any, mu: Any, s2: Any) -> Any:
    """-log p_0 at x (..., d), in any array namespace; the largest term is taken out."""
    xp, d = namespace(x), mu.shape[1]
    logs = [
        float(np.log(w[k]) - 0.5 * d * np.log(2.0 * np.pi * s2[k]))
        - 0.5 * xp.sum((x - constant(mu[k], like=x)) ** 2, axis=-1) / float(s2[k])
        for k in range(len(w))
    ]
    stacked = xp.stack(logs, axis=-1)
    top = xp.max(stacked, axis=-1, keepdims=True)
    return -top[..., 0] - xp.log(xp.sum(xp.exp(stacked - top), axis=-1))


def _mixture(weights: Any, means: Any, variances: Any) -> tuple[Any, Any, Any]:
    w, mu = np.asarray(weights, float), np.asarray(means, float)
    s2 = np.asarray(variances, float)
    if mu.ndim != 2 or w.shape != (len(mu),) or s2.shape != w.shape:
        raise ProblemError(
            f"reverse-diffusion: weights {w.shape}, means {mu.shape} and variances "
            f"{s2.shape} must be (K,), (K, d) and (K,)."
        )
    good = all(np.isfinite(v).all() for v in (w, mu, s2))
    if not (good and (w > 0).all() and (s2 > 0).all()):
        raise ProblemError(
            "reverse-diffusion: weights and variances must be finite and positive, "
            "means finite."
        )
    return w / w.sum(), mu, s2
