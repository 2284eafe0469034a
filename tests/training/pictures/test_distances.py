"""Error curves against a count by hand, and what the plots of distances draw."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.verification import TARGETS, Trials, evaluate
from training.pictures.distances import (
    POINTS,
    curve_of_trials,
    det_curve,
    distance_histogram,
    distance_matrix,
    error_curve,
    roc_curve,
)
from training.pictures.style import png

MATED = np.array([0.1, 0.2, 0.3, 0.6])
NONMATED = np.array([0.5, 0.7, 0.8, 0.9, 0.3])


def some_trials():
    rng = np.random.default_rng(3)
    subjects = rng.integers(0, 20, (900, 2))
    subjects[:300, 1] = subjects[:300, 0]
    mated = subjects[:, 0] == subjects[:, 1]
    distance = rng.normal(np.where(mated, 0.6, 1.2), 0.25)
    distance[::50] = np.inf
    return Trials(distance, mated, subjects)


def test_rates_are_those_counted_by_hand() -> None:
    curve = error_curve(MATED, NONMATED)
    for threshold, fmr, fnmr in zip(curve.threshold, curve.fmr, curve.fnmr, strict=True):
        assert fmr == np.mean(threshold >= NONMATED)
        assert fnmr == pytest.approx(np.mean(threshold < MATED))
    assert (curve.fmr[0], curve.fnmr[0]) == (0.0, 1.0)
    assert (curve.fmr[-1], curve.fnmr[-1]) == (1.0, 0.0)


def test_trials_without_a_distance_are_left_out() -> None:
    curve = error_curve(np.r_[MATED, np.inf], np.r_[NONMATED, np.inf])
    assert (curve.mated, curve.nonmated) == (4, 5)
    assert curve.fnmr[-1] == 0.0


def test_of_the_closest_of_many_trials_the_curve_ends_where_all_are_known() -> None:
    curve = error_curve(MATED, np.array([0.2, 0.25]), nonmated_total=100)
    assert curve.threshold[-1] == 0.25
    assert curve.fmr[-1] == 0.02


@pytest.mark.parametrize(("mated", "nonmated"), [([], [0.1]), ([0.1], []), ([np.inf], [0.1])])
def test_one_kind_of_trial_alone_has_no_curve(mated, nonmated) -> None:
    with pytest.raises(ValueError, match="of mated and of non-mated"):
        error_curve(np.array(mated), np.array(nonmated))


def test_a_thinned_curve_is_part_of_the_whole_with_both_ends() -> None:
    rng = np.random.default_rng(0)
    mated, nonmated = rng.normal(0.5, 0.2, 20_000), rng.normal(1.0, 0.2, 20_000)
    curve = error_curve(mated, nonmated)
    assert curve.fmr.size <= POINTS + 2
    assert (curve.fmr[0], curve.fnmr[0], curve.fmr[-1], curve.fnmr[-1]) == (0.0, 1.0, 1.0, 0.0)
    for at in range(0, curve.fmr.size, 97):
        assert curve.fmr[at] == np.mean(nonmated <= curve.threshold[at])


def test_the_curve_agrees_with_the_evaluation() -> None:
    trials = some_trials()
    curve, report = curve_of_trials(trials), evaluate(trials, 0.9, resamples=20)
    assert curve.eer == pytest.approx(report.eer)
    expected = report.fnmr_at_fmr[TARGETS[0]]
    at = np.searchsorted(curve.fmr, float(TARGETS[0]), side="right") - 1
    assert curve.fnmr[at] == pytest.approx(expected.fnmr)


def test_the_band_has_the_intervals_of_the_evaluation() -> None:
    trials = some_trials()
    band = curve_of_trials(trials, resamples=600).band
    expected = evaluate(trials, 0.9, resamples=600).fnmr_at_fmr["0.01"]
    at = np.searchsorted(band.fmr, expected.fmr, side="right") - 1
    # Other resamples of the same subjects: the ends agree to a few hundredths.
    assert band.lower[at] == pytest.approx(expected.fnmr_lower95, abs=0.04)
    assert band.upper[at] == pytest.approx(expected.fnmr_upper95, abs=0.04)


def test_the_band_holds_the_curve() -> None:
    curve = curve_of_trials(some_trials())
    best = np.array([curve.fnmr[curve.fmr == fmr].min() for fmr in curve.band.fmr])
    assert np.all(curve.band.lower < best)
    assert np.all(best < curve.band.upper)


def test_perfect_trials_have_no_band() -> None:
    trials = Trials(np.array([0.1, 0.9]), np.array([True, False]), np.array([[0, 0], [0, 1]]))
    assert curve_of_trials(trials).band is None


def test_histogram_shows_shares_of_each_kind() -> None:
    axes = distance_histogram(MATED, NONMATED, bins=4).axes[0]
    values = [patch.get_data().values for patch in axes.patches]
    assert [value.sum() for value in values] == pytest.approx([1.0] * 4)
    edges = axes.patches[0].get_data().edges
    assert edges.tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert values[0].tolist() == (np.histogram(MATED, edges)[0] / 4).tolist()
    assert values[2].tolist() == (np.histogram(NONMATED, edges)[0] / 5).tolist()


def test_histogram_draws_thresholds_where_they_are() -> None:
    axes = distance_histogram(MATED, NONMATED, thresholds={"strict": 0.4, "lax": 0.65}).axes[0]
    assert [line.get_xdata()[0] for line in axes.lines] == [0.4, 0.65]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[-2:] == ["strict: threshold 0.4", "lax: threshold 0.65"]


def test_histogram_counts_what_could_not_be_compared() -> None:
    axes = distance_histogram(np.r_[MATED, np.inf, np.inf], NONMATED).axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == "mated: 4 trials (2 more could not be compared)"


@pytest.mark.parametrize("mated", [np.full(3, 0.5), np.array([]), np.array([np.inf])])
def test_histogram_of_little_gives_a_picture(mated) -> None:
    assert png(distance_histogram(mated, mated))


def test_det_draws_the_rates_and_names_the_curve() -> None:
    curve = error_curve(MATED, NONMATED)
    axes = det_curve({"model": curve}).axes[0]
    assert axes.lines[0].get_xdata().tolist() == curve.fmr.tolist()
    assert axes.lines[0].get_ydata().tolist() == curve.fnmr.tolist()
    assert axes.get_legend().get_texts()[0].get_text() == "model (EER 25.00 %)"


def test_det_of_searches_names_their_rates() -> None:
    axes = det_curve({"model": error_curve(MATED, NONMATED)}, searches=True).axes[0]
    assert axes.get_xlabel() == "false positive identification rate (FPIR)"
    assert axes.get_ylabel() == "false negative identification rate (FNIR)"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[0].startswith("model (equal at ")
    assert labels[-1] == "FPIR = FNIR"


def test_det_axes_are_normal_deviates() -> None:
    transform = det_curve({"model": error_curve(MATED, NONMATED)}).axes[0].xaxis.get_transform()
    # Quantiles of the standard normal distribution: 0.0228 lies two deviations below the middle.
    assert transform.transform(np.array([0.5, 0.15865525, 0.02275013])) == pytest.approx([0.0, -1.0, -2.0])
    assert transform.inverted().transform(np.array([-1.0])) == pytest.approx([0.15865525])


def test_det_marks_operating_points() -> None:
    axes = det_curve({"m": error_curve(MATED, NONMATED)}, points={"default": (0.01, 0.2)}).axes[0]
    point = next(line for line in axes.lines if line.get_label() == "default")
    assert (point.get_xdata().tolist(), point.get_ydata().tolist()) == ([0.01], [0.2])


def test_roc_draws_mated_matches_on_a_logarithmic_axis() -> None:
    curve = error_curve(MATED, NONMATED)
    axes = roc_curve({"model": curve}).axes[0]
    assert axes.get_xscale() == "log"
    assert axes.lines[0].get_ydata().tolist() == (1.0 - curve.fnmr).tolist()
    assert axes.get_xlim()[1] == 1.0


@pytest.mark.parametrize("plot", [det_curve, roc_curve])
def test_the_band_is_drawn(plot) -> None:
    curve = curve_of_trials(some_trials(), resamples=50)
    assert len(plot({"model": curve}).axes[0].collections) == 1


@pytest.mark.parametrize("plot", [det_curve, roc_curve])
@pytest.mark.parametrize("distances", [([0.1], [0.9]), ([0.9], [0.1]), ([0.5], [0.5])])
def test_curves_of_two_trials_give_a_picture(plot, distances) -> None:
    assert png(plot({"model": error_curve(*(np.array(kind) for kind in distances))}))


def test_matrix_is_ordered_by_subject() -> None:
    distance = np.arange(16.0).reshape(4, 4)
    axes = distance_matrix(distance, np.array([1, 0, 1, 0]), ["first", "second"]).axes[0]
    order = [1, 3, 0, 2]
    assert np.asarray(axes.images[0].get_array()).tolist() == distance[np.ix_(order, order)].tolist()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_yticks().tolist() == [0.5, 2.5]


def test_matrix_of_many_subjects_names_none() -> None:
    axes = distance_matrix(np.zeros((40, 40)), np.arange(40), [f"s{n}" for n in range(40)]).axes[0]
    assert axes.get_xlabel() == "samples of 40 subjects, in their order"
    assert axes.get_yticks().size == 0
