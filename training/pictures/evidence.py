"""Pictures of a bundle's evidence: DET with and without likely label errors, distances, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app.matching.evidence import Evidence
from training.evaluation.calibration_error import CalibrationError
from training.pictures.distances import Band, ErrorCurve, det_curve, error_curve
from training.pictures.style import (
    BLACK,
    BLUE,
    GREY,
    MATED,
    NONMATED,
    dashes,
    legend_label,
    percent_axis,
    styled,
)

_CELLS: Final = 64
"""Of a histogram, at most."""
_BAND: Final = 120
"""Intervals along a curve."""


def evidence_det(
    evidence: Evidence, name: str, points: Mapping[str, float], corrected: Evidence | None = None
) -> Figure:
    """Plot FNMR against FMR as far as the tail of the trials reaches.

    Args:
        evidence: With mated trials.
        name: Of its curve.
        points: Thresholds by name of the operating point.
        corrected: The trials without likely label errors.
    """
    curves = {name: _curve(evidence)}
    if corrected is not None and corrected.mated_total:
        curves["without likely label errors"] = replace(_curve(corrected), band=None)
    marked = {}
    for point, threshold in points.items():
        fmr, fnmr = evidence.fmr(threshold), evidence.fnmr(threshold)
        if fmr and fnmr and fnmr < 0.5:
            marked[point] = (fmr, fnmr)
    return det_curve(curves, points=marked)


def _curve(evidence: Evidence) -> ErrorCurve:
    curve = error_curve(
        evidence.mated_distance, evidence.nonmated_distance, nonmated_total=evidence.nonmated_total
    )
    drawn = np.flatnonzero(np.r_[np.diff(curve.fmr) > 0.0, True] & (curve.fnmr > 0.0) & (curve.fnmr < 1.0))
    if not drawn.size:
        return curve
    at = drawn[np.unique(np.linspace(0, drawn.size - 1, _BAND).astype(np.intp))]
    ends = [evidence.fnmr_interval95(threshold) or (0.0, 1.0) for threshold in curve.threshold[at].tolist()]
    lower, upper = np.array(ends).T
    return replace(curve, band=Band(curve.fmr[at], lower, upper))


@styled
def evidence_distances(evidence: Evidence, points: Mapping[str, float], unit: str) -> Figure:
    """Plot how the distances of both kinds of trials are spread, with the thresholds between them.

    Args:
        evidence: With mated trials; its non-mated ones all kept or counted in cells.
        points: Thresholds by name of the operating point.
        unit: Name of the horizontal axis.
    """
    edges, mated, nonmated = _cells(evidence)
    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    axes = figure.subplots()
    looks = (("mated", MATED, mated, "-"), ("non-mated", NONMATED, nonmated, "--"))
    for name, hue, counts, dash in looks:
        share = counts / max(float(counts.sum()), 1.0)
        axes.stairs(
            share, edges, fill=True, color=hue, alpha=0.25, label=f"{name}: {int(counts.sum()):,} trials"
        )
        axes.stairs(share, edges, color=hue, linewidth=1.6, linestyle=dash)
    axes.set(xlabel=f"{unit} (smaller is closer)", ylabel="share of trials", title="Distances")
    axes.margins(y=0.04)
    axes.set_ylim(bottom=0.0)
    percent_axis(axes, "y")
    for index, (name, threshold) in enumerate(sorted(points.items(), key=lambda item: item[1])):
        label = f"{legend_label(name, 32)}: threshold {threshold:.4g}"
        axes.axvline(threshold, color=BLACK, linewidth=1.3, linestyle=dashes(index + 1), label=label)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.14), ncols=3)
    return figure


def _cells(
    evidence: Evidence,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return edges, mated and non-mated counts of about ``_CELLS`` cells of equal width."""
    if evidence.histogram is None:
        both = [evidence.mated_distance, evidence.nonmated_distance]
        edges = np.histogram_bin_edges(np.concatenate(both), _CELLS)
        nonmated = np.histogram(evidence.nonmated_distance, edges)[0].astype(np.float64)
    else:
        fine = evidence.histogram
        width = max(1, fine.counts.size // _CELLS)
        starts = np.arange(0, fine.counts.size, width)
        edges = np.r_[fine.edges[starts], fine.edges[-1]]
        nonmated = np.add.reduceat(fine.counts, starts).astype(np.float64)
    mated = np.histogram(evidence.mated_distance, edges)[0].astype(np.float64)
    used = np.flatnonzero(mated + nonmated)
    kept = slice(int(used[0]), int(used[-1]) + 1)
    return edges[used[0] : used[-1] + 2], mated[kept], nonmated[kept]


@styled
def reliability_diagram(splits: Sequence[CalibrationError], *, title: str = "Reliability") -> Figure:
    """Plot the share of trials that are mated against the probability stated for them, on held-out people.

    Args:
        splits: At least one; a dot for each bin of each, larger the more trials it has, and their mean.
        title: Above the plot.
    """
    figure = Figure(figsize=(5.8, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle=(0, (1, 3)), label="as stated")
    weight = np.array([split.weight for split in splits])
    stated, observed = (
        np.nan_to_num(np.array(values))
        for values in zip(*((s.stated, s.observed) for s in splits), strict=True)
    )
    filled = weight > 0.0
    axes.scatter(
        stated[filled],
        observed[filled],
        s=6.0 + 240.0 * np.sqrt(weight[filled]),
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label=f"{len(splits)} splits, larger: more trials",
    )
    total = weight.sum(axis=0)
    seen = total > 0.0
    mean_stated = (weight * stated).sum(axis=0)[seen] / total[seen]
    mean_observed = (weight * observed).sum(axis=0)[seen] / total[seen]
    axes.plot(
        mean_stated, mean_observed, color=BLACK, marker="o", markersize=4.0, linewidth=1.4, label="mean"
    )
    axes.set(
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        xlabel="probability stated, at prior 0.5",
        ylabel="share that is mated",
        title=title,
    )
    percent_axis(axes, "x")
    percent_axis(axes, "y")
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2)
    return figure
