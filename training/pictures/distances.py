"""Distances of mated and non-mated trials: histograms, DET and ROC curves, matrices.

FMR(t) is the share of non-mated trials with a distance of at most t, FNMR(t) the share of mated trials above
t (ISO/IEC 19795-1). Trials without a distance (infinity) are left out, as rates of comparisons are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import NDArray

from training.evaluation.intervals import (
    mated_weights,
    nonmated_weights,
    resample_subjects,
    resampled_interval,
)
from training.evaluation.verification import SEED, Trials
from training.pictures.style import (
    BLACK,
    GREY,
    MATED,
    NONMATED,
    colour,
    dashes,
    legend_label,
    marker,
    percent,
    percent_axis,
    percent_tick,
    shortened,
    styled,
)

FloatArray = NDArray[np.float64]

POINTS: Final = 2000
"""Points of a curve at most: more cannot be seen."""

_BAND_POINTS: Final = 250
"""Intervals along a curve at most."""

_TRIAL_RATES: Final = (("FMR", "false match rate"), ("FNMR", "false non-match rate"))
_SEARCH_RATES: Final = (
    ("FPIR", "false positive identification rate"),
    ("FNIR", "false negative identification rate"),
)

_TICKS: Final = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)
_SMALLEST: Final = 1e-7
"""A rate of zero has no place on these axes; it is drawn here, outside of what is shown."""


@dataclass(frozen=True, eq=False)
class Band:
    """95 % intervals of FNMR at rising FMR.

    Attributes:
        fmr: float64[B], rising; each interval holds up to the next.
        lower: float64[B].
        upper: float64[B].
    """

    fmr: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """Both error rates at rising thresholds.

    Attributes:
        threshold: float64[T], from below every distance to the largest.
        fmr: float64[T], rising.
        fnmr: float64[T], falling.
        mated: Trials of mated pairs that were compared.
        nonmated: Trials of non-mated pairs that were compared.
        band: Intervals of FNMR; None when not known.
    """

    threshold: FloatArray
    fmr: FloatArray
    fnmr: FloatArray
    mated: int
    nonmated: int
    band: Band | None = None

    @property
    def eer(self) -> float:
        """Where the two rates are equal, on the straight line between the points next to it."""
        after = int(np.argmax(self.fmr >= self.fnmr))
        gaps = self.fnmr[after - 1 : after + 1] - self.fmr[after - 1 : after + 1]
        return float(self.fmr[after - 1] + gaps[0] / (gaps[0] - gaps[1]) * np.diff(self.fmr)[after - 1])


def error_curve(mated: FloatArray, nonmated: FloatArray, *, nonmated_total: int | None = None) -> ErrorCurve:
    """Measure FMR and FNMR at every distance there is, or at ``POINTS`` of them.

    Args:
        mated: float64[M], distances of mated trials in any order, at least one finite.
        nonmated: float64[K], of non-mated trials.
        nonmated_total: When ``nonmated`` holds only the closest of these. The curve then ends at the largest
            distance up to which all are known.

    Raises:
        ValueError: One kind has no finite distance.
    """
    mated, nonmated = (np.sort(kind[np.isfinite(kind)]) for kind in (mated, nonmated))
    if not (mated.size and nonmated.size):
        raise ValueError("an error curve takes distances of mated and of non-mated trials")
    total = nonmated.size if nonmated_total is None else nonmated_total
    seen = np.unique(np.concatenate([mated, nonmated]))
    if total > nonmated.size:
        seen = seen[seen <= nonmated[-1]]
    threshold = np.concatenate([[np.nextafter(seen[0], -np.inf)], seen])
    fmr = np.searchsorted(nonmated, threshold, side="right") / total
    fnmr = 1.0 - np.searchsorted(mated, threshold, side="right") / mated.size
    kept = _spread(fmr, fnmr)
    return ErrorCurve(threshold[kept], fmr[kept], fnmr[kept], mated.size, total)


def curve_of_trials(trials: Trials, *, resamples: int = 300, seed: int = SEED) -> ErrorCurve:
    """Measure FMR and FNMR with intervals, as ``visavis evaluate verification`` measures them.

    The band says what FNMR is at a given FMR: its threshold is chosen anew in each resample of the subjects.
    Where all mated trials match or none does, the curve is outside of the picture, and there is no band.

    Args:
        trials: Of both kinds some compared.
        resamples: How often the subjects are resampled.
        seed: Of the resampling.
    """
    order = np.argsort(trials.distance)[: np.count_nonzero(trials.compared)]
    mated, nonmated = (order[trials.mated[order] == kind] for kind in (True, False))
    curve = error_curve(trials.distance[mated], trials.distance[nonmated])
    # The last point of each FMR is the highest threshold with it, so the one with the lowest FNMR.
    drawn = np.r_[np.diff(curve.fmr) > 0.0, True] & (curve.fnmr > 0.0) & (curve.fnmr < 1.0)
    at: NDArray[np.intp] = np.flatnonzero(drawn)
    if not at.size:
        return curve
    at = at[np.unique(np.linspace(0, at.size - 1, _BAND_POINTS).astype(np.intp))]
    thresholds = np.concatenate([[-np.inf], np.unique(trials.distance[order])])
    matched, false_matches = (
        np.searchsorted(trials.distance[kind], thresholds, side="right") for kind in (mated, nonmated)
    )
    rng = np.random.default_rng(seed)
    fnmr = []
    for _ in range(resamples):
        counts = resample_subjects(rng, int(trials.subjects.max()) + 1, 1)
        true = mated_weights(counts, trials.subjects[mated, 0])[0]
        false = nonmated_weights(counts, trials.subjects[nonmated])[0]
        # With few subjects a resample can miss one kind of trial altogether; it then tells nothing.
        if true.any() and false.any():
            fmr = np.r_[0, np.cumsum(false)][false_matches] / false.sum()
            allowed = np.searchsorted(fmr, curve.fmr[at], side="right") - 1
            fnmr.append(1.0 - np.r_[0, np.cumsum(true)][matched[allowed]] / true.sum())
    resampled = np.array(fnmr).reshape(-1, at.size).T
    independent = int(np.unique(trials.subjects[mated, 0]).size)
    ends = [
        resampled_interval(rate, measured, trials=mated.size, independent=independent)
        for rate, measured in zip(curve.fnmr[at].tolist(), resampled, strict=True)
    ]
    lower, upper = np.array(ends).T
    return replace(curve, band=Band(curve.fmr[at], lower, upper))


@styled
def distance_histogram(
    mated: FloatArray,
    nonmated: FloatArray,
    *,
    thresholds: Mapping[str, float] | None = None,
    bins: int = 60,
    unit: str = "distance",
) -> Figure:
    """Plot how the distances of both kinds of trials are spread, with the thresholds between them.

    Args:
        mated: float64[M], distances; infinite ones are counted in the legend only.
        nonmated: float64[K], distances of all non-mated trials.
        thresholds: By name of the operating point, in the unit of the distances.
        bins: Over the range of all distances.
        unit: Name of the horizontal axis.
    """
    kinds = [kind[np.isfinite(kind)] for kind in (mated, nonmated)]
    edges = np.histogram_bin_edges(np.concatenate(kinds), bins)
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    axes = figure.subplots()
    looks = (("mated", MATED, mated, "-"), ("non-mated", NONMATED, nonmated, "--"))
    for kind, (name, hue, every, dash) in zip(kinds, looks, strict=True):
        share = np.histogram(kind, edges)[0] / max(kind.size, 1)
        label = f"{name}: {kind.size:,} trials" + _failed(every.size - kind.size)
        axes.stairs(share, edges, fill=True, color=hue, alpha=0.25, label=label)
        axes.stairs(share, edges, color=hue, linewidth=1.6, linestyle=dash)
    axes.set(xlabel=f"{shortened(unit, 60)} (smaller is closer)", ylabel="share of trials", title="Distances")
    axes.margins(y=0.04)
    axes.set_ylim(bottom=0.0)
    percent_axis(axes, "y")
    for index, (name, threshold) in enumerate(sorted((thresholds or {}).items(), key=lambda item: item[1])):
        label = f"{legend_label(name, 32)}: threshold {threshold:.4g}"
        axes.axvline(threshold, color=BLACK, linewidth=1.3, linestyle=dashes(index + 1), label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=3)
    return figure


@styled
def det_curve(
    curves: Mapping[str, ErrorCurve],
    *,
    points: Mapping[str, tuple[float, float]] | None = None,
    searches: bool = False,
) -> Figure:
    """Plot FNMR against FMR on normal-deviate axes, on which normally distributed scores give a line.

    Args:
        curves: By name. A curve with an interval of its FNMR has it as a band.
        points: (FMR, FNMR) of operating points, by name.
        searches: The rates are of identification: FPIR in the place of FMR, FNIR in that of FNMR.

    Source: Martin et al. (1997), "The DET curve in assessment of detection task performance".
    """
    along, up = _SEARCH_RATES if searches else _TRIAL_RATES
    figure = Figure(figsize=(5.8, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("function", functions=(_deviate, _share))
    axes.set_yscale("function", functions=(_deviate, _share))
    for index, (name, curve) in enumerate(curves.items()):
        label = (
            f"{legend_label(name, 30)} ({'equal at' if searches else 'EER'} {percent(curve.eer)})"
            if _reaches_eer(curve)
            else legend_label(name, 30)
        )
        axes.plot(curve.fmr, curve.fnmr, color=colour(index), linestyle=dashes(index), label=label)
        if curve.band is not None:
            ends = (curve.band.lower, curve.band.upper)
            axes.fill_between(
                curve.band.fmr, *ends, step="post", color=colour(index), alpha=0.15, linewidth=0
            )
    _operating_points(axes, points or {})
    x_limits = _limits(
        [curve.fmr for curve in curves.values()], [curve.nonmated for curve in curves.values()]
    )
    y_limits = _limits([curve.fnmr for curve in curves.values()], [curve.mated for curve in curves.values()])
    equal = (max(x_limits[0], y_limits[0]), min(x_limits[1], y_limits[1]))
    if equal[0] < equal[1]:
        axes.plot(
            equal, equal, color=GREY, linewidth=1.0, linestyle=(0, (1, 3)), label=f"{along[0]} = {up[0]}"
        )
    for axis, limits in ((axes.xaxis, x_limits), (axes.yaxis, y_limits)):
        ticks = [tick for tick in _TICKS if limits[0] <= tick <= limits[1]]
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FixedFormatter([percent_tick(tick) for tick in ticks]))
        axis.set_minor_locator(NullLocator())
    axes.set(
        xlim=x_limits,
        ylim=y_limits,
        xlabel=f"{along[1]} ({along[0]})",
        ylabel=f"{up[1]} ({up[0]})",
        title="Detection error trade-off",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2)
    return figure


@styled
def roc_curve(
    curves: Mapping[str, ErrorCurve], *, points: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """Plot the share of mated trials that match, 1 - FNMR, against FMR on a logarithmic axis.

    Args:
        curves: By name. A curve with an interval of its FNMR has it as a band.
        points: (FMR, FNMR) of operating points, by name.
    """
    figure = Figure(figsize=(5.8, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(
            curve.fmr,
            1.0 - curve.fnmr,
            color=colour(index),
            linestyle=dashes(index),
            label=legend_label(name, 30),
        )
        if curve.band is not None:
            ends = (1.0 - curve.band.upper, 1.0 - curve.band.lower)
            axes.fill_between(
                curve.band.fmr, *ends, step="post", color=colour(index), alpha=0.15, linewidth=0
            )
    _operating_points(axes, {name: (fmr, 1.0 - fnmr) for name, (fmr, fnmr) in (points or {}).items()})
    trials = max((curve.nonmated for curve in curves.values()), default=1000)
    smallest = min(max(1.0 / trials, 1e-6), 0.1)
    decades = np.arange(np.floor(np.log10(smallest)), 1.0)
    shown = [(1.0 - curve.fnmr)[curve.fmr >= smallest] for curve in curves.values()]
    lowest = min((float(rates.min()) for rates in shown if rates.size), default=0.0)
    axes.xaxis.set_major_locator(FixedLocator([10.0**decade for decade in decades]))
    axes.xaxis.set_minor_locator(NullLocator())
    percent_axis(axes, "x")
    percent_axis(axes, "y")
    bottom = max(0.0, lowest - 0.06 * (1.0 - lowest) - 0.002)
    axes.set(
        xlim=(10.0 ** decades[0], 1.0),
        ylim=(bottom, 1.0 + 0.03 * (1.0 - bottom)),
        xlabel="false match rate (FMR)",
        ylabel="mated trials that match (1 - FNMR)",
        title="Receiver operating characteristic",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2)
    return figure


@styled
def distance_matrix(
    distance: FloatArray, labels: NDArray[np.integer], subjects: Sequence[str], *, quantity: str = "distance"
) -> Figure:
    """Plot all distances as a heat map, with the samples ordered by subject.

    Args:
        distance: float64[N, N].
        labels: int[N], the subject of each sample, a position in ``subjects``.
        subjects: Their names.
        quantity: What the colour bar says; "similarity" where larger is closer.
    """
    order = np.argsort(labels, kind="stable")
    figure = Figure(figsize=(6.8, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=False)
    picture = axes.imshow(distance[np.ix_(order, order)], cmap="viridis", interpolation="nearest")
    ordered = labels[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    for start in starts[1:]:
        axes.axhline(start - 0.5, color="white", linewidth=0.8)
        axes.axvline(start - 0.5, color="white", linewidth=0.8)
    ends = np.r_[starts[1:], ordered.size]
    if starts.size <= 30:
        names = [shortened(subjects[ordered[start]], 18) for start in starts]
        middles = (starts + ends - 1) / 2.0
        axes.set_xticks(middles, names, rotation=90)
        axes.set_yticks(middles, names)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set(xlabel=f"samples of {starts.size} subjects, in their order")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{shortened(quantity, 30).capitalize()} between samples, ordered by subject")
    bar = figure.colorbar(picture, ax=axes, shrink=0.85, label=shortened(quantity, 30))
    bar.outline.set_visible(False)
    return figure


def _failed(count: int) -> str:
    return f" ({count:,} more could not be compared)" if count else ""


def _spread(fmr: FloatArray, fnmr: FloatArray) -> NDArray[np.intp]:
    """Return positions of at most ``POINTS`` points, evenly along the curve as it is drawn."""
    if fmr.size <= POINTS:
        return np.arange(fmr.size)
    logit = [np.log(rate / (1.0 - rate)) for rate in np.clip([fmr, fnmr], _SMALLEST, 1.0 - _SMALLEST)]
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(logit)).sum(axis=0))])
    kept = np.searchsorted(length, np.linspace(0.0, length[-1], POINTS))
    return np.unique(np.concatenate([kept, [0, fmr.size - 1]]))


def _reaches_eer(curve: ErrorCurve) -> bool:
    return bool(curve.fmr[-1] >= curve.fnmr[-1])


def _operating_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    for index, (name, (x, y)) in enumerate(points.items()):
        axes.plot(
            x,
            y,
            linestyle="none",
            marker=marker(index),
            markersize=8,
            markerfacecolor="white",
            markeredgecolor=BLACK,
            markeredgewidth=1.5,
            zorder=5,
            clip_on=False,
            label=legend_label(name, 30),
        )


def _limits(rates: Sequence[FloatArray], trials: Sequence[int]) -> tuple[float, float]:
    """Return the range of an axis: from about the smallest rate that the trials can show."""
    smallest = max(0.5 / max(trials, default=1000), 1e-6)
    inside = [rate[(rate >= smallest) & (rate <= 0.5)] for rate in rates]
    largest = max((float(rate.max()) for rate in inside if rate.size), default=0.4)
    return smallest, min(max(largest, 0.05) * 1.1, 0.55)


_NORMAL: Final = NormalDist()
_INVERSE: Final = np.frompyfunc(_NORMAL.inv_cdf, 1, 1)
_CUMULATIVE: Final = np.frompyfunc(_NORMAL.cdf, 1, 1)


def _deviate(share: FloatArray) -> FloatArray:
    clipped = np.clip(share, _SMALLEST, 1.0 - _SMALLEST)
    return np.asarray(_INVERSE(clipped), np.float64)


def _share(deviate: FloatArray) -> FloatArray:
    return np.asarray(_CUMULATIVE(deviate), np.float64)
