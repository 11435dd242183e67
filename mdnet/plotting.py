"""Figures of a run: panels that draw into an Axes, and a report made of them.

Nothing touches pyplot: figures are `matplotlib.figure.Figure` objects, which draw
without a display and keep no global state.  All quantities are in reduced units
(k_B = 1): energies and temperatures share the unit of U.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet import analysis
from mdnet.analysis.records import burn_in_step, frame_count, frame_steps, read, tensors
from mdnet.analysis.results import with_error
from mdnet.errors import MdnetError, PotentialError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mdnet.analysis import KLRelaxation, Temperatures
    from mdnet.typing import Run

__all__ = [
    "COLORS",
    "figure",
    "plot_autocorrelation",
    "plot_energy",
    "plot_kl",
    "plot_layers",
    "plot_predictive",
    "plot_temperatures",
    "report",
    "save",
]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette: told apart with any common colour vision."""
_GREY = "#777777"
_POINTS = 2000
_LINES = 64


def figure(width: float = 7.0, height: float = 4.5) -> Figure:
    """Make an empty figure, inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(fig: Figure, path: str | os.PathLike[str], dpi: int = 150) -> None:
    """Write a figure; the suffix of ``path`` says how (png, pdf, svg)."""
    fig.savefig(path, dpi=dpi)


def _finish(ax: Axes, title: str, x: str, y: str, legend: Any = "best") -> None:
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize=8, loc=legend)


def _note(ax: Axes, title: str, text: str) -> None:
    """Say in place of a panel why it is missing."""
    import textwrap

    ax.set_axis_off()
    ax.set_title(title, loc="left", fontsize=10)
    ax.text(
        0.5,
        0.5,
        "\n".join(textwrap.wrap(text, 42)),
        ha="center",
        va="center",
        color=_GREY,
        fontsize=9,
        transform=ax.transAxes,
    )


def _thin(n: int, most: int = _POINTS) -> slice:
    return slice(None, None, max(1, -(-n // most)))


def plot_energy(ax: Axes, run: Run, burn_in: Any = "auto") -> None:
    """Draw the potential energy against the step: replicas thin, their mean thick.

    Parameters
    ----------
    ax : Axes
    run : Run
        With ``potential_energy``.
    burn_in : "auto", int or float
        What is shaded as burn-in.
    """
    series = read(run, "potential_energy", "plot_energy()")
    start, _ = burn_in_step(run, burn_in)
    rows = _thin(len(series.step))
    step, u = series.step[rows], series.value[rows]
    lines = ax.plot(step, u[:, :_LINES], color=COLORS[5], lw=0.5, alpha=0.6)
    if lines:
        lines[0].set_label(f"{u.shape[1]} replicas")
    ax.plot(step, np.nanmean(u, 1), color=COLORS[0], lw=1.5, label="mean")
    kept = series.since(start).value
    kept = kept[:, np.isfinite(kept).all(0)]
    title = "Potential energy"
    if kept.size:
        level = analysis.mean(kept)
        spread = float(kept.std())
        title = f"Mean U = {level}" + (
            f" after step {start}" if start > step[0] else ""
        )
        positive = np.nanmin(u) > 0
        if positive and np.nanmax(u) - float(level) > 30 * max(spread, 1e-300):
            ax.set_yscale("log")
    if start > step[0]:
        ax.axvspan(step[0], start, color="0.92", lw=0, zorder=0, label="burn-in")
    ax.margins(x=0.01)
    _finish(ax, title, "step", "potential energy U", "best")


def plot_temperatures(ax: Axes, result: Temperatures) -> None:
    """Draw each thermometer, tensor by tensor, with two standard errors.

    Parameters
    ----------
    ax : Axes
    result : Temperatures
        From `mdnet.analysis.temperatures`.  The band is its tolerance.
    """
    labels = [*result.layers, "all"]
    x = np.arange(len(labels), dtype=float)
    markers = {"kinetic": "o", "configurational": "s", "virial": "^"}
    colors = dict(zip(markers, COLORS, strict=False))
    if np.isfinite(result.target):
        ax.axhline(result.target, color="0.35", lw=0.9, zorder=1)
        band = result.tolerance * result.target
        ax.axhspan(
            result.target - band,
            result.target + band,
            color="0.88",
            lw=0,
            zorder=0,
            label=f"target ± {result.tolerance:.0%}",
        )
    for i, one in enumerate(result.thermometers):
        value = np.full(len(labels), np.nan)
        error = np.full(len(labels), np.nan)
        if one.layer is not None:
            value[:-1], error[:-1] = one.layer.value, one.layer.stderr
        value[-1], error[-1] = one.total.value, one.total.stderr
        ax.errorbar(
            x + 0.2 * (i - (len(result.thermometers) - 1) / 2),
            value,
            2 * np.nan_to_num(error),
            fmt=markers[one.name],
            ms=5,
            capsize=2,
            lw=1.1,
            color=colors[one.name],
            label=one.name,
        )
    if len(labels) > 1:
        ax.axvline(len(labels) - 1.5, color="0.8", lw=0.8, zorder=0)
    slanted = sum(map(len, labels)) > 32
    ax.set_xticks(
        x, labels, rotation=35 if slanted else 0, ha="right" if slanted else "center"
    )
    ax.set_xlim(-0.6, len(labels) - 0.4)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.28 * (high - low))
    unit = "T / target" if result.relative else "temperature (units of U, k_B = 1)"
    _finish(ax, result.finding, "", unit, None)
    ax.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)


def plot_kl(
    ax: Axes, result: KLRelaxation, exact: tuple[Any, Any] | None = None
) -> None:
    """Draw the divergence from equilibrium against time.

    Parameters
    ----------
    ax : Axes
    result : KLRelaxation
        From `mdnet.analysis.kl_relaxation`; the band is two standard errors.
    exact : (times, values), optional
        A curve to compare with.
    """
    t, d, e = result.times, result.value, np.nan_to_num(result.stderr)
    floor = 2 * float(np.median(e[-max(1, len(e) // 4) :]))
    log = np.max(d) > 8 * max(floor, 1e-12)
    label = "lower bound" if result.lower_bound else "estimate"
    bottom = max(floor / 4, 1e-6 * float(np.max(d))) if log else -np.inf
    low, high = np.maximum(d - 2 * e, bottom), np.maximum(d + 2 * e, bottom)
    ax.fill_between(t, low, high, color=COLORS[5], alpha=0.35, lw=0)
    marks = "o-" if len(t) <= 40 else "-"
    ax.plot(
        t, np.maximum(d, bottom), marks, color=COLORS[0], ms=3.5, lw=1.2, label=label
    )
    if exact is not None:
        ax.plot(*exact, "--", color="0.2", lw=1.2, label="exact")
    if floor > 0:
        ax.axhspan(
            floor / 1e3 if log else -floor,
            floor,
            color="0.92",
            lw=0,
            zorder=0,
            label="zero within the noise",
        )
    if log:
        ax.set_yscale("log")
        ax.set_ylim(bottom, 2.5 * float(np.max(d + 2 * e)))
    # Three rows in a row within two errors of zero: one of them may be chance.
    inside = d <= 2 * e
    runs = inside[:-2] & inside[1:-1] & inside[2:]
    if not runs.any():
        title = "Not yet in equilibrium"
    elif runs[0]:
        title = "No distance from equilibrium beyond the noise"
    else:
        title = f"Within the noise of equilibrium from t = {t[np.argmax(runs)]:.3g}"
    _finish(ax, title, "time", f"KL divergence (nats), {result.method}", "upper right")


def plot_autocorrelation(ax: Axes, run: Run, burn_in: Any = "auto") -> None:
    """Draw the autocorrelation of U and of the kinetic temperature, with times.

    Parameters
    ----------
    ax : Axes
    run : Run
        With ``potential_energy`` or ``kinetic_temperature``.
    burn_in : "auto", int or float
    """
    names = {"potential_energy": "U", "kinetic_temperature": "kinetic T"}
    start, _ = burn_in_step(run, burn_in)
    reach, slowest = 0.0, ("", 0.0)
    drawn: list[tuple[Any, Any, str, int]] = []
    for i, (name, label) in enumerate(names.items()):
        if name not in run:
            continue
        series = read(run, name).since(start)
        value = series.value[:, np.isfinite(series.value).all(0)]
        if value.shape[0] < 8 or not value.size:
            continue
        gap = float(np.median(np.diff(series.step)))
        chains = value.T
        tau = analysis.autocorrelation_time(chains)
        rho = analysis.autocorrelation(chains)
        steps = float(tau) * gap
        text = f"{label}: τ = {with_error(steps, tau.stderr * gap)} steps"
        drawn.append((np.arange(len(rho)) * gap, rho, text, i))
        reach = max(reach, min(6 * max(steps, 2 * gap), gap * (len(rho) - 1)))
        slowest = max(slowest, (label, steps), key=lambda pair: pair[1])
    if not drawn:
        _note(ax, "Autocorrelation", "too few records of U or T after the burn-in")
        return
    for lag, rho, text, i in drawn:
        inside = lag <= reach
        ax.plot(lag[inside], rho[inside], color=COLORS[i], lw=1.4, label=text)
    ax.axhline(0, color="0.6", lw=0.8, zorder=0)
    ax.set_xlim(0, reach)
    ax.set_ylim(min(-0.1, ax.get_ylim()[0]), 1.05)
    title = f"{slowest[0]} decorrelates in {slowest[1]:.3g} steps"
    _finish(ax, title, "lag (steps)", "autocorrelation", "upper right")


def plot_layers(ax: Axes, run: Run, most: int = 8) -> None:
    """Draw the root-mean-square weight of each tensor against the step.

    Without stored positions, the kinetic temperature of each tensor.

    Parameters
    ----------
    ax : Axes
    run : Run
    most : int
        Tensors drawn, the largest first.
    """
    stored = frame_count(run) >= 2
    sizes = tensors(run)
    names = list(run.layout) if stored else list(sizes)
    chosen = sorted(sorted(names, key=lambda n: -sizes[n])[:most], key=names.index)
    if stored:
        count, steps, positions = frame_count(run), frame_steps(run), run.positions
        rows = np.unique(np.linspace(0, count - 1, min(count, 200)).astype(int))
        x = rows if steps is None else steps[0][rows]
        norms = np.empty((len(rows), len(chosen)))
        for i, row in enumerate(rows):
            frame = np.asarray(positions[int(row)], np.float64)
            for j, name in enumerate(chosen):
                norms[i, j] = np.sqrt(np.mean(frame[:, run.layout[name][0]] ** 2))
        y, label = norms, "root-mean-square weight"
        change = np.abs(norms[-1] / np.where(norms[0] > 0, norms[0], np.nan) - 1)
        finite = np.where(np.isfinite(change), change, -1.0)
        title = f"{chosen[int(np.argmax(finite))]} moved most: {finite.max():.0%}"
    elif "layer_kinetic_temperature" in run:
        series = read(run, "layer_kinetic_temperature")
        pick = [names.index(n) for n in chosen]
        parts = np.array_split(np.arange(len(series.step)), min(60, len(series.step)))
        x = np.array([series.step[part].mean() for part in parts])
        y = np.array([series.value[part].mean((0, 1))[pick] for part in parts])
        label, title = "kinetic temperature", "Kinetic temperature of each tensor"
    else:
        _note(ax, "Tensors", "neither positions nor layer temperatures were stored")
        return
    for j, name in enumerate(chosen):
        style = "-" if j < len(COLORS) else "--"
        ax.plot(x, y[:, j], style, color=COLORS[j % len(COLORS)], lw=1.2, label=name)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.12 * (-(-len(chosen) // 3)) * (high - low))
    ax.margins(x=0.01)
    _finish(ax, title, "step", label, None)
    ax.legend(frameon=False, fontsize=7, loc="upper center", ncols=3)


def plot_predictive(
    target: Any,
    images: Any,
    probabilities: Any,
    std: Any = None,
    labels: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Draw images in a row, each above its predicted probabilities with error bars.

    Parameters
    ----------
    target : Figure, SubFigure, or (2, n) array of Axes
    images : (n, height, width) array
    probabilities, std : (n, classes) arrays
        Mean over draws and spread, as in `mdnet.analysis.predictive`.
    labels : sequence of int, optional
        True classes: the bar is green, and the title says whether it was found.
    names : sequence of str, optional
        Names of the classes.

    Raises
    ------
    PotentialError
        If the lengths differ.
    """
    pictures, p = np.asarray(images), np.asarray(probabilities)
    n = len(pictures)
    spread = np.zeros_like(p) if std is None else np.asarray(std)
    if p.ndim != 2 or len(p) != n or spread.shape != p.shape:
        raise PotentialError(
            f"images {pictures.shape}, probabilities {p.shape}, std {spread.shape}: "
            "expected (n, height, width), (n, classes) and (n, classes)"
        )
    if labels is not None and len(labels) != n:
        raise PotentialError(f"{len(labels)} labels for {n} images")
    if hasattr(target, "subplots"):
        axes = target.subplots(
            2, n, squeeze=False, sharey="row", gridspec_kw={"height_ratios": [1, 1.1]}
        )
    else:
        axes = np.asarray(target).reshape(2, n)
    classes = np.arange(p.shape[1])
    text = [str(c) for c in classes] if names is None else list(names)
    for i in range(n):
        top, below = axes[:, i]
        top.imshow(pictures[i], cmap="gray_r", interpolation="nearest")
        top.set_axis_off()
        guess = int(np.argmax(p[i]))
        colors = [COLORS[5]] * len(classes)
        title = f"{text[guess]} ({p[i, guess]:.0%})"
        if labels is not None:
            colors[int(labels[i])] = COLORS[2]
            if guess != labels[i]:
                colors[guess] = COLORS[1]
                title += f", is {text[int(labels[i])]}"
        top.set_title(title, fontsize=9)
        # A probability cannot leave [0, 1], whatever the spread.
        below_bar = np.minimum(spread[i], p[i])
        above_bar = np.minimum(spread[i], 1 - p[i])
        below.bar(
            classes,
            p[i],
            yerr=np.maximum([below_bar, above_bar], 0),
            color=colors,
            error_kw={"lw": 0.9, "capsize": 1.5, "ecolor": "0.25"},
        )
        below.set_ylim(0, 1.05)
        below.set_xticks(classes, text, fontsize=7)
        for side in ("top", "right"):
            below.spines[side].set_visible(False)
        if i == 0:
            below.set_ylabel("probability ± spread", fontsize=8)
        below.tick_params(axis="y", labelsize=7)


def _heading(run: Run) -> str:
    settings = run.config.get("integrator") or {}
    name = settings.get("name") or settings.get("word")
    parts = [f"{run.size:,} weights", f"{run.replicas} replicas"]
    if name:
        parts.insert(0, str(name))
    for key, symbol in (("dt", "dt"), ("temperature", "T"), ("friction", "friction")):
        value = settings.get(key)
        if isinstance(value, (int, float)):
            parts.append(f"{symbol} = {value:g}")
    return ", ".join(parts)


def _divergence(run: Run, potential: Any, inputs: Any) -> KLRelaxation:
    """Divergence in function space where inputs are at hand, else of weights or U."""
    if potential is not None and inputs is not None and frame_count(run) > 1:
        return analysis.kl_relaxation(run, potential=potential, inputs=inputs)
    if frame_count(run) > 1:
        return analysis.kl_relaxation(run)
    return analysis.kl_relaxation(run, projection="energy")


def report(
    run: Run,
    path: str | os.PathLike[str],
    potential: Any = None,
    inputs: Any = None,
    burn_in: Any = "auto",
) -> Figure:
    """Draw a run on one page and save it.

    Energy, autocorrelation, thermometers, divergence from equilibrium, and the
    tensors; a panel without its data says what to record.

    Parameters
    ----------
    run : Run
    path : path
        Suffix png, pdf or svg.
    potential, inputs : Potential and (n, ...) array, optional
        With both, the divergence is measured between predictions on ``inputs``.
    burn_in : "auto", int or float
        For energy, autocorrelation and temperatures.

    Returns
    -------
    Figure
        Already saved.

    Examples
    --------
    >>> mdnet.plotting.report(run, "report.png")                  # doctest: +SKIP
    """
    fig = figure(13.5, 8.0)
    fig.suptitle(_heading(run), x=0.01, ha="left", fontsize=12, fontweight="bold")
    grid = fig.add_gridspec(2, 3)

    def temperature_panel(ax: Axes) -> None:
        plot_temperatures(ax, analysis.temperatures(run, burn_in))

    panels = (
        ("Potential energy", grid[0, :2], lambda ax: plot_energy(ax, run, burn_in)),
        (
            "Autocorrelation",
            grid[0, 2],
            lambda ax: plot_autocorrelation(ax, run, burn_in),
        ),
        ("Temperatures", grid[1, 0], temperature_panel),
        (
            "Relaxation",
            grid[1, 1],
            lambda ax: plot_kl(ax, _divergence(run, potential, inputs)),
        ),
        ("Tensors", grid[1, 2], lambda ax: plot_layers(ax, run)),
    )
    for title, place, draw in panels:
        ax = fig.add_subplot(place)
        try:
            draw(ax)
        except MdnetError as error:
            ax.clear()
            _note(ax, title, str(error))
    save(fig, path)
    return fig
