"""Curves and bars of rates: the values and intervals as given."""

from __future__ import annotations

import numpy as np
import pytest

from training.pictures.rates import (
    Estimate,
    Series,
    Span,
    cmc_curve,
    comparison_bars,
    fold_accuracies,
    oneshot_curve,
    rate_intervals,
    rates_over_threshold,
)
from training.pictures.style import png

WAYS = np.array([2, 5, 20])
SERIES = Series(np.array([0.99, 0.97, 0.9]), np.array([0.98, 0.95, 0.88]), np.array([1.0, 0.98, 0.93]))


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_oneshot_shows_the_model_the_baseline_and_chance() -> None:
    axes = oneshot_curve(WAYS, {"model": SERIES, "pixels": Series(np.array([0.8, 0.6, 0.3]))}).axes[0]
    assert legend(axes) == ["model", "pixels", "chance (1 / N)"]
    assert [line.get_ydata().tolist() for line in axes.lines] == [
        [0.99, 0.97, 0.9],
        [0.8, 0.6, 0.3],
        [0.5, 0.2, 0.05],
    ]


def test_a_band_goes_from_the_lower_to_the_upper_ends() -> None:
    (band,) = oneshot_curve(WAYS, {"model": SERIES}).axes[0].collections
    extents = band.get_paths()[0].get_extents()
    assert (extents.ymin, extents.ymax) == (0.88, 1.0)


def test_cmc_shows_the_ranks_and_all_of_the_lower_ends() -> None:
    axes = cmc_curve(np.array([1, 2, 3]), {"model": SERIES}).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert axes.get_ylim()[0] < 0.88
    assert axes.get_ylim()[1] > 1.0


def test_bars_show_values_error_bars_and_seeds() -> None:
    measures = {"EER": {"contrastive": Estimate(0.02, 0.01, 0.04, (0.015, 0.025)), "triplet": Estimate(0.01)}}
    axes = comparison_bars(measures).axes[0]
    assert [patch.get_width() for patch in axes.patches] == [0.02, 0.01]
    assert [text.get_text() for text in axes.texts] == ["2.00 %", "1.00 %"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["contrastive", "triplet"]
    (segment,) = axes.collections[0].get_segments()
    assert segment[:, 0] == pytest.approx([0.01, 0.04])
    assert [0.015, 0.025] in [list(line.get_xdata()) for line in axes.lines]


def test_measures_share_their_rows() -> None:
    bars = {"a": Estimate(0.1), "b": Estimate(0.2)}
    figure = comparison_bars({"EER": bars, "error": bars})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["EER", "error"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_rows_go_from_top_to_bottom() -> None:
    low, high = comparison_bars({"EER": {"a": Estimate(0.1), "b": Estimate(0.2)}}).axes[0].get_ylim()
    assert low > high


@pytest.mark.parametrize("measures", [{}, {"EER": {}}, {"EER": {"a": Estimate(0.0)}}])
def test_bars_of_nothing_give_a_picture(measures) -> None:
    assert png(comparison_bars(measures))


def test_rates_over_the_threshold_have_bands_and_marks() -> None:
    threshold = np.array([0.5, 1.0, 1.5])
    fpir = Series(np.array([0.0, 0.05, 1.0]), np.array([0.0, 0.02, 0.9]), np.array([0.01, 0.1, 1.0]))
    figure = rates_over_threshold(threshold, {"FPIR": fpir}, {"late": 1.2, "early": 0.7})
    axes = figure.axes[0]
    assert legend(axes) == ["FPIR", "early: 0.7", "late: 1.2"]
    # A rate of zero is drawn below the lowest decade that is shown.
    assert axes.get_ylim()[0] == pytest.approx(0.01)
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.001, 0.05, 1.0])
    assert png(figure)


def test_folds_are_dots_around_their_mean() -> None:
    axes = fold_accuracies(np.array([0.9, 0.95, 1.0]), 0.95, 0.05).axes[0]
    mean, dots = axes.lines
    assert mean.get_ydata()[0] == 0.95
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([1, 2, 3], [0.9, 0.95, 1.0])
    assert axes.get_ylim()[0] < 0.9


def test_a_withheld_rate_has_its_interval_and_no_dot() -> None:
    spans = {
        "shown": Span(0.1, 0.05, 0.2),
        "withheld": Span(None, 0.0, 0.9),
        "no trials": Span(None, None, None),
    }
    figure = rate_intervals({"FMR": spans})
    axes = figure.axes[0]
    lines = [(line.get_marker(), np.asarray(line.get_xdata()).tolist()) for line in axes.lines]
    # The axis ends at what is shown, 0.2 and some more; the withheld rate's interval goes on.
    assert axes.get_xlim() == pytest.approx((0.0, 0.216))
    assert lines[0] == ("None", [0.05, 0.2])
    assert lines[1] == ("o", [0.1])
    assert lines[2] == ("None", [0.0, pytest.approx(0.216)])
    assert lines[3][0] == ">"
    assert len(lines) == 4
    assert png(figure)
