"""Measure a collection's error rates on its own people, and decide by them from then on.

Non-mated trials are the references of different identities, compared with one another: the one photo of each
that the service compares with, so every identity weighs the same, as the bounds (``matching.bounds``) and the
open-set rate (``matching.open_set``: N random people, one image each) ask for. Mated trials are labelled
probe photos, each compared with the nearest reference of its identity, as a verification is. Two probes are
not compared with each other, because the service never does that, and two photos of one visit would flatter
the FNMR. Nor are probes compared with other people's references: a few people with many photos would then
weigh more than all others, and a probe under a wrong name would count as a false match.

References under two names for one person would count as false matches and make every threshold stricter than
it must be. So a gallery that looks duplicated is refused, unless the caller says that it is not.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Names
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.detection import FaceChoice
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model
from app.errors import (
    BusyError,
    DuplicatesSuspectedError,
    ImageError,
    InvalidRequestError,
    TooFewIdentitiesError,
)
from app.matching.chance import chance_of
from app.matching.distances import distance
from app.matching.evidence import Evidence, evidence_arrays, subjects_for
from app.matching.many_tests import poisson_tail
from app.matching.trials import LARGEST_TOTAL, TAIL_SHARE, all_trials
from app.services.decisions import Basis, bundle_basis, own_basis
from app.services.idempotency import Keep, keep_nothing, kept
from app.services.images import Images
from app.services.models import Models
from app.services.own_evidence import OwnEvidence, OwnEvidences
from app.storage import collections, evidence, identities
from app.storage.database import Database, Session
from app.storage.records import Collection, GalleryEntry, Measurement

TARGETS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False match rates whose thresholds are shown, where the trials support them."""
LARGEST_RATE: Final = TARGETS[0]
"""A collection that cannot show even this rate is not calibrated: the model's evidence says more."""
MOST_IDENTITIES: Final = 5_000
"""Identities that are compared with one another, of more a random draw. They show rates down to 2.4e-7."""
DUPLICATES_LEVEL: Final = 5e-4
"""Chance of so many close pairs below which a gallery is refused. It is looked at twice, so chance refuses
about one gallery in a thousand at most, where its people are no more alike than the model's evidence and
the gallery itself say (Poisson's law, because close pairs of different people are rare and seldom share a
member)."""
_EXPECTED_AT_SECOND: Final = 0.1
"""Pairs that chance leaves within the distance of the second look, so that three are too many."""
CLOSEST_SHOWN: Final = 10
_TRIALS_KEPT: Final = 10_000
"""Closest non-mated trials kept where the usual share of them would be fewer."""


@dataclass(frozen=True, eq=False)
class References:
    """The references of a collection at one revision.

    Attributes:
        collection: As it was then.
        model: What made them.
        names: Identities compared; a label is an index into them.
        metadata: Of each.
        labels: int32[N].
        embeddings: float32[N, D].
        enrolled: Identities in the collection, of which ``names`` are all or some.
    """

    collection: Collection
    model: Model
    names: tuple[str, ...]
    metadata: tuple[Mapping[str, Any], ...]
    labels: NDArray[np.int32]
    embeddings: NDArray[np.float32]
    enrolled: int


@dataclass(frozen=True)
class Failure:
    """A probe photo that could not be used."""

    identity: str
    image: str
    """Field of the request, or file."""
    code: str
    """What the service answers to such a photo: ``no_face`` and the like."""


@dataclass(frozen=True, eq=False)
class Probes:
    """Embedded photos of enrolled identities.

    Attributes:
        names: Whom each shows.
        embeddings: float32[P, D].
        failures: Those that could not be embedded.
    """

    names: tuple[str, ...]
    embeddings: NDArray[np.float32]
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class LabelledImage:
    """A photo and the enrolled identity that it shows."""

    identity: str
    image: ImageInput


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of identities so close to each other that few are expected there.

    Attributes:
        threshold: The distance.
        seen: So many pairs are within it.
        expected: Pairs of different people expected there, at most (95 %).
        closest: The nearest pairs, with their distance.
    """

    threshold: float
    seen: int
    expected: float
    closest: tuple[tuple[str, str, float], ...]

    @property
    def chance(self) -> float:
        """Probability of so many, or more, where all are different people."""
        return poisson_tail(self.seen, self.expected)

    @property
    def suspicious(self) -> bool:
        """Whether they are more than chance explains."""
        return self.chance < DUPLICATES_LEVEL


@dataclass(frozen=True, eq=False)
class InForce:
    """Whose trials count in a collection."""

    collection: Collection
    model: Model
    basis: Basis


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured on a collection.

    Attributes:
        references: What was compared.
        trials: The evidence.
        close_pairs: Whether the references look duplicated.
        probes: What the mated trials are of.
        packed: The evidence as an npz file.
    """

    references: References
    trials: Evidence
    close_pairs: ClosePairs
    probes: Probes
    packed: bytes


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A collection's new evidence, which is stored and in force."""

    in_force: InForce
    measured: Measured


class Calibration:
    """The use cases behind ``/collections/{name}/evidence``."""

    def __init__(self, database: Database, models: Models, images: Images, own: OwnEvidences) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._own = own
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="calibration")
        self._running = False

    async def calibrate(
        self,
        name: str,
        probes: Sequence[LabelledImage] = (),
        *,
        face: FaceChoice = "largest",
        accept_duplicates: bool = False,
        keep: Keep[Calibrated] = keep_nothing,
    ) -> Calibrated:
        """Measure a collection on its own references, and on probe photos if there are any.

        One at a time in each process: 5,000 identities take a core some ten seconds and 0.6 GiB.

        Raises:
            CollectionNotFoundError: There is none of that name.
            InvalidRequestError: A probe is of nobody enrolled.
            ModelMismatchError: The collection's model is not served here.
            TooFewIdentitiesError, DuplicatesSuspectedError: The collection is no basis for a rate.
            BusyError: Too much is waiting, or another calibration is under way; nothing was stored.
        """
        if self._running:
            raise BusyError("another collection is being calibrated; try again", retry_after_s=10)
        self._running = True
        try:
            wanted = {probe.identity for probe in probes}
            gallery = await self._database.read(read_references, self._models, name, wanted)
            trials, close = await asyncio.wrap_future(
                self._pool.submit(compared, gallery, accept_duplicates=accept_duplicates)
            )
            embedded = await self._embedded(gallery.model, probes, face)
            done = await asyncio.wrap_future(self._pool.submit(measured, gallery, trials, close, embedded))
            return await self._database.write(kept(stored, keep), done)
        finally:
            self._running = False

    async def in_force(self, name: str) -> InForce:
        """Return whose trials count in a collection.

        Raises:
            CollectionNotFoundError: There is none of that name.
            ModelMismatchError: The collection's model is not served here.
        """
        collection, own = await self._database.read(_opened, self._own, name)
        return _in_force(collection, self._models.of_collection(collection), own)

    async def remove(self, name: str, *, keep: Keep[None] = keep_nothing) -> None:
        """Go back to the model's evidence; nothing happens where it is in force already.

        Raises:
            CollectionNotFoundError: There is none of that name.
        """
        await self._database.write(kept(removed, keep), name)

    def close(self) -> None:
        """Finish a running calibration and stop."""
        self._pool.shutdown(wait=True)

    async def _embedded(self, model: Model, probes: Sequence[LabelledImage], face: FaceChoice) -> Probes:
        # One after the other: this work can wait, and requests that cannot share the queue with it.
        names, rows, failures = [], [], []
        for probe in probes:
            try:
                (template,) = await self._images.encode(model, [probe.image], face, Timings())
            except ImageError as error:
                failures.append(Failure(probe.identity, probe.image.field or "image", error.code))
                continue
            names.append(probe.identity)
            rows.append(template.embedding)
        return Probes(
            tuple(names),
            np.array(rows, np.float32).reshape(len(rows), model.manifest.dimensions),
            tuple(failures),
        )


def read_references(
    session: Session, models: Models, name: str, probed: Names[str] = (), *, seed: int = 0
) -> References:
    """Return a collection's references, all of one revision.

    Args:
        session: What it is read in.
        models: Those served here.
        name: The collection.
        probed: Identities with probe photos; they are among those returned.
        seed: Of the draw where not all take part.

    Raises:
        CollectionNotFoundError: There is none of that name.
        InvalidRequestError: One of the probed is not enrolled.
        ModelMismatchError: The collection's model is not served here.
        TooFewIdentitiesError: There are too few to show any rate that is of use.
    """
    collection = collections.get(session, name)
    model = models.of_collection(collection)
    numbers = evidence.names(session, collection)
    problems = [
        {"field": "probes", "problem": f"there is no identity {identity!r}; enrol it or leave its photos out"}
        for identity in sorted(probed)
        if identity not in numbers
    ]
    if problems:
        raise InvalidRequestError(problems)
    needed = subjects_for(LARGEST_RATE)
    if len(numbers) < needed:
        raise TooFewIdentitiesError(
            collection=name, identities=len(numbers), needed=needed, rate=LARGEST_RATE
        )
    taken = _taken(numbers, probed, seed)
    found = identities.changed_since(session, collection, -1)
    entries = [entry for entry in found if entry.identity_id in taken]
    entries.sort(key=lambda entry: entry.identity_id)
    return _references(collection, model, entries, len(numbers))


def compared(
    gallery: References,
    *,
    accept_duplicates: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Evidence, ClosePairs]:
    """Compare the references of different identities.

    Args:
        gallery: The references.
        accept_duplicates: Go on although some identities are probably one person.
        progress: As of ``all_trials``.

    Raises:
        DuplicatesSuspectedError: Some identities are probably one person.
    """
    pairs = len(gallery.labels) * (len(gallery.labels) - 1) // 2
    trials = all_trials(
        gallery.embeddings,
        gallery.labels,
        gallery.model.manifest.metric,
        tail_share=min(1.0, max(TAIL_SHARE, _TRIALS_KEPT / pairs)),
        largest_total=max(LARGEST_TOTAL, pairs),
        progress=progress,
    )
    # Two references of one identity are none of the mated trials meant here.
    trials = replace(trials, mated_distance=np.empty(0), mated_subject=np.empty(0, np.int32))
    close = _close_pairs(trials, gallery)
    if close.suspicious and not accept_duplicates:
        raise DuplicatesSuspectedError(
            collection=gallery.collection.name,
            seen=close.seen,
            expected=close.expected,
            threshold=close.threshold,
            closest=close.closest,
        )
    return trials, close


def measured(gallery: References, trials: Evidence, close: ClosePairs, probes: Probes) -> Measured:
    """Add the mated trials of the probes, and make what is stored.

    Raises:
        KeyError: A probe is of an identity that is not among the references.
    """
    label_of = {name: label for label, name in enumerate(gallery.names)}
    rows_of = np.split(np.argsort(gallery.labels, kind="stable"), np.cumsum(np.bincount(gallery.labels))[:-1])
    metric = gallery.model.manifest.metric
    labels = [label_of[name] for name in probes.names]
    nearest = [
        min(distance(probe, gallery.embeddings[row], metric) for row in rows_of[label])
        for probe, label in zip(probes.embeddings, labels, strict=True)
    ]
    trials = replace(
        trials, mated_distance=np.array(nearest, np.float64), mated_subject=np.array(labels, np.int32)
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **evidence_arrays(trials))
    return Measured(gallery, trials, close, probes, buffer.getvalue())


def stored(session: Session, done: Measured) -> Calibrated:
    """Store evidence and put it in force.

    Raises:
        CollectionNotFoundError: The collection was deleted meanwhile.
    """
    gallery, trials = done.references, done.trials
    measurement = Measurement(
        model_digest=gallery.collection.model_digest,
        revision=gallery.collection.revision,
        description=description_of(gallery, done.close_pairs, done.probes),
        subjects=trials.subjects,
        images=len(gallery.labels) + len(done.probes.names),
        mated=trials.mated_total,
        nonmated=trials.nonmated_total,
    )
    put = evidence.put(session, gallery.collection, measurement, done.packed)
    # Not remembered by its number before the commit: after a failed one the number is given again.
    own = OwnEvidence(trials, measurement.description, measurement.revision, put.created_at)
    collection = replace(gallery.collection, evidence_id=put.id)
    return Calibrated(InForce(collection, gallery.model, own_basis(own, trials)), done)


def removed(session: Session, name: str) -> None:
    """Take a collection's own evidence out of force and out of the store; see ``Calibration.remove``."""
    evidence.remove(session, collections.get(session, name))


def description_of(gallery: References, close: ClosePairs, probes: Probes) -> str:
    """Return what the trials are, on one line; no name of an identity is in it."""
    taken = len(gallery.names)
    some = "all" if taken == gallery.enrolled else f"{taken:,}, drawn at random from"
    parts = [f"references of {some} {gallery.enrolled:,} identities, compared with one another"]
    if probes.names:
        people = len(set(probes.names))
        parts.append(f"{len(probes.names):,} probe photos of {people:,} identities, each with its reference")
    else:
        parts.append("no probe photos, so the FNMR was not measured")
    if probes.failures:
        codes = Counter(failure.code for failure in probes.failures)
        reasons = ", ".join(f"{count:,} {code}" for code, count in codes.most_common())
        parts.append(f"{len(probes.failures):,} probe photos could not be used ({reasons})")
    if close.suspicious:
        parts.append(
            f"accepted although {close.seen:,} pairs within {close.threshold:.4g} look like duplicates "
            f"(at most {close.expected:.3g} are expected)"
        )
    return "; ".join(parts)


def rates(trials: Evidence) -> list[float]:
    """Return the false match rates of ``TARGETS`` that trials support."""
    return [target for target in TARGETS if target >= trials.smallest_fmr]


def _opened(session: Session, kept: OwnEvidences, name: str) -> tuple[Collection, OwnEvidence | None]:
    collection = collections.get(session, name)
    return collection, kept.of(session, collection)


def _in_force(collection: Collection, model: Model, own: OwnEvidence | None) -> InForce:
    if own is None:
        return InForce(collection, model, bundle_basis(model))
    if own.evidence is None:
        note = f"the collection's own evidence cannot be used: {own.problem}"
        return InForce(collection, model, bundle_basis(model, note))
    return InForce(collection, model, own_basis(own, own.evidence))


def _taken(numbers: Mapping[str, int], probed: Names[str], seed: int) -> set[int]:
    if len(numbers) <= MOST_IDENTITIES:
        return set(numbers.values())
    taken = {numbers[name] for name in probed}
    others = np.array([number for number in numbers.values() if number not in taken])
    drawn = np.random.default_rng(seed).permutation(others)[: max(0, MOST_IDENTITIES - len(taken))]
    return taken | set(drawn.tolist())


def _references(
    collection: Collection, model: Model, entries: Sequence[GalleryEntry], enrolled: int
) -> References:
    described = {entry.identity_id: (entry.name, entry.metadata) for entry in entries}
    label_of = {number: label for label, number in enumerate(described)}
    rows = np.array([entry.embedding for entry in entries], np.float32)
    return References(
        collection=collection,
        model=model,
        names=tuple(name for name, _ in described.values()),
        metadata=tuple(metadata for _, metadata in described.values()),
        labels=np.array([label_of[entry.identity_id] for entry in entries], np.int32),
        embeddings=rows.reshape(len(entries), model.manifest.dimensions),
        enrolled=enrolled,
    )


def _close_pairs(trials: Evidence, gallery: References) -> ClosePairs:
    """Return the pairs within one of two distances, whichever makes them the less likely.

    The first is the strictest threshold that the model's evidence supports, with the upper bound of the rate
    there. Where that evidence is of few people the bound is wide; so the second is closer, where the rate is
    carried down from what was measured (``matching.chance``), and raised where the gallery's own people are
    more alike.
    """
    bundle = gallery.model.evidence
    names, total = gallery.names, trials.nonmated_total
    nearest = zip(
        trials.nonmated_subjects[:CLOSEST_SHOWN].tolist(),
        trials.nonmated_distance[:CLOSEST_SHOWN].tolist(),
        strict=True,
    )
    closest = tuple((names[one], names[other], value) for (one, other), value in nearest)

    def within(threshold: float, rate: float) -> ClosePairs:
        seen = int(np.searchsorted(trials.nonmated_distance, threshold, side="right"))
        return ClosePairs(threshold, seen, rate * total, closest)

    strictest = bundle.threshold_for(bundle.smallest_fmr)
    bound = bundle.fmr_upper95(strictest)
    chance = chance_of(bundle)
    shares = (trials.fmr(chance.high) or 0.0, trials.fmr(chance.low) or 0.0)
    chance = chance.corrected(total, *shares)
    nearer = chance.distance_for(_EXPECTED_AT_SECOND / (total * chance.upper))
    looks = (
        within(strictest, 1.0 if bound is None else bound),
        within(nearer, min(1.0, float(chance.rate(nearer)) * chance.upper)),
    )
    return min(looks, key=lambda look: look.chance)
