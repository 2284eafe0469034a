"""What clients did to a store and what they saw of it, and whether the two go together.

Every operation has the moments between which it happened. An identity is changed by one client at a time, so
its states form a row; identities are changed, and everything is read, by many clients at once. A read of an
identity must show a state that was in force at some moment of the read, and no older one than a read that had
ended before it began: that is linearizability, one identity at a time. Revisions tie the identities of a
collection together: an answer at a revision shows each change up to it and none after it, and revisions never
go back, whoever asks whichever process.
"""

from __future__ import annotations

import heapq
import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

Key = tuple[str, str]
"""Collection and identity; the identity is empty for the collection itself."""


@dataclass(frozen=True)
class State:
    """What there is under a name after a change: the change's number, and the number of the template."""

    stamp: int
    template: int


@dataclass(frozen=True)
class Change:
    """One acknowledged change.

    Attributes:
        started, ended: When it was asked for and when it was known to be done.
        state: What there is after it; None for nothing.
        revision: The collection's, where the answer told.
        life: How often the collection had been created or deleted before.
    """

    started: float
    ended: float
    state: State | None
    revision: int | None
    life: int


@dataclass(frozen=True)
class Read:
    """One answer.

    Attributes:
        started, ended: When it was asked for and when it was there.
        collection: Where.
        shows: For each identity of which the answer says something, the stamp it shows; 0 says it is absent.
        revision: The collection's, where the answer told.
        own_revision: The identity's, of an answer about one.
        fits: Where the answer shows no stamp but a distance: whether a state explains it.
    """

    started: float
    ended: float
    collection: str
    shows: tuple[tuple[str, int], ...]
    revision: int | None = None
    own_revision: int | None = None
    fits: Callable[[State], bool] | None = None


@dataclass
class History:
    """All changes, identity by identity in their order, and all reads, in any order."""

    changes: dict[Key, list[Change]] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)


@dataclass
class Verdict:
    """How often each kind of contradiction was found, and the first few in words.

    Kinds: ``stale`` (an older state than must be seen), ``ghost`` (a stale one of what was deleted),
    ``invented`` (a state that no acknowledged change made), ``torn`` (rows that do not belong to the answer's
    revision), ``revision`` (one that went back, or was given twice).
    """

    found: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        """Count a contradiction."""
        self.found[kind] += 1
        if len(self.examples) < 10:
            self.examples.append(f"{kind}: {text}")


def check(history: History) -> Verdict:
    """Compare every read with the changes, and all revisions with one another."""
    verdict = Verdict()
    _check_states(history, verdict)
    _check_revisions(history, verdict)
    return verdict


class _Row:
    """The states of one name: number 0 is absence, number i what the i-th change made."""

    def __init__(self, changes: list[Change]) -> None:
        self.changes = changes
        self._starts = [change.started for change in changes]
        self._ends = [change.ended for change in changes]

    def state(self, number: int) -> State | None:
        return self.changes[number - 1].state if number else None

    def window(self, started: float, ended: float) -> tuple[int, int]:
        """Return the oldest and the newest state that may be seen between two moments."""
        return bisect_left(self._ends, started), bisect_left(self._starts, ended)

    def belongs(self, number: int, revision: int, life: int) -> bool:
        """Return whether a state is the one at a revision, as far as revisions of changes are known."""
        made = self.changes[number - 1] if number else None
        next_ = self.changes[number] if number < len(self.changes) else None
        if made is not None and made.life == life and (made.revision or 0) > revision:
            return False
        return not (
            next_ is not None
            and next_.life == life
            and next_.revision is not None
            and next_.revision <= revision
        )


def _check_states(history: History, verdict: Verdict) -> None:
    rows = {key: _Row(changes) for key, changes in history.changes.items()}
    lives = _Lives(history)
    floors: dict[Key, int] = {}
    ended: list[tuple[float, Key, int]] = []
    for read in sorted(history.reads, key=lambda one: one.started):
        while ended and ended[0][0] < read.started:
            _, key, number = heapq.heappop(ended)
            floors[key] = max(floors.get(key, 0), number)
        life = None if read.revision is None else lives.during(read.collection, read.started, read.ended)
        for name, stamp in read.shows:
            key = (read.collection, name)
            row = rows.get(key)
            if row is None:
                if stamp:
                    verdict.add("invented", f"{key} shows {stamp}, and was never enrolled")
                continue
            oldest, newest = row.window(read.started, read.ended)
            oldest = max(oldest, floors.get(key, 0))
            shown = [n for n in range(oldest, newest + 1) if _shows(read, stamp, row.state(n))]
            if not shown:
                _explain(verdict, read, key, stamp, row, oldest)
                continue
            heapq.heappush(ended, (read.ended, key, shown[0]))
            if life is not None and read.revision is not None:
                revision = read.revision
                if not any(row.belongs(number, revision, life) for number in shown):
                    verdict.add("torn", f"{key} shows {stamp} in an answer at revision {revision}")
            if read.own_revision is not None and row.changes[shown[0] - 1].revision != read.own_revision:
                verdict.add("torn", f"{key} shows {stamp} with revision {read.own_revision}")


def _shows(read: Read, stamp: int, state: State | None) -> bool:
    if state is None or not stamp:
        return state is None and not stamp
    return read.fits(state) if read.fits is not None else state.stamp == stamp


def _explain(verdict: Verdict, read: Read, key: Key, stamp: int, row: _Row, oldest: int) -> None:
    known = any(_shows(read, stamp, row.state(number)) for number in range(len(row.changes) + 1))
    must = row.state(oldest)
    kind = "invented" if not known else "ghost" if stamp and must is None else "stale"
    verdict.add(
        kind,
        f"{key} shows {stamp or 'nothing'} between {read.started:.6f} and {read.ended:.6f}, "
        f"after {'nothing' if must is None else must.stamp} was in force",
    )


class _Lives:
    """How often a collection had been created or deleted at a moment, where that did not change then."""

    def __init__(self, history: History) -> None:
        self._rows = {key[0]: _Row(changes) for key, changes in history.changes.items() if not key[1]}

    def during(self, collection: str, started: float, ended: float) -> int | None:
        row = self._rows.get(collection)
        if row is None:
            return 0
        oldest, newest = row.window(started, ended)
        return oldest if oldest == newest else None


def _check_revisions(history: History, verdict: Verdict) -> None:
    lives = _Lives(history)
    told: dict[tuple[str, int], list[tuple[float, float, int, bool]]] = {}
    for read in history.reads:
        if read.revision is not None:
            life = lives.during(read.collection, read.started, read.ended)
            if life is not None:
                entry = (read.started, read.ended, read.revision, False)
                told.setdefault((read.collection, life), []).append(entry)
    for (collection, _), changes in history.changes.items():
        for change in changes:
            if change.revision is not None:
                entry = (change.started, change.ended, change.revision, True)
                told.setdefault((collection, change.life), []).append(entry)
    for (collection, life), entries in told.items():
        _check_order(verdict, f"collection {collection}, life {life}", entries)


def _check_order(verdict: Verdict, where: str, entries: list[tuple[float, float, int, bool]]) -> None:
    highest = 0
    ended: list[tuple[float, int]] = []
    for started, end, revision, changed in sorted(entries):
        while ended and ended[0][0] < started:
            highest = max(highest, heapq.heappop(ended)[1])
        if revision < highest or (changed and revision == highest):
            verdict.add("revision", f"{where}: {revision} after {highest}")
        heapq.heappush(ended, (end, revision))
    # A rename is one change of two names, so it stands there twice, with the same moments.
    given = sorted({(revision, started) for started, _, revision, changed in entries if changed})
    for (one, _), (other, _) in itertools.pairwise(given):
        if one == other:
            verdict.add("revision", f"{where}: {one} was given twice")
