"""What a request takes for granted of the state that it reads or changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from app.errors import CollectionNotFoundError, PreconditionFailedError, RevisionNotReachedError

T = TypeVar("T")

POLL_S: Final = 0.02
"""Seconds between two looks at a store that is behind."""


@dataclass(frozen=True)
class Unchanged:
    """A change is meant for an identity as it was when it was read: at this revision, or (None) at any."""

    revision: int | None

    def check(self, identity: str, found: int | None) -> None:
        """Compare with the revision of the identity; None where it is not enrolled.

        The caller holds the collection's lock, or what was found may have changed already.

        Raises:
            PreconditionFailedError: It has changed, or is not enrolled.
        """
        if found is None or self.revision not in {None, found}:
            raise PreconditionFailedError(identity=identity, expected=self.revision, found=found)


@dataclass(frozen=True)
class AtLeast:
    """A read is to show a state at least as new as this revision of the collection.

    The store that this process reads may be behind, where it is a replica: it is waited for.
    """

    revision: int = 0
    timeout_s: float = 0.0

    def check(self, collection: str, revision: int) -> None:
        """Compare with the revision that a read has found.

        Raises:
            RevisionNotReachedError: It is older.
        """
        if revision < self.revision:
            raise RevisionNotReachedError(collection=collection, wanted=self.revision, seen=revision)

    async def wait(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read, and read again while the state is too old and there is time.

        Raises:
            RevisionNotReachedError, CollectionNotFoundError: It still is.
        """
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                return await read()
            except (RevisionNotReachedError, CollectionNotFoundError):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            await asyncio.sleep(min(POLL_S, left))


ANY_STATE: Final = AtLeast()
"""Every state will do."""
