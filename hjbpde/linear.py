"""Policy evaluation: a sparse linear system behind one small interface.

An engine takes `Rows` (the generator of the controlled Markov chain) and returns a
correction with its measured reduction of the residual; nothing else in the library
knows how it did it. Engines form a ladder; a rung that does not reduce the residual
is left for the next, and the report names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import MemoryBudgetError
from .faces import Faces
from .grid import Grid
from .kernels.multigrid import line_factors, line_sweep, rows_residual
from .kernels.selling import add_rates
from .kernels.tridiagonal import thomas

Array = NDArray[np.float64]


@dataclass(eq=False)
class Rows:
    """``c V - sum_k [lower (V_- - V) + upper (V_+ - V)] = rhs``, faces folded in.

    Shapes: lower, upper (d, N); c, rhs (N). ``f``, ``D`` and ``scheme`` say where
    the weights come from, for engines that coarsen them. Noise that is correlated
    between axes and jumps add ``cross``, rates (N, N) to nodes off the axes; the noise
    along the axes of the former is ``cross_D`` (d, N), the latter make it ``far``.
    """

    grid: Grid
    faces: Faces
    lower: Array
    upper: Array
    c: Array
    f: Array
    D: Array
    scheme: int
    cross: sp.csr_matrix | None = None
    cross_D: Array | None = None
    far: bool = False

    @property
    def shape(self) -> NDArray[np.int64]:
        """Nodes on each axis, for the kernels."""
        return np.array(self.grid.shape, np.int64)

    @property
    def periodic(self) -> NDArray[np.bool_]:
        """Periodic axes, for the kernels."""
        return np.array(self.grid.periodic, bool)

    def residual(self, x: Array, b: Array, out: Array | None = None) -> Array:
        """b - A x, in differences of x so that round-off stays small."""
        out = np.empty_like(b) if out is None else out
        rows_residual(
            self.shape, self.periodic, self.lower, self.upper, self.c, b, x, out
        )
        if self.cross is not None:
            add_rates(self.cross.indptr, self.cross.indices, self.cross.data, x, out)
        return out

    @property
    def cross_weight(self) -> Array | float:
        """Sum of the rates off the axes, (N,) or 0."""
        if self.cross is None:
            return 0.0
        return np.asarray(self.cross.sum(axis=1)).ravel()

    def stay_on_axes(self, nodes: NDArray[np.bool_]) -> None:
        """Drop the rates off the axes of some nodes, whose rows are no longer those
        of the process."""
        if self.cross is not None:
            self.cross = sp.csr_matrix(sp.diags((~nodes).astype(float)) @ self.cross)

    def generator(self) -> sp.csr_matrix:
        """The rows without discount: rates to the neighbours, row sums 0 or less."""
        return sp.csr_matrix(sp.diags(self.c) - self.matrix())

    def dense(self) -> Array:
        """A as a full array, for the few nodes of a coarsest grid."""
        n, shape = self.c.size, self.grid.shape
        number = np.arange(n).reshape(shape)
        out = np.diag(self.c + self.lower.sum(0) + self.upper.sum(0))
        for k in range(len(shape)):
            for weights, shift in ((self.lower[k], 1), (self.upper[k], -1)):
                used = np.flatnonzero(weights)
                neighbour = np.roll(number, shift, axis=k).ravel()
                out[used, neighbour[used]] -= weights[used]
        return out

    def matrix(self) -> sp.csr_matrix:
        """A as scipy CSR, C-order nodes."""
        n, shape = self.c.size, self.grid.shape
        number = np.arange(n).reshape(shape)
        rows, columns, values = [], [], []
        diagonal = self.c + self.lower.sum(0) + self.upper.sum(0)
        if self.cross is not None:
            diagonal = diagonal + self.cross_weight
            counts = np.diff(self.cross.indptr)
            rows.append(np.repeat(number.ravel(), counts))
            columns.append(self.cross.indices)
            values.append(-1.0 * np.asarray(self.cross.data))
        for k in range(len(shape)):
            for weights, shift in ((self.lower[k], 1), (self.upper[k], -1)):
                neighbour = np.roll(number, shift, axis=k).ravel()
                used = np.flatnonzero(weights)
                rows.append(used)
                columns.append(neighbour[used])
                values.append(-weights[used])
        rows.append(number.ravel())
        columns.append(number.ravel())
        values.append(diagonal)
        entries = (
            np.concatenate(values),
            (np.concatenate(rows), np.concatenate(columns)),
        )
        return sp.csr_matrix(entries, shape=(n, n))


class Preconditioner(Protocol):
    """Solves rows without their rates off the axes, roughly and once."""

    def prepare(self, rows: Rows) -> None:
        """Take the system."""
        ...

    def once(self, b: Array) -> Array:
        """x with A x near b."""
        ...


class Engine(Protocol):
    """Solves rows.

    Implementer's contract
    ----------------------
    1. `prepare(rows)` may keep references; rows do not change until the next call.
    2. `correct(residual, target)` returns (x, ratio) with
       ratio = max|residual - A x| / max|residual|, measured, and tries for `target`.
    3. A breakdown is a ratio of infinity, never an exception or a silent NaN.
    """

    name: str

    def prepare(self, rows: Rows) -> None:
        """Take the system."""
        ...

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Solve A x = residual."""
        ...


def measured(rows: Rows, x: Array, b: Array) -> float:
    """max|b - A x| / max|b|, infinite when x is not finite."""
    size = largest(b)
    if size == 0.0:
        return 0.0
    worst = largest(rows.residual(x, b))
    return worst / size if np.isfinite(worst) else np.inf


def largest(values: Array) -> float:
    """max|values|, NaN where one is NaN; without a temporary array."""
    return max(float(values.max()), -float(values.min()))


@dataclass(eq=False)
class Tridiagonal:
    """One axis, not periodic: direct elimination without cancellation."""

    name: str = "tridiagonal elimination"
    rows: Rows | None = None

    def prepare(self, rows: Rows) -> None:
        """Take the system."""
        self.rows = rows

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Solve in O(N)."""
        assert self.rows is not None
        x = self.once(residual)
        return x, measured(self.rows, x, residual)

    def once(self, b: Array) -> Array:
        """The elimination alone; rates off the axes are not seen."""
        rows = self.rows
        assert rows is not None
        x, ratio = np.empty_like(b), np.empty_like(b)
        thomas(rows.c, rows.lower[0], rows.upper[0], b, ratio, x)
        return x


@dataclass(eq=False)
class GaussSeidel:
    """Line Gauss-Seidel in alternating orders: strongest where drift dominates."""

    max_sweeps: int = 2000
    name: str = "alternating Gauss-Seidel"
    rows: Rows | None = None
    factors: tuple[Array, Array] = field(default_factory=lambda: (_none(), _none()))

    def prepare(self, rows: Rows) -> None:
        """Factor every line."""
        self.rows = rows
        inverse, ratio = np.empty_like(rows.c), np.empty_like(rows.c)
        line_factors(rows.shape, rows.lower, rows.upper, rows.c, inverse, ratio)
        self.factors = inverse, ratio

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Sweep until the target, or until progress is hopeless."""
        rows = self.rows
        assert rows is not None
        x, acc = np.zeros_like(residual), np.empty(rows.grid.shape[-1])
        orders = 1 << (rows.grid.dimension - 1)
        ratio = 1.0
        for sweep in range(self.max_sweeps):
            flips = (orders - 1 - sweep // 2 if sweep % 2 else sweep // 2) % orders
            line_sweep(
                rows.shape, rows.periodic, rows.lower, rows.upper,
                *self.factors, residual, x, flips, acc,
            )  # fmt: skip
            if sweep % 8 == 7:
                ratio = measured(rows, x, residual)
                if ratio <= target or not np.isfinite(ratio):
                    break
        return x, ratio


@dataclass(eq=False)
class SparseLU:
    """Direct sparse factorisation, the last rung."""

    max_nodes: int = 400_000
    max_far: int = 6_000
    name: str = "sparse LU"
    rows: Rows | None = None
    solver: Callable[[Array], Array] | None = None

    def prepare(self, rows: Rows) -> None:
        """Factor with minimum degree on the symmetric pattern.

        Raises
        ------
        MemoryBudgetError
            More nodes than the factors would leave memory for.
        """
        n, d = rows.c.size, rows.grid.dimension
        # Far jumps fill the factors: `max_far` nodes are .3 GB.
        most = self.max_far if rows.far else self.max_nodes
        if n > most or (d > 2 and n > 40_000):
            raise MemoryBudgetError(
                f"sparse LU of {n} nodes in {d} dimensions would fill memory; use a "
                "coarser grid, more noise, or the upwind scheme."
            )
        self.rows = rows
        matrix = rows.matrix().tocsc()
        try:
            lu = sp.linalg.splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            self.solver = lu.solve
        except RuntimeError:
            self.solver = None

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Solve, with one step of iterative refinement."""
        rows = self.rows
        assert rows is not None
        if self.solver is None:
            return np.zeros_like(residual), np.inf
        x = self.solver(residual)
        x += self.solver(rows.residual(x, residual))
        return x, measured(rows, x, residual)


def _none() -> Array:
    return np.empty(0)


@dataclass(eq=False)
class Ladder:
    """Engines in order of speed; steps down when one fails, and remembers it."""

    engines: list[Engine]
    stop_ratio: float = 0.5
    fallbacks: list[str] = field(default_factory=list)
    rows: Rows | None = None
    rung: int = 0

    @property
    def name(self) -> str:
        """The engine in use."""
        return self.engines[self.rung].name

    def prepare(self, rows: Rows) -> None:
        """Give the system to the engine in use."""
        self.rows = rows
        self.engines[self.rung].prepare(rows)

    def correct(
        self, residual: Array, target: float, least: float | None = None
    ) -> tuple[Array, float]:
        """A x = residual by the first engine that reduces the residual.

        `least` is the reduction that has to be reached for an engine to stay.
        """
        least = self.stop_ratio if least is None else least
        assert self.rows is not None
        if not residual.any():
            # Iterations divide by its size.
            return np.zeros_like(residual), 0.0
        while True:
            x, ratio = self.engines[self.rung].correct(residual, target)
            if ratio <= max(least, target):
                return x, ratio
            if self.rung + 1 == len(self.engines):
                return (x, ratio) if ratio < 1.0 else (np.zeros_like(x), 1.0)
            new = self.engines[self.rung + 1]
            self.fallbacks.append(
                f"{self.name} left the residual at {ratio:.2g} of its size; "
                f"{new.name} took over"
            )
            self.rung += 1
            new.prepare(self.rows)

    def memory(self) -> dict[str, Any]:
        """What later bits depend on beside the rows, as plain data."""
        plans = [getattr(engine, "plan", None) for engine in self.engines]
        return {"rung": self.rung, "fallbacks": self.fallbacks, "plans": plans}

    def recall(self, memory: dict[str, Any]) -> None:
        """Bring a fresh ladder to where `memory` was taken."""
        self.rung, self.fallbacks = memory["rung"], list(memory["fallbacks"])
        for engine, plan in zip(self.engines, memory["plans"], strict=True):
            if plan is not None:
                engine.plan = plan  # type: ignore[attr-defined]


def default_ladder(grid: Grid) -> Ladder:
    """The engines for a grid, fastest first."""
    from .multigrid import Krylov, Multigrid

    if grid.dimension == 1 and not grid.periodic[0]:
        return Ladder([Tridiagonal()])
    if grid.dimension == 1:
        return Ladder([SparseLU(max_nodes=10_000_000)])
    return Ladder([Multigrid(), Krylov(), GaussSeidel(), SparseLU()])


def off_axes_ladder(grid: Grid) -> Ladder:
    """The engines that know more nodes than the neighbours on the axes."""
    from .multigrid import Krylov

    if grid.dimension == 1 and not grid.periodic[0]:
        name = "Krylov preconditioned by tridiagonal elimination"
        return Ladder([Krylov(100, name, Tridiagonal()), SparseLU()])
    return Ladder([Krylov(max_steps=100), SparseLU()])


def ladder_for(rows: Rows) -> Ladder:
    """The engines that know the neighbours the rows have."""
    known = default_ladder if rows.cross is None else off_axes_ladder
    return known(rows.grid)
