"""Curves of a run: the log's columns as they are, the best validation value, the shares of triplets."""

from __future__ import annotations

import numpy as np
import pytest

from training.pictures.progress import loss_curves, read_log, triplet_kinds
from training.pictures.style import png

LOG = {
    "step": np.array([1.0, 2.0, 3.0, 4.0]),
    "loss": np.array([0.9, 0.5, 0.4, 0.3]),
    "learning_rate": np.array([0.1, 0.1, 0.05, 0.05]),
    "validation_eer": np.array([np.nan, 0.2, np.nan, 0.3]),
}


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_an_empty_cell_of_the_log_is_not_a_number(tmp_path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,validation_eer\n1,0.5,\n2,0.25,0.125\n")
    log = read_log(tmp_path / "log.csv")
    assert log["loss"].tolist() == [0.5, 0.25]
    assert np.isnan(log["validation_eer"][0])
    assert log["validation_eer"][1] == 0.125


def test_a_log_of_a_run_that_made_no_step_has_no_columns(tmp_path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n")
    assert read_log(tmp_path / "log.csv") == {}


def test_each_panel_shows_its_columns() -> None:
    figure = loss_curves(LOG, validation=["validation_eer"])
    assert titles(figure) == ["Training loss", "Validation", "Learning rate"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.9, 0.5, 0.4, 0.3]
    assert figure.axes[2].lines[0].get_ydata().tolist() == [0.1, 0.1, 0.05, 0.05]


def test_values_that_were_not_measured_leave_no_gap() -> None:
    line = loss_curves(LOG, validation=["validation_eer"]).axes[1].lines[0]
    assert line.get_xdata().tolist() == [2.0, 4.0]
    assert line.get_ydata().tolist() == [0.2, 0.3]


@pytest.mark.parametrize(
    ("lower_is_better", "label"),
    [(True, "validation EER; best 0.2 at step 2"), (False, "validation EER; best 0.3 at step 4")],
)
def test_the_best_value_is_named(lower_is_better, label) -> None:
    figure = loss_curves(LOG, validation=["validation_eer"], lower_is_better=lower_is_better)
    assert legend(figure.axes[1]) == [label]


def test_columns_that_the_log_lacks_have_no_panel() -> None:
    assert titles(loss_curves({"step": LOG["step"], "loss": LOG["loss"]}, validation=["auc"])) == [
        "Training loss"
    ]


def test_a_long_log_has_a_running_mean() -> None:
    step = np.arange(400.0)
    mean = loss_curves({"step": step, "loss": step}).axes[0].lines[1]
    assert mean.get_label() == "loss, mean of 10"
    # The mean of 0 to 9 is 4.5, drawn at the sixth of these ten steps.
    assert (mean.get_xdata()[0], mean.get_ydata()[0]) == pytest.approx((5.0, 4.5))


def test_an_empty_log_gives_a_picture() -> None:
    assert png(loss_curves({}))


def test_triplets_are_shares_of_all_of_a_step() -> None:
    areas = triplet_kinds(np.array([0, 1]), np.array([6.0, 8]), np.array([3.0, 0]), np.array([1.0, 0]))
    hard, semi_hard, easy = areas.axes[0].collections
    assert hard.get_paths()[0].get_extents().ymax == pytest.approx(0.1)
    assert semi_hard.get_paths()[0].get_extents().ymax == pytest.approx(0.4)
    assert easy.get_paths()[0].get_extents().ymax == pytest.approx(1.0)
    assert legend(areas.axes[0]) == ["easy", "semi-hard", "hard"]


def test_a_step_without_triplets_has_none_of_any_kind() -> None:
    areas = triplet_kinds(np.array([0, 1]), np.zeros(2), np.zeros(2), np.zeros(2)).axes[0].collections
    assert max(area.get_paths()[0].get_extents().ymax for area in areas) == 0.0
