"""What is measured on a collection's own people, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.context import Context, open_context
from app.errors import (
    CollectionNotFoundError,
    DuplicatesSuspectedError,
    InvalidRequestError,
    ModelMismatchError,
    TooFewIdentitiesError,
)
from app.matching.evidence import read_evidence
from app.services import calibration
from app.services.calibration import Failure, Measured, Probes, References
from app.storage import collections, evidence, identities
from app.storage.records import NewReference
from tests.support.crowd import apart, at, enrol_at, evenly
from tests.support.service import settings_for

NOBODY = Probes((), np.empty((0, 2), np.float32))


@pytest.fixture
def context(tmp_path: Path, crowd_models: Path) -> Iterator[Context]:
    with open_context(settings_for(tmp_path, crowd_models, ("crowd",))) as opened:
        yield opened


def enrol(context: Context, people: dict[str, float], **options: Any) -> None:
    enrol_at(context.database, context.models.default, people, **options)


def read(context: Context, *probed: str, name: str = "people") -> References:
    return context.database.read_now(calibration.read_references, context.models, name, set(probed))


def measure(references: References, probes: Probes = NOBODY, **options: Any) -> Measured:
    return calibration.measured(references, *calibration.compared(references, **options), probes)


def probes(**degrees: float) -> Probes:
    """Photos by ``identity`` or ``identity_number``."""
    names = tuple(name.partition("_")[0] for name in degrees)
    return Probes(names, np.array([at(angle) for angle in degrees.values()]))


# trials


def test_nonmated_trials_are_every_pair_of_references(context: Context) -> None:
    enrol(context, evenly(40))
    trials = measure(read(context)).trials
    assert (trials.subjects, trials.nonmated_total, trials.nonmated_distance.size) == (40, 780, 780)
    # Each has two neighbours at 9 degrees, two at 18, and so on; one opposite.
    assert trials.nonmated_distance[:40] == pytest.approx([apart(9)] * 40, abs=1e-6)
    assert trials.nonmated_distance[-20:] == pytest.approx([2.0] * 20, abs=1e-6)
    assert trials.fmr(apart(19)) == pytest.approx(80 / 780)


def test_without_probes_there_is_no_false_non_match_rate(context: Context) -> None:
    enrol(context, evenly(40))
    done = measure(read(context))
    assert (done.trials.mated_total, done.trials.fnmr(1.0), done.trials.likelihood_ratio) == (0, None, None)
    assert "the FNMR was not measured" in description(done)


def test_mated_trials_are_probes_against_their_own_reference_only(context: Context) -> None:
    enrol(context, evenly(40))
    # The two of p1 are 1 degree from each other, which no verification would ever compare.
    done = measure(read(context), probes(p0=5, p1=9 + 20, p1_again=9 + 21))
    assert done.trials.mated_distance == pytest.approx([apart(5), apart(20), apart(21)], abs=1e-6)
    assert done.trials.mated_subject.tolist() == [0, 1, 1]
    assert done.trials.nonmated_total == 780
    assert done.trials.fnmr(apart(20.5)) == pytest.approx(1 / 3)


def test_probe_is_compared_with_the_nearest_of_several_references(context: Context) -> None:
    enrol(context, evenly(40))
    model = context.models.default

    def second(session: Any) -> None:
        people = collections.get(session, "people")
        new = NewReference("s", model.digest, at(4), None, {})
        identities.extend(session, people, people.revision, "p0", None, new)

    context.database.write_now(second)
    done = measure(read(context), probes(p0=5))
    assert done.trials.mated_distance == pytest.approx([apart(1)], abs=1e-6)
    assert done.trials.nonmated_total == 780 + 39


def test_description_counts_photos_and_failures_and_names_nobody(context: Context) -> None:
    enrol(context, evenly(40))
    failures = (Failure("p0", "a.jpg", "no_face"), Failure("p1", "b.jpg", "no_face"))
    seen = Probes(("p7", "p7", "p8"), np.array([at(63), at(64), at(72)]), failures)
    text = description(measure(read(context), seen))
    assert text == (
        "references of all 40 identities, compared with one another; 3 probe photos of 2 identities, each "
        "with its reference; 2 probe photos could not be used (2 no_face)"
    )


def test_of_a_large_collection_some_are_drawn_and_the_probed_are_among_them(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "MOST_IDENTITIES", 30)
    enrol(context, evenly(200))
    probed = ("p3", "p150", "p199")
    references = read(context, *probed)
    assert (len(references.names), references.enrolled) == (30, 200)
    assert set(probed) <= set(references.names)
    assert references.names == read(context, *probed).names
    done = measure(references, probes(p3=5.4))
    assert done.trials.mated_distance == pytest.approx([apart(0)], abs=1e-3)
    assert description(done).startswith("references of 30, drawn at random from 200 identities")


def description(done: Measured) -> str:
    return calibration.description_of(done.references, done.close_pairs, done.probes)


# refusals


def test_fewer_identities_than_show_one_in_a_hundred_are_refused(context: Context) -> None:
    enrol(context, evenly(24))
    with pytest.raises(TooFewIdentitiesError, match=r"24 identities; .* of 0\.01 takes 25") as caught:
        read(context)
    assert caught.value.details() == {"identities": 24, "needed": 25}
    enrol(context, {"one more": 7.5})
    assert measure(read(context)).trials.smallest_fmr <= 0.01


@pytest.mark.parametrize(("double", "refused"), [(0, False), (4, False), (5, True), (20, True)])
def test_gallery_with_more_doubles_than_chance_explains_is_refused(
    context: Context, double: int, refused: bool
) -> None:
    people = evenly(40)
    enrol(context, {**people, **{f"again {n}": people[f"p{n}"] for n in range(double)}})
    references = read(context)
    if not refused:
        assert measure(references).close_pairs.seen == double
        return
    with pytest.raises(DuplicatesSuspectedError, match="visavis audit --collection people") as caught:
        measure(references)
    assert caught.value.seen == double
    assert len(caught.value.closest) == 10
    found = {frozenset(pair[:2]) for pair in caught.value.closest if pair[2] < 1e-6}
    assert found <= {frozenset((f"p{n}", f"again {n}")) for n in range(double)}
    assert len(found) == min(double, 10)


def test_duplicates_that_are_accepted_are_told_in_the_description(context: Context) -> None:
    people = evenly(40)
    enrol(context, {**people, **{f"again {n}": people[f"p{n}"] for n in range(8)}})
    done = measure(read(context), accept_duplicates=True)
    assert "accepted although 8 pairs within 0.0001971 look like duplicates" in description(done)
    assert done.trials.fmr(0.001) == pytest.approx(8 / (48 * 47 / 2))


def test_few_honest_galleries_are_refused(context: Context) -> None:
    refused = 0
    model = context.models.default
    collection = context.database.write_now(collections.add, "law", model.model_id, model.digest, {})
    for seed in range(60):
        angles = np.random.default_rng(seed).uniform(0, 360, 50)
        names = tuple(f"p{n}" for n in range(50))
        labels = np.arange(50, dtype=np.int32)
        rows = np.array([at(angle) for angle in angles])
        references = References(collection, model, names, ({},) * 50, labels, rows, 50)
        _, close = calibration.compared(references, accept_duplicates=True)
        refused += close.suspicious
    assert refused <= 1  # each is one in a thousand


def test_probe_of_somebody_not_enrolled_is_refused_before_anything_is_compared(context: Context) -> None:
    enrol(context, evenly(3))
    with pytest.raises(InvalidRequestError, match="nobody"):
        read(context, "nobody")


def test_collections_that_cannot_be_measured_are_refused(context: Context) -> None:
    with pytest.raises(CollectionNotFoundError):
        read(context, name="nowhere")
    context.database.write_now(collections.add, "moved", "crowd", "0" * 64, {})
    with pytest.raises(ModelMismatchError):
        read(context, name="moved")
    enrol(context, evenly(40))
    foreign = NewReference("f", "0" * 64, at(0), None, {})

    def mix(session: Any) -> None:
        identities.add(session, collections.get(session, "people"), 2, "foreign", {}, foreign)

    context.database.write_now(mix)
    assert "foreign" not in read(context).names


# storage


def test_stored_evidence_is_what_was_measured_and_names_its_revision(context: Context) -> None:
    enrol(context, evenly(40))
    done = measure(read(context), probes(p0=5))
    result = context.database.write_now(calibration.stored, done)
    collection = context.database.read_now(collections.get, "people")
    stored = context.database.read_now(evidence.get, collection)
    assert stored is not None
    assert collection.evidence_id == stored.id == result.in_force.collection.evidence_id
    about = stored.measurement
    assert (about.revision, about.subjects, about.images) == (collection.revision, 40, 41)
    assert (about.mated, about.nonmated, about.model_digest) == (1, 780, context.models.default.digest)
    again = read_evidence(io.BytesIO(stored.trials))
    np.testing.assert_array_equal(again.nonmated_distance, done.trials.nonmated_distance)
    np.testing.assert_array_equal(again.mated_distance, done.trials.mated_distance)
    assert result.in_force.basis.measured_at == stored.created_at


def test_calibrating_is_no_change_of_the_references(context: Context) -> None:
    enrol(context, evenly(40))
    before = context.database.read_now(collections.get, "people").revision
    context.database.write_now(calibration.stored, measure(read(context)))
    assert context.database.read_now(collections.get, "people").revision == before


def test_collection_deleted_meanwhile_gets_no_evidence(context: Context) -> None:
    enrol(context, evenly(40))
    done = measure(read(context))
    context.database.write_now(collections.remove, "people")
    enrol(context, evenly(40))  # another collection of that name
    with pytest.raises(CollectionNotFoundError):
        context.database.write_now(calibration.stored, done)
    assert context.database.read_now(collections.get, "people").evidence_id is None
