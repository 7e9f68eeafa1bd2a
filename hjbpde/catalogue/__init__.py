"""Problems with known answers: ``names()`` lists them, ``get(name)`` builds one."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from ..errors import ProblemError
from ..problem import ControlProblem
from .bounded_follower import bounded_follower
from .cash_management import cash_management
from .dividends import optimal_dividends
from .economics import consumption_saving, consumption_saving_diffusion, growth
from .jump_diffusion import jump_diffusion_put
from .liquidation import liquidation
from .lqr import lqr
from .manufactured import manufactured
from .mechanics import mountain_car, pendulum, van_der_pol
from .merton import merton
from .minimum_time import double_integrator, eikonal, zermelo
from .optimal_default import optimal_default
from .options import american_put, bermudan_put, european_call, uncertain_volatility
from .quadrotor import quadrotor
from .reachability import air3d, dubins_car, hamilton_jacobi, harmonic_oscillator
from .regime_switching import regime_switching_call
from .reverse_diffusion import reverse_diffusion
from .robust_lqr import robust_lqr
from .unit_ball import unit_ball

_BUILDERS: dict[str, Callable[..., ControlProblem]] = {
    "lqr": lqr,
    "merton": merton,
    "robust-lqr": robust_lqr,
    "manufactured": manufactured,
    "american-put": american_put,
    "bermudan-put": bermudan_put,
    "european-call": european_call,
    "uncertain-volatility": uncertain_volatility,
    "jump-diffusion-put": jump_diffusion_put,
    "unit-ball": unit_ball,
    "eikonal": eikonal,
    "double-integrator": double_integrator,
    "zermelo": zermelo,
    "consumption-saving": consumption_saving,
    "consumption-saving-diffusion": consumption_saving_diffusion,
    "growth": growth,
    "cash-management": cash_management,
    "bounded-follower": bounded_follower,
    "optimal-dividends": optimal_dividends,
    "optimal-default": optimal_default,
    "liquidation": liquidation,
    "pendulum": pendulum,
    "van-der-pol": van_der_pol,
    "mountain-car": mountain_car,
    "hamilton-jacobi": hamilton_jacobi,
    "harmonic-oscillator": harmonic_oscillator,
    "reverse-diffusion": reverse_diffusion,
    "regime-switching-call": regime_switching_call,
    "air3d": air3d,
    "dubins-car": dubins_car,
    "quadrotor": quadrotor,
}


def names() -> list[str]:
    """Names that `get` knows."""
    return list(_BUILDERS)


def describe(name: str) -> str:
    """The first line of the builder's documentation."""
    return (_BUILDERS[name].__doc__ or "").strip().splitlines()[0]


def get(name: str, **parameters: Any) -> ControlProblem:
    """The catalogue problem `name`, with its parameters changed as given.

    Raises
    ------
    ProblemError
        An unknown name (the nearest is suggested) or an unknown parameter.
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ProblemError(
            f"catalogue: no problem is called {name!r}.{hint} Known: "
            f"{', '.join(_BUILDERS)}."
        )
    builder = _BUILDERS[name]
    known = builder.__kwdefaults__ or {}
    for parameter in parameters:
        if parameter not in known:
            near = difflib.get_close_matches(parameter, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ProblemError(
                f"catalogue: {name!r} has no parameter {parameter!r}.{hint} It has: "
                f"{', '.join(known)}."
            )
    return builder(**parameters)
