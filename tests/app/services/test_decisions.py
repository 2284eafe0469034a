"""Whose trials a decision rests on: the collection's where they support what is asked, else the bundle's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from app.encoding.model import Model, open_model
from app.errors import InsufficientEvidenceError, InvalidRequestError, OperatingPointNotFoundError
from app.matching.evidence import Evidence
from app.matching.trials import all_trials
from app.services.decisions import Criterion
from app.services.own_evidence import OwnEvidence
from tests.support.crowd import apart, at, evenly

MEASURED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def model(crowd_models: Path) -> Model:
    return open_model(crowd_models / "crowd", provider="cpu")


def trials(count: int = 40, seed: int | None = None) -> Evidence:
    angles = list(evenly(count).values())
    if seed is not None:
        angles = np.random.default_rng(seed).uniform(0, 360, count).tolist()
    rows = np.array([at(angle) for angle in angles])
    return all_trials(rows, np.arange(count, dtype=np.int32), "euclidean", tail_share=1.0)


def own(evidence: Evidence | None = None) -> OwnEvidence:
    return OwnEvidence(evidence or trials(), "ours", 7, MEASURED)


def test_rate_that_the_collection_supports_is_read_from_its_own_trials(model: Model) -> None:
    decision = Criterion(max_fmr=0.06).decide(model, own())
    # 40 of 780 pairs are 9 degrees apart (5 %), 40 more 18 degrees.
    assert decision.point.threshold == pytest.approx(apart(18), abs=1e-6)
    assert decision.point.fmr == pytest.approx(40 / 780)
    basis = decision.basis
    assert (basis.source, basis.subjects, basis.mated, basis.nonmated) == ("deployment", 40, 0, 780)
    assert (basis.revision, basis.measured_at, basis.note) == (7, MEASURED, None)


def test_rate_that_it_does_not_support_is_read_from_the_bundles_and_says_why(model: Model) -> None:
    decision = Criterion(max_fmr=1e-3).decide(model, own())
    assert decision.point == Criterion(max_fmr=1e-3).decide(model).point
    assert (decision.basis.source, decision.basis.subjects) == ("bundle", 200)
    assert (decision.basis.revision, decision.basis.measured_at) == (None, None)
    assert "40 subjects in 780 non-mated trials" in str(decision.basis.note)


def test_rate_that_neither_supports_names_the_smaller_of_what_they_do(model: Model) -> None:
    with pytest.raises(InsufficientEvidenceError) as caught:
        Criterion(max_fmr=1e-9).decide(model, own())
    assert caught.value.smallest == pytest.approx(3 / 19900, rel=0.01)  # the bundle's 200 people
    with pytest.raises(InsufficientEvidenceError) as caught:
        Criterion(max_fmr=1e-9).decide(model, own(trials(500)))
    assert caught.value.smallest == pytest.approx(3 / 124750, rel=0.01)  # the collection's 500


def test_search_rate_is_read_from_its_own_trials_for_the_size_of_the_gallery(model: Model) -> None:
    ours = own(trials(300, seed=5))
    assert ours.evidence is not None
    small = Criterion(max_fpir=0.1).decide(model, ours, gallery_size=10)
    large = Criterion(max_fpir=0.1).decide(model, ours, gallery_size=100)
    assert (small.basis.source, large.basis.source) == ("deployment", "deployment")
    assert large.point.threshold < small.point.threshold
    assert large.point == ours.evidence.point_for_fpir(0.1, 100)
    # People at random angles: one of N is within d degrees with probability N * d / 180, for small d.
    degrees = 2 * np.degrees(np.arcsin(large.point.threshold / 2))
    assert degrees == pytest.approx(180 * 0.1 / 100, rel=0.5)


def test_search_rate_falls_back_when_the_gallery_outgrows_its_own_trials(model: Model) -> None:
    ours = own(trials(40, seed=5))
    assert Criterion(max_fpir=0.2).decide(model, ours, gallery_size=5).basis.source == "deployment"
    grown = Criterion(max_fpir=0.2).decide(model, ours, gallery_size=200)
    assert grown.basis.source == "bundle"
    assert "max_fpir" in str(grown.basis.note)


def test_threshold_gets_its_rates_from_its_own_trials(model: Model) -> None:
    decision = Criterion(threshold=apart(10)).decide(model, own())
    assert decision.basis.source == "deployment"
    assert decision.point.fmr == pytest.approx(40 / 780)
    assert decision.point.fnmr is None
    assert Criterion(threshold=apart(10)).decide(model).point.fmr == pytest.approx(10 / 180, rel=0.1)


@pytest.mark.parametrize("criterion", [Criterion(), Criterion(operating_point="fmr-1e-2")])
def test_named_points_and_the_default_stay_the_bundles(model: Model, criterion: Criterion) -> None:
    decision = criterion.decide(model, own())
    assert decision.point == model.manifest.operating_point("fmr-1e-2")
    assert decision.basis.source == "bundle"
    assert "evidence of its own" in str(decision.basis.note)
    assert criterion.decide(model).basis.note is None


@pytest.mark.parametrize(
    "criterion",
    [Criterion(), Criterion(max_fmr=0.06), Criterion(max_fpir=0.5), Criterion(threshold=1.0)],
)
def test_evidence_that_cannot_be_used_changes_nothing_but_the_note(
    model: Model, criterion: Criterion
) -> None:
    broken = OwnEvidence(None, problem="it is damaged (BadZipFile)")
    decision = criterion.decide(model, broken)
    assert decision.point == criterion.decide(model).point
    assert decision.basis.source == "bundle"
    if criterion != Criterion():
        assert (
            decision.basis.note == "the collection's own evidence cannot be used: it is damaged (BadZipFile)"
        )


def test_unknown_point_and_two_wishes_are_refused(model: Model) -> None:
    with pytest.raises(OperatingPointNotFoundError, match="fmr-1e-2"):
        Criterion(operating_point="strict").decide(model, own())
    with pytest.raises(InvalidRequestError, match="at most one"):
        Criterion(max_fmr=0.1, threshold=1.0)
