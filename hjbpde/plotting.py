"""Figures of solutions: value with its bar, controls, error bar.

Free functions on the Solution protocol. matplotlib is imported inside them, and the
figures know no display: they live outside pyplot and can be saved from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .sets import Box

Array = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

# Okabe and Ito's palette, told apart with every common colour blindness.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, YELLOW, GREY, INK = "#56B4E9", "#E69F00", "#8A8F98", "#22262B"
LINES = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)
MAP = "viridis"
ERROR_MAP = "cividis"
NODES_WITHOUT_GRID = 201
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
}


def new_figure(rows: int, columns: int, width: float, height: float) -> Any:
    """A figure without pyplot and its axes, ``(figure, axes (rows, columns))``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """A drawing function run in the project's style, whatever the caller has set."""

    @wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> R:
        import matplotlib

        with matplotlib.rc_context(STYLE):
            return draw(*args, **options)

    return drawn


@styled
def plot_solution(solution: Any) -> Any:
    """A figure of a solution, after its dimension.

    1-D: value with its error band, controls, error bar on a logarithmic axis. 2-D:
    maps of value, controls and error bar. 3-D and more: the slice through the centre
    along the first two axes.

    Parameters
    ----------
    solution : Solution
        Anything with value_at and control_at; error_at where it knows its error.

    Returns
    -------
    matplotlib.figure.Figure
    """
    grid = _grid_of(solution)
    if grid.dimension == 1:
        return _plot_line(solution, grid)
    return _plot_maps(solution, grid)


def _grid_of(solution: Any) -> Grid:
    grid = getattr(solution, "grid", None)
    if isinstance(grid, Grid):
        return grid
    region: Box = solution.region
    return Grid(region, NODES_WITHOUT_GRID if region.dimension == 1 else 101)


def _answers(solution: Any, points: Array) -> tuple[Array, Array, Array | None]:
    """Value, control and error bar at points (*shape, d); no bar: None."""
    flat = points.reshape(-1, points.shape[-1])
    lead = points.shape[:-1]
    value = np.asarray(solution.value_at(flat)).reshape(lead)
    read = getattr(solution, "interpolated_control", solution.control_at)
    control = np.asarray(read(flat))
    control = control.reshape(*lead, control.shape[-1])
    bar = None
    if hasattr(solution, "error_at"):
        bar = np.asarray(solution.error_at(flat)).reshape(lead)
    return value, control, bar


def _plot_line(solution: Any, grid: Grid) -> Any:
    x = grid.axes[0]
    value, control, bar = _answers(solution, x[:, None])
    n_panels = 1 + (control.shape[1] > 0) + (bar is not None)
    figure, axes = new_figure(1, n_panels, 4.4 * n_panels, 3.6)
    panels = iter(axes[0])
    panel = next(panels)
    draw_value_line(panel, x, value, bar)
    if control.shape[1]:
        panel = next(panels)
        for i in range(control.shape[1]):
            label = f"$a_{{{i + 1}}}$"
            panel.plot(x, control[:, i], color=LINES[i % len(LINES)], label=label)
        panel.set(title="Control", xlabel="state $x$", ylabel="$a(x)$")
        if control.shape[1] > 1:
            panel.legend()
    if bar is not None:
        panel = next(panels)
        panel.semilogy(x, np.maximum(bar, 1e-300), color=ORANGE)
        panel.set(title="Error bar", xlabel="state $x$", ylabel="bound on $|V - V_h|$")
        panel.set_ylim(_decades(bar))
    for panel in axes[0]:
        shade_outside(panel, grid, solution.region)
    figure.suptitle(_title(solution), x=0.01, ha="left", fontsize=12)
    return figure


def draw_value_line(panel: Any, x: Array, value: Array, bar: Array | None) -> None:
    """V along x, and its error band where it is wide enough to be seen."""
    panel.plot(x, value, color=BLUE, label="$V$", lw=2)
    if bar is not None:
        panel.fill_between(
            x, value - bar, value + bar, color=BLUE, alpha=0.25, lw=0, label="bar"
        )
    panel.set(title="Value", xlabel="state $x$", ylabel="$V(x)$")
    panel.legend(loc="best")


def shade_outside(panel: Any, grid: Grid, region: Box) -> None:
    """Grey where the answer is not meant to hold."""
    low, high = float(np.asarray(region.low)[0]), float(np.asarray(region.high)[0])
    x = grid.axes[0]
    for a, b in ((x[0], low), (high, x[-1])):
        if b - a > 1e-9 * (x[-1] - x[0]):
            panel.axvspan(a, b, color="#F0F1F3", zorder=0, lw=0)
    panel.set_xlim(x[0], x[-1])


def _plot_maps(solution: Any, grid: Grid) -> Any:
    fixed = {k: float(grid.domain.centre[k]) for k in range(2, grid.dimension)}
    mesh = np.meshgrid(*grid.axes[:2], indexing="ij")
    rest = [np.full(mesh[0].shape, fixed[k]) for k in sorted(fixed)]
    value, control, bar = _answers(solution, np.stack([*mesh, *rest], axis=-1))
    maps = [("Value $V$", value, MAP, False)]
    for i in range(control.shape[-1]):
        maps.append((f"Control $a_{{{i + 1}}}$", control[..., i], MAP, False))
    if bar is not None:
        maps.append(("Error bar", bar, ERROR_MAP, True))
    columns = min(len(maps), 4)
    rows = -(-len(maps) // columns)
    figure, axes = new_figure(rows, columns, 3.9 * columns, 3.5 * rows)
    flat = axes.ravel()
    for panel, (title, values, colours, log) in zip(flat, maps, strict=False):
        draw_map(panel, grid.axes[:2], values, title, colours=colours, log=log)
        _outline(panel, solution.region)
    for panel in flat[len(maps) :]:
        panel.set_axis_off()
    where = ", ".join(f"$x_{{{k + 1}}}={c:.3g}$" for k, c in fixed.items())
    title = _title(solution) + (f", slice {where}" if fixed else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure


def draw_map(
    panel: Any,
    axes: Any,
    values: Array,
    title: str,
    *,
    colours: str = MAP,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> None:
    """A colour map of values (n, m) over two axes, with its colour bar.

    `limits` fixes the colours' range, so that two maps can be compared.
    """
    from matplotlib.colors import LogNorm, Normalize

    if log and (values[np.isfinite(values)] > 0).any():
        low, high = _decades(values)
        norm: Any = LogNorm(low, high)
        values = np.clip(values, low, high)
    else:
        norm = Normalize(*limits) if limits else None
    drawn = panel.pcolormesh(
        axes[0], axes[1], values.T, cmap=colours, norm=norm, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    panel.grid(False)
    panel.set(title=title, xlabel="$x_1$", ylabel="$x_2$")
    panel.figure.colorbar(drawn, ax=panel, shrink=0.9)


def _outline(panel: Any, region: Box) -> None:
    low, high = np.asarray(region.low)[:2], np.asarray(region.high)[:2]
    corners = [low, (high[0], low[1]), high, (low[0], high[1]), low]
    panel.plot(*np.array(corners).T, color="white", lw=1.2, ls="--", clip_on=False)


def _decades(values: Array, most: float = 1e9) -> tuple[float, float]:
    """Limits of a logarithmic axis: the positive values, at most nine decades."""
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return 1e-16, 1.0
    high = float(known.max())
    low = max(float(known.min()), high / most)
    return (low, high) if low < high else (0.5 * low, 2 * high)


def _title(solution: Any) -> str:
    problem = getattr(solution, "problem", None)
    name = problem.name if problem is not None and problem.name else "solution"
    grid = getattr(solution, "grid", None)
    shape = " x ".join(map(str, grid.shape)) if isinstance(grid, Grid) else "learned"
    return f"{name} ({shape})"
