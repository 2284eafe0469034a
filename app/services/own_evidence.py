"""The trials that were measured on a collection's own people, read once and kept in memory.

The row of a collection names its evidence, and numbers are never given twice. So a request that has the row
knows whether what is in memory is what is in force, in whichever process it was measured, without a query
more. What cannot be used is remembered too: it is read once, reported once, and stands in no request's way.
"""

from __future__ import annotations

import io
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.matching.evidence import Evidence, read_evidence
from app.storage import evidence
from app.storage.database import Session
from app.storage.records import Collection

logger = logging.getLogger("visavis.evidence")

MAX_KEPT: Final = 256
"""Collections whose evidence is kept in memory, like their galleries; the one used longest ago is dropped."""


@dataclass(frozen=True, eq=False)
class OwnEvidence:
    """A collection's own evidence.

    Attributes:
        evidence: The trials; None where they cannot be used.
        description: One line: whose trials, and how they were formed.
        revision: The collection's, whose references were compared.
        measured_at: When it was stored.
        problem: Why they cannot be used; empty where they can.
    """

    evidence: Evidence | None
    description: str = ""
    revision: int = 0
    measured_at: datetime | None = None
    problem: str = ""


class OwnEvidences:
    """What this process has read so far, by number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, OwnEvidence] = OrderedDict()

    def of(self, session: Session, collection: Collection) -> OwnEvidence | None:
        """Return a collection's own evidence, or None where the model bundle's is in force.

        The session is used only when this process sees the evidence for the first time; it is the one that
        read the collection, so that what the row names is there.
        """
        number = collection.evidence_id
        if number is None:
            return None
        with self._lock:
            found = self._kept.get(number)
            if found is not None:
                self._kept.move_to_end(number)
                return found
        found = _read(session, collection)
        if found.problem:
            logger.warning(
                "evidence %d of collection %d cannot be used, the model's counts instead: %s",
                number,
                collection.id,
                found.problem,
            )
        with self._lock:
            self._kept[number] = found
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return found


def _read(session: Session, collection: Collection) -> OwnEvidence:
    stored = evidence.get(session, collection)
    if stored is None:
        return OwnEvidence(None, problem="it is not in the store")
    about = stored.measurement
    if about.model_digest != collection.model_digest:
        return OwnEvidence(None, problem=f"it is of another model ({about.model_digest[:12]})")
    try:
        trials = read_evidence(io.BytesIO(stored.trials))
    except Exception as error:  # whatever is wrong with the bytes, no request may fail by it
        return OwnEvidence(None, problem=f"it is damaged ({type(error).__name__})")
    return OwnEvidence(trials, about.description, about.revision, stored.created_at)
