"""Rates with their intervals: N-way one-shot, identification, folds, cohorts, and losses compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from training.pictures.style import (
    BLACK,
    GREY,
    colour,
    dashes,
    legend_label,
    marker,
    percent,
    percent_axis,
    shortened,
    styled,
)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """Rates along an axis.

    Attributes:
        value: float64[K], shares from 0 to 1.
        lower: float64[K], the lower ends of their intervals; None when not known.
        upper: float64[K], the upper ends.
    """

    value: FloatArray
    lower: FloatArray | None = None
    upper: FloatArray | None = None


class Estimate(NamedTuple):
    """One rate with its interval, and what it is the mean of.

    Attributes:
        value: Share from 0 to 1.
        lower: The lower end of its interval; None when not known.
        upper: The upper end.
        runs: The same of each seed.
    """

    value: float
    lower: float | None = None
    upper: float | None = None
    runs: tuple[float, ...] = ()


class Span(NamedTuple):
    """A rate that may be withheld, with its interval.

    Attributes:
        value: Share from 0 to 1; None where only the interval is known.
        lower: The lower end of its interval; None when not known.
        upper: The upper end.
    """

    value: float | None
    lower: float | None
    upper: float | None


@styled
def oneshot_curve(ways: NDArray[np.integer], accuracy: Mapping[str, Series]) -> Figure:
    """Plot one-shot accuracy over the number of classes to choose from, with chance.

    Args:
        ways: int[K], N of N-way.
        accuracy: By name, such as the model and the pixels' nearest neighbour; K values each.
    """
    figure = Figure(figsize=(5.8, 4.6), layout="constrained")
    axes = figure.subplots()
    _series(axes, ways, accuracy)
    axes.plot(ways, 1.0 / np.asarray(ways), color=GREY, linestyle=(0, (1, 2)), label="chance (1 / N)")
    axes.set(
        xlabel="N, classes to choose from",
        ylabel="right among N",
        title="One-shot classification, N-way",
        ylim=(0.0, 1.03),
    )
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    percent_axis(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=2)
    return figure


@styled
def cmc_curve(ranks: NDArray[np.integer], rates: Mapping[str, Series]) -> Figure:
    """Plot the share of searches whose reference is among the first R (cumulative match characteristic).

    Args:
        ranks: int[K], R, rising.
        rates: By name; K values each.
    """
    figure = Figure(figsize=(5.8, 4.6), layout="constrained")
    axes = figure.subplots()
    _series(axes, ranks, rates)
    lowest = min(
        (float((s.value if s.lower is None else s.lower).min()) for s in rates.values()), default=0.0
    )
    bottom = max(0.0, lowest - 0.1 * (1.0 - lowest) - 0.005)
    axes.set(
        xlabel="rank R",
        ylabel="reference within rank R",
        title="Identification by rank (CMC)",
        ylim=(bottom, 1.0 + 0.04 * (1.0 - bottom)),
    )
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    percent_axis(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=2)
    return figure


@styled
def rates_over_threshold(
    threshold: FloatArray, rates: Mapping[str, Series], marks: Mapping[str, float] | None = None
) -> Figure:
    """Plot rates over the threshold, on a logarithmic axis.

    Args:
        threshold: float64[K], rising.
        rates: By name, such as FPIR and FNIR; K values each.
        marks: Thresholds to draw, by name.
    """
    figure = Figure(figsize=(5.8, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.set_yscale("log")
    above = [series.value[series.value > 0.0] for series in rates.values()]
    lowest = min((float(values.min()) for values in above if values.size), default=0.01)
    bottom = 10.0 ** np.floor(np.log10(min(lowest, 0.1)))
    for index, (name, series) in enumerate(rates.items()):
        # A rate of zero has no place on this axis; its line ends at the lower edge.
        drawn = np.maximum(series.value, bottom / 10.0)
        label = legend_label(name, 34)
        axes.plot(threshold, drawn, color=colour(index), linestyle=dashes(index), label=label)
        if series.lower is not None and series.upper is not None:
            ends = (np.maximum(series.lower, bottom / 10.0), np.maximum(series.upper, bottom / 10.0))
            axes.fill_between(threshold, *ends, color=colour(index), alpha=0.15, linewidth=0)
    for index, (name, mark) in enumerate(sorted((marks or {}).items(), key=lambda item: item[1])):
        label = f"{legend_label(name, 24)}: {mark:.4g}"
        axes.axvline(mark, color=BLACK, linewidth=1.2, linestyle=dashes(index + 1), label=label)
    axes.set(
        xlabel="threshold",
        ylabel="share of searches",
        title="Error rates over the threshold",
        ylim=(bottom, 1.25),
    )
    axes.yaxis.set_major_locator(FixedLocator([10.0**decade for decade in range(int(np.log10(bottom)), 1)]))
    axes.yaxis.set_minor_locator(NullLocator())
    percent_axis(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2)
    return figure


@styled
def fold_accuracies(accuracy: FloatArray, mean: float, deviation: float) -> Figure:
    """Plot the accuracy of each fold, with their mean and standard deviation.

    Args:
        accuracy: float64[F], shares from 0 to 1.
        mean: Of the folds.
        deviation: Standard deviation of the folds.
    """
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    axes = figure.subplots()
    folds = np.arange(1, accuracy.size + 1)
    axes.axhspan(mean - deviation, min(1.0, mean + deviation), color=colour(0), alpha=0.12, linewidth=0)
    axes.axhline(mean, color=colour(0), linewidth=1.2, label=f"mean {percent(mean)}")
    axes.plot(folds, accuracy, "o", color=colour(0), markersize=7, label="a fold")
    lowest = min(float(accuracy.min()), mean - deviation)
    bottom = max(0.0, lowest - 0.15 * (1.0 - lowest) - 0.002)
    axes.set(
        xlabel="fold",
        ylabel="right decisions",
        title="Accuracy by fold",
        xlim=(0.5, folds.size + 0.5),
        ylim=(bottom, 1.0 + 0.08 * (1.0 - bottom)),
    )
    axes.set_xticks(folds)
    percent_axis(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


@styled
def rate_intervals(measures: Mapping[str, Mapping[str, Span]]) -> Figure:
    """Show rates with their intervals beside one another: one panel a measure, one row a name.

    Args:
        measures: By name of the measure, then by name of what was measured; all have the same names. The
            intervals of rates that are there fit their panel; a longer one of a withheld rate ends in an
            arrow.
    """
    names = list(next(iter(measures.values()), {}))
    size = (2.0 + 2.6 * max(1, len(measures)), 0.42 * max(1, len(names)) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, max(1, len(measures)), sharey=True, squeeze=False)[0]
    for axes, (measure, spans) in zip(panels, measures.items(), strict=False):
        axes.set_title(shortened(measure, 32), fontsize=9.5)
        axes.grid(visible=False, axis="y")
        reach = _reach(list(spans.values()))
        for row, name in enumerate(names):
            span = spans[name]
            if span.lower is not None and span.upper is not None:
                ends = [min(span.lower, reach), min(span.upper, reach)]
                axes.plot(ends, [row, row], color=colour(0), linewidth=2.4, alpha=0.55)
                if span.upper > reach:
                    axes.plot(reach, row, ">", color=colour(0), markersize=6.0, alpha=0.55, clip_on=False)
            if span.value is not None:
                axes.plot(span.value, row, "o", color=colour(0), markersize=6.5, clip_on=False, zorder=3)
        axes.set_xlim(0.0, reach)
        axes.margins(y=0.5 / max(1, len(names)))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        percent_axis(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [shortened(name, 30) for name in names])
    panels[0].invert_yaxis()
    return figure


@styled
def comparison_bars(measures: Mapping[str, Mapping[str, Estimate]], *, title: str = "") -> Figure:
    """Compare ways to train, as bars with error bars: one panel a measure, one row a way.

    Args:
        measures: By name of the measure, then by name of the way to train; all measures have the same ways.
            ``runs`` are drawn as dots.
        title: Above all.
    """
    ways = list(next(iter(measures.values()), {}))
    figure = Figure(figsize=(2.2 + 2.7 * len(measures), 0.42 * len(ways) + 1.3), layout="constrained")
    if title:
        figure.suptitle(shortened(title, 80), x=0.01, ha="left")
    panels = figure.subplots(1, max(1, len(measures)), sharey=True, squeeze=False)[0]
    for axes, (measure, estimates) in zip(panels, measures.items(), strict=False):
        axes.set_title(shortened(measure, 32), fontsize=9.5)
        _bars(axes, [estimates[way] for way in ways])
    panels[0].set_yticks(range(len(ways)), [shortened(way, 34) for way in ways])
    panels[0].invert_yaxis()
    return figure


def _reach(spans: list[Span]) -> float:
    """Return the end of a panel's axis."""
    known = [span for span in spans if span.value is not None] or spans
    ends = (max(span.value or 0.0, span.upper or 0.0) for span in known)
    return min(1.0, 1.08 * max(ends, default=1.0)) or 1.0


def _series(axes: Axes, along: NDArray[np.integer], curves: Mapping[str, Series]) -> None:
    for index, (name, series) in enumerate(curves.items()):
        axes.plot(
            along,
            series.value,
            color=colour(index),
            linestyle=dashes(index),
            marker=marker(index),
            markersize=4.5,
            label=legend_label(name, 34),
        )
        if series.lower is not None and series.upper is not None:
            axes.fill_between(along, series.lower, series.upper, color=colour(index), alpha=0.18, linewidth=0)


def _bars(axes: Axes, estimates: list[Estimate]) -> None:
    axes.grid(visible=False, axis="y")
    reach = max((max(e.value, e.upper or 0.0, *e.runs, 0.0) for e in estimates), default=1.0) or 1.0
    for row, estimate in enumerate(estimates):
        axes.barh(row, estimate.value, height=0.62, color=colour(0), alpha=0.55)
        end = max(estimate.value, estimate.upper or 0.0, *estimate.runs, 0.0)
        if estimate.lower is not None and estimate.upper is not None:
            error = [[max(0.0, estimate.value - estimate.lower)], [max(0.0, estimate.upper - estimate.value)]]
            axes.errorbar(estimate.value, row, xerr=error, color=BLACK, capsize=3.0, linewidth=1.2)
        axes.plot(estimate.runs, [row] * len(estimate.runs), "o", color=BLACK, markersize=3.0, alpha=0.6)
        axes.annotate(
            percent(estimate.value), (end, row), (5, 0), textcoords="offset points", va="center", fontsize=8.0
        )
    axes.set_xlim(0.0, reach * 1.3)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes, "x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
