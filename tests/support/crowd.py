"""People at angles all round the circle, whose distances are known by hand.

Two who are ``d`` degrees apart are ``2 sin(d/2)`` apart, and of people at random angles a share of
``d / 180`` is within that. References are written into the store, because
images reach a quarter of the circle only.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.matching.evidence import Evidence
from app.matching.trials import all_trials
from app.storage import collections, identities
from app.storage.database import Database, Session
from app.storage.records import Collection, NewReference

BUNDLE_SUBJECTS = 200


def at(degrees: float) -> NDArray[np.float32]:
    """Return the embedding at an angle."""
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], np.float32)


def apart(degrees: float) -> float:
    """Return the distance of two embeddings that are so far apart."""
    return 2.0 * math.sin(math.radians(degrees) / 2.0)


def crowd_evidence() -> Evidence:
    """Return the trials of 200 people at random angles, with two images each, a degree apart."""
    angles = np.random.default_rng(3).uniform(0.0, 360.0, BUNDLE_SUBJECTS)
    rows = np.array([at(angle + shift) for angle in angles for shift in (0.0, 1.0)])
    return all_trials(rows, np.repeat(np.arange(BUNDLE_SUBJECTS, dtype=np.int32), 2), "euclidean")


def evenly(count: int) -> dict[str, float]:
    """Return people round the circle, as far from one another as can be: ``p0`` at 0 degrees, and so on."""
    return {f"p{number}": 360.0 * number / count for number in range(count)}


def enrol_at(
    database: Database,
    model: Model,
    people: Mapping[str, float],
    *,
    collection: str = "people",
    metadata: Mapping[str, dict[str, Any]] | None = None,
) -> Collection:
    """Write people at angles into a collection, which is made if it is not there, as one revision."""

    def write(session: Session) -> Collection:
        found = collections.find(session, collection) or collections.add(
            session, collection, model.model_id, model.digest, {}
        )
        revision = collections.next_revision(session, found)
        for name, degrees in people.items():
            reference = NewReference(str(uuid.uuid4()), model.digest, at(degrees), None, {})
            details = (metadata or {}).get(name, {})
            identities.add(session, found, revision, name, details, reference)
        return found

    return database.write_now(write)
