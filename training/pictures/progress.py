"""How a run went: loss, validation and learning rate over the steps, and the kinds of triplets."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.pictures.style import (
    BLUE,
    GREY,
    ORANGE,
    SKY,
    VERMILLION,
    colour,
    dashes,
    percent_axis,
    shortened,
    styled,
)
from training.pictures.style import marker as marker_of

FloatArray = NDArray[np.float64]

_SMOOTHED_OVER: Final = 40
"""A running mean over this part of the steps, a 40th, shows the trend of a noisy loss."""

_ABBREVIATIONS: Final = {"eer", "fmr", "fnmr"}

_DOTS: Final = 60
"""More measurements than this are a line without markers."""


def read_log(path: Path) -> dict[str, FloatArray]:
    """Return the columns of a run's CSV log, float64[steps] each.

    Args:
        path: With the names of the columns in the first line. An empty cell, as of a measurement that is not
            made at every step, is NaN.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}


@styled
def loss_curves(
    log: Mapping[str, FloatArray],
    *,
    losses: Sequence[str] = ("loss",),
    validation: Sequence[str] = (),
    rates: Sequence[str] = ("learning_rate",),
    lower_is_better: bool = True,
) -> Figure:
    """Plot loss, validation metric and learning rate over the steps, one panel each.

    Args:
        log: Columns of the log, float64[steps]; ``step`` is the horizontal axis. NaN where not measured.
        losses: Columns of the first panel; each also as a running mean.
        validation: Columns of the second panel; the best value of each is marked.
        rates: Columns of the third panel. Columns that the log lacks are left out, and so are empty panels.
        lower_is_better: Whether the best validation value is the lowest.
    """
    present = [[name for name in names if _measured(log, name)] for names in (losses, validation, rates)]
    panels = [
        (names, draw, height)
        for names, draw, height in zip(present, (_losses, None, _rates), (2.6, 2.0, 1.1), strict=True)
        if names
    ]
    heights = [height for _, _, height in panels] or [1.0]
    figure = Figure(figsize=(9.6, sum(heights) + 0.5), layout="constrained")
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (names, draw, _) in zip(rows, panels, strict=False):
        if draw is None:
            _validation(axes, log, names, lower_is_better=lower_is_better)
        else:
            draw(axes, log, names)
    rows[-1].set_xlabel("step")
    rows[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


@styled
def triplet_kinds(
    step: NDArray[np.int64] | FloatArray, easy: FloatArray, semi_hard: FloatArray, hard: FloatArray
) -> Figure:
    """Plot which share of the triplets is easy, semi-hard and hard, stacked over the steps.

    Args:
        step: [steps], rising.
        easy: float64[steps], count or share of triplets whose loss is zero.
        semi_hard: float64[steps], of those whose negative is farther than the positive, within the margin.
        hard: float64[steps], of those whose negative is nearer than the positive.
    """
    counts = np.stack([hard, semi_hard, easy]).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=0), np.finfo(np.float64).tiny)
    figure = Figure(figsize=(9.6, 3.0), layout="constrained")
    axes = figure.subplots()
    areas = axes.stackplot(
        step,
        shares,
        labels=["hard", "semi-hard", "easy"],
        colors=[VERMILLION, ORANGE, SKY],
        edgecolor="white",
        linewidth=0.6,
    )
    for area, hatch in zip(areas, ("////", "..", ""), strict=True):
        area.set_hatch(hatch)
    axes.set(xlabel="step", ylabel="share of triplets", ylim=(0.0, 1.0), title="Triplets by kind")
    axes.margins(x=0.0)
    percent_axis(axes, "y")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _measured(log: Mapping[str, FloatArray], name: str) -> bool:
    return name in log and bool(np.isfinite(log[name]).any())


def _known(log: Mapping[str, FloatArray], name: str) -> tuple[FloatArray, FloatArray]:
    known = np.isfinite(log[name])
    return log["step"][known], log[name][known]


def _losses(axes: Axes, log: Mapping[str, FloatArray], names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        step, value = _known(log, name)
        window = max(1, value.size // _SMOOTHED_OVER)
        axes.plot(step, value, color=colour(index), alpha=0.3 if window > 1 else 1.0, linewidth=1.0)
        axes.lines[-1].set_label(_words(name))
        if window > 1:
            mean = np.convolve(value, np.ones(window) / window, mode="valid")
            axes.plot(
                step[window // 2 : window // 2 + mean.size],
                mean,
                color=colour(index),
                linestyle=dashes(index),
                label=f"{_words(name)}, mean of {window}",
            )
    axes.set(title="Training loss", ylabel="loss")
    low = min(float(np.nanmin(log[name])) for name in names)
    if low >= 0.0:
        axes.set_ylim(bottom=0.0)
    axes.legend(loc="upper right", ncols=2)


def _validation(
    axes: Axes, log: Mapping[str, FloatArray], names: Sequence[str], *, lower_is_better: bool
) -> None:
    for index, name in enumerate(names):
        step, value = _known(log, name)
        best = int(np.argmin(value) if lower_is_better else np.argmax(value))
        axes.plot(
            step,
            value,
            color=colour(index + 2),
            linestyle=dashes(index),
            marker=marker_of(index) if value.size <= _DOTS else None,
            markersize=3.5,
            label=f"{_words(name)}; best {value[best]:.4g} at step {step[best]:.0f}",
        )
        axes.plot(step[best], value[best], "o", color=colour(index + 2), markersize=10, fillstyle="none")
    axes.set(title="Validation", ylabel="metric")
    axes.margins(y=0.12)
    axes.legend(loc="upper right" if lower_is_better else "lower right")


def _rates(axes: Axes, log: Mapping[str, FloatArray], names: Sequence[str]) -> None:
    for index, name in enumerate(names):
        step, value = _known(log, name)
        axes.plot(step, value, color=(GREY, BLUE)[index % 2], linestyle=dashes(index), label=_words(name))
    axes.set(title="Learning rate" if len(names) == 1 else "Schedules")
    axes.set_ylim(bottom=0.0)
    if len(names) > 1:
        axes.legend(loc="upper right")


def _words(column: str) -> str:
    """Return the name of a column as people write it: ``validation_eer`` is "validation EER"."""
    words = shortened(column, 40).split("_")
    return " ".join(word.upper() if word in _ABBREVIATIONS else word for word in words)
