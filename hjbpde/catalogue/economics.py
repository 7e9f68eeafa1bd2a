"""Consumption and saving: incomes that switch, and the growth model."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import namespace
from ..boundary import Reflecting, StateConstraint
from ..errors import ProblemError
from ..events import Modes
from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box


def _utility(gamma: float, low: float, high: float) -> tuple[Any, Any]:
    """c^(1-gamma)/(1-gamma), and the c in [low, high] with u'(c) = p."""

    def utility(c: Any) -> Any:
        if gamma == 1.0:
            return namespace(c).log(c)
        if gamma == 2.0:
            return -1.0 / c
        return c ** (1.0 - gamma) / (1.0 - gamma)

    def spent(p: Any) -> Any:
        xp = namespace(p)
        # Where the value falls with wealth nothing is worth keeping.
        safe = xp.where(p > 0, p, xp.full_like(p, 1e-300))
        if gamma == 2.0:
            return xp.clip(1.0 / xp.sqrt(safe), low, high)
        return xp.clip(safe ** (-1.0 / gamma), low, high)

    return utility, spent


def _check(name: str, gamma: float, discount: float, low: float, high: float) -> None:
    if not (gamma > 0 and discount > 0):
        raise ProblemError(f"{name}: gamma and discount must be positive.")
    if not low < high:
        raise ProblemError(f"{name}: low must be below high, got {low:g}, {high:g}.")


def _check_debt(name: str, low: float, held: float, least: float) -> None:
    """Refuse a limit at which `held`, what holds the debt, is below `least`."""
    if not least < held:
        raise ProblemError(
            f"{name}: at the borrowing limit {low:g} the lowest income leaves "
            f"{held:.4g} to consume, below the least consumption {least:g}: raise low "
            "or incomes."
        )


def consumption_saving(
    *,
    gamma: float = 2.0,
    discount: float = 0.05,
    rate: float = 0.03,
    incomes: tuple[float, ...] = (0.1, 0.2),
    switching: Any = (0.02, 0.03),
    low: float = -0.15,
    high: float = 5.0,
    consumption_bounds: tuple[float, float] = (0.005, 1.0),
) -> ControlProblem:
    """Consumption-saving: income jumps between states, debt is limited.

    ``da = (z_k + r a - c) dt`` with ``a >= low`` for ever, utility
    ``c^(1-gamma)/(1-gamma)``, income z_k; `switching` is the rate of leaving each of
    two incomes, or rates (K, K). At ``a = low`` only ``c <= z_k + r a`` is
    admissible: a state constraint, as at `high`, where it does not bind for the
    default parameters (the optimal drift points inward).

    Source: Achdou, Han, Lasry, Lions and Moll, Rev. Econ. Stud. 89 (2022) 45,
    equations 1, 2 and 7; parameters of the two-state example in their numerical
    appendix. No closed form: compare grids.
    """
    _check("consumption-saving", gamma, discount, low, high)
    rates = np.asarray(switching, dtype=float)
    if rates.ndim == 1:
        if len(rates) != 2:
            raise ProblemError(
                "consumption-saving: switching must be two rates, or rates (K, K)."
            )
        rates = np.array([[-rates[0], rates[0]], [rates[1], -rates[1]]])
    if len(incomes) != len(rates):
        raise ProblemError(
            f"consumption-saving: {len(incomes)} incomes for {len(rates)} modes."
        )
    least, most = consumption_bounds
    _check_debt("consumption-saving", low, min(incomes) + rate * low, least)
    utility, spent = _utility(gamma, least, most)
    domain = Box(low, high)
    return ControlProblem(
        drift=lambda x, a, mode: incomes[mode] + rate * x - a,
        reward=lambda x, a: utility(a[..., 0]),
        controls=Box(least, most),
        domain=domain,
        discount=discount,
        boundary=StateConstraint(),
        modes=Modes(rates),
        best_control=lambda x, p, hess: spent(p),
        name="consumption-saving",
        suggested_grid=Grid.from_axes([_wealth(low, high, 1001)], domain),
    )


def consumption_saving_diffusion(
    *,
    gamma: float = 2.0,
    discount: float = 0.05,
    rate: float = 0.03,
    mean: float = 1.0,
    reversion: float = 0.3,
    noise: float = 0.1,
    incomes: tuple[float, float] = (0.5, 1.5),
    low: float = -1.0,
    high: float = 10.0,
    consumption_bounds: tuple[float, float] = (0.05, 4.0),
) -> ControlProblem:
    """Consumption-saving under an income that diffuses; debt is limited.

    ``da = (z + r a - c) dt``, ``dz = reversion (mean - z) dt + noise dW``, reflected at
    the ends of `incomes`; x = (a, z). Utility, borrowing limit and the upper face are
    those of `consumption_saving`. In the long run the income has a normal density of
    variance ``noise^2 / (2 reversion)``, cut at `incomes`.

    Source: Achdou, Han, Lasry, Lions and Moll, Rev. Econ. Stud. 89 (2022) 45, the
    extension to a continuum of incomes; round parameters of our own. No closed form:
    compare grids and methods.
    """
    name = "consumption-saving-diffusion"
    _check(name, gamma, discount, low, high)
    _check(name, gamma, discount, *incomes)
    if noise < 0 or reversion < 0:
        raise ProblemError(f"{name}: noise and reversion must not be negative.")
    least, most = consumption_bounds
    _check_debt(name, low, incomes[0] + rate * low, least)
    utility, spent = _utility(gamma, least, most)
    domain = Box([low, incomes[0]], [high, incomes[1]])

    def drift(x: Any, a: Any) -> Any:
        wealth, z = x[..., 0], x[..., 1]
        saved = z + rate * wealth - a[..., 0]
        return namespace(x).stack([saved, reversion * (mean - z)], -1)

    return ControlProblem(
        drift=drift,
        diffusion=np.array([[0.0], [noise]]),
        reward=lambda x, a: utility(a[..., 0]),
        controls=Box([least], [most]),
        domain=domain,
        discount=discount,
        boundary={
            (axis, side): Reflecting() if axis else StateConstraint()
            for axis in (0, 1)
            for side in ("low", "high")
        },
        best_control=lambda x, p, hess: spent(p[..., :1]),
        name=name,
        suggested_grid=Grid(domain, (221, 41)),
    )


def _wealth(low: float, high: float, n: int) -> NDArray[np.float64]:
    """Nodes dense at the borrowing limit, evenly spaced in ``sqrt(a - low)``.

    Consumption grows there as this root, so that V is smooth in it and not in a.
    """
    axis = low + (high - low) * np.linspace(0.0, 1.0, n) ** 2
    axis[-1] = high
    return axis


def growth(
    *,
    productivity: float = 0.5,
    alpha: float = 0.3,
    depreciation: float = 0.05,
    discount: float = 0.05,
    gamma: float = 2.0,
    low: float | None = None,
    high: float | None = None,
    consumption_bounds: tuple[float, float] = (0.01, 2.0),
) -> ControlProblem:
    """Neoclassical growth: consume output or let capital grow.

    ``dk = (A k^alpha - delta k - c) dt``, utility ``c^(1-gamma)/(1-gamma)``. Capital
    rests where ``alpha A k^(alpha-1) = rho + delta``: 1.5^(1/.7) = 1.7846741842 for
    the default parameters. The default domain is .1 to 2 of that.

    Source: Acemoglu, Introduction to Modern Economic Growth (2009), equations 8.20
    and 8.23 (the modified golden rule).
    """
    steady = (alpha * productivity / (discount + depreciation)) ** (1 / (1 - alpha))
    least = 0.1 * steady if low is None else low
    most = 2.0 * steady if high is None else high
    _check("growth", gamma, discount, least, most)
    if least <= 0:
        raise ProblemError(f"growth: capital must stay positive, got low = {least:g}.")
    utility, spent = _utility(gamma, *consumption_bounds)
    domain = Box(least, most)
    return ControlProblem(
        drift=lambda x, a: productivity * x**alpha - depreciation * x - a,
        reward=lambda x, a: utility(a[..., 0]),
        controls=Box(*consumption_bounds),
        domain=domain,
        discount=discount,
        boundary=StateConstraint(),
        best_control=lambda x, p, hess: spent(p),
        name="growth",
        suggested_grid=Grid(domain, 401),
    )
