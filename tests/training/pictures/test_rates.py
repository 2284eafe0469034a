"""Curves and bars of rates: the values and intervals as given."""

from __future__ import annotations

import numpy as np
import pytest

from training.pictures.rates import Estimate, Series, cmc_curve, comparison_bars, oneshot_curve
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
