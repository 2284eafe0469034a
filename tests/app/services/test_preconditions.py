"""Conditions on an identity's revision, and reads that wait for a collection's."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.errors import CollectionNotFoundError, PreconditionFailedError, RevisionNotReachedError
from app.services.preconditions import ANY_STATE, AtLeast, Unchanged


class Behind:
    """A store that reaches one revision more with each read; below 0 the collection is not there."""

    def __init__(self, revision: int, at_least: AtLeast) -> None:
        self.revision = revision
        self.reads = 0
        self._at_least = at_least

    async def read(self) -> int:
        now = self.revision + self.reads
        self.reads += 1
        if now < 0:
            raise CollectionNotFoundError("people")
        self._at_least.check("people", now)
        return now


@pytest.mark.parametrize(("expected", "found"), [(3, 3), (None, 3), (0, 0), (None, 0)])
def test_identity_at_the_revision_passes(expected: int | None, found: int) -> None:
    Unchanged(expected).check("ada", found)


@pytest.mark.parametrize(("expected", "found"), [(3, 4), (4, 3), (0, 1), (3, None), (None, None)])
def test_identity_at_another_revision_is_refused_with_both(expected: int | None, found: int | None) -> None:
    with pytest.raises(PreconditionFailedError) as caught:
        Unchanged(expected).check("ada", found)
    assert caught.value.details() == {"expected_revision": expected, "revision": found}
    assert "'ada'" in str(caught.value)


@pytest.mark.parametrize(("start", "reads"), [(7, 1), (5, 1), (3, 3), (-2, 8)])
def test_read_is_repeated_until_the_revision_is_reached(start: int, reads: int) -> None:
    at_least = AtLeast(5, timeout_s=30)
    store = Behind(start, at_least)
    assert asyncio.run(at_least.wait(store.read)) == max(start, 5)
    assert store.reads == reads


@pytest.mark.parametrize(
    ("start", "error"), [(-1_000_000, CollectionNotFoundError), (0, RevisionNotReachedError)]
)
def test_wait_ends_with_the_reason(start: int, error: type[Exception]) -> None:
    at_least = AtLeast(1_000_000, timeout_s=0.1)
    store = Behind(start, at_least)
    started = time.monotonic()
    with pytest.raises(error):
        asyncio.run(at_least.wait(store.read))
    assert time.monotonic() - started >= 0.1
    assert store.reads > 1


def test_refusal_names_the_revision_that_was_seen() -> None:
    with pytest.raises(
        RevisionNotReachedError, match=r"revision 5 of collection 'people'.*has seen 3"
    ) as caught:
        AtLeast(5).check("people", 3)
    assert caught.value.details() == {"wanted_revision": 5, "revision": 3}


@pytest.mark.parametrize(("start", "error"), [(-5, CollectionNotFoundError), (0, None)])
def test_without_a_revision_there_is_one_read(start: int, error: type[Exception] | None) -> None:
    store = Behind(start, ANY_STATE)
    if error is None:
        assert asyncio.run(ANY_STATE.wait(store.read)) == 0
    else:
        with pytest.raises(error):
            asyncio.run(ANY_STATE.wait(store.read))
    assert store.reads == 1


def test_other_errors_are_not_waited_for() -> None:
    async def broken() -> int:
        raise KeyError("x")

    started = time.monotonic()
    with pytest.raises(KeyError):
        asyncio.run(AtLeast(5, timeout_s=30).wait(broken))
    assert time.monotonic() - started < 20
