"""Ten states, a value that is not separable: learned against no training at all.

V* = -|x|^2/2 + 0.2 exp(-|x|^2/2) on [-1, 1]^10 with artificial faces, and the
catalogue's manufactured problem on [-2, 2]^10. The baseline is the better of the
linear-quadratic expansions at the box centre and at the closed-loop rest point.
"""

import time
from typing import Any

import numpy as np

import hjbpde as hjb
import neural

from .measuring import Measured

ANY = 1e9
"""For numbers that are shown and not judged."""
DIMENSION = 10


def bump_problem() -> hjb.ControlProblem:
    """A quadratic with a Gaussian on top, manufactured."""

    def parts(x: Any) -> tuple[Any, Any]:
        xp = hjb.namespace(x)
        square = xp.sum(x * x, axis=-1)
        return square, 0.2 * xp.exp(-0.5 * square)

    def value(x: Any) -> Any:
        square, top = parts(x)
        return top - 0.5 * square

    def gradient(x: Any) -> Any:
        return -(1.0 + parts(x)[1][..., None]) * x

    def laplacian(x: Any) -> Any:
        square, top = parts(x)
        return top * (square - DIMENSION) - DIMENSION

    return hjb.catalogue.get(
        "manufactured",
        dimension=DIMENSION,
        half_width=1.0,
        boundary=None,
        value=value,
        gradient=gradient,
        laplacian=laplacian,
    )


def measure() -> list[Measured]:
    """Gradient errors (relative L2, inner 75 %) and seconds."""
    catalogue = hjb.catalogue.get("manufactured", dimension=DIMENSION, boundary=None)
    out = []
    for name, problem in (("bump", bump_problem()), ("catalogue", catalogue)):
        untrained = min(
            gradient_error(neural.linear_quadratic(problem, at=at))
            for at in (None, neural.equilibrium(problem))
        )
        began = time.perf_counter()
        learned = neural.solve(problem, seed=0)
        spent = time.perf_counter() - began
        found = gradient_error(learned)
        out += [
            Measured(f"{name}: gradient error, untrained", untrained, ANY),
            Measured(f"{name}: gradient error, learned", found, 0.5 * untrained),
            Measured(f"{name}: ratio", untrained / found, 2.0, at_most=False),
            Measured(f"{name}: value error, learned", level_error(learned), ANY),
            Measured(f"{name}: time", spent, 60.0, unit="s"),
        ]
    return out


def level_error(solution: neural.LearnedSolution) -> float:
    """sup|V - V*| over sup|V*| on the inner 75 % of the box."""
    assert solution.problem is not None and solution.problem.exact is not None
    x = solution.domain.inner(0.75).sample(np.random.default_rng(1), 4000)
    wanted = np.asarray(solution.problem.exact.value(x))
    return float(np.abs(solution.value_at(x) - wanted).max() / np.abs(wanted).max())


def gradient_error(solution: neural.LearnedSolution) -> float:
    """|grad V - grad V*| over |grad V*|, L2 on the inner 75 % of the box."""
    problem = solution.problem
    assert problem is not None and problem.exact is not None
    assert problem.exact.gradient is not None
    x = solution.domain.inner(0.75).sample(np.random.default_rng(1), 4000)
    wanted = np.asarray(problem.exact.gradient(x))
    gap = np.linalg.norm(solution.gradient_at(x) - wanted)
    return float(gap / np.linalg.norm(wanted))
