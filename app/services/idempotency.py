"""Writes that their callers may send again: the answer is kept in the transaction of the write itself.

So after a crash both are there or neither is, and whoever repeats a request under the same key, wherever it
arrives, gets the answer that was given, or is the first. Refusals are not kept: they changed nothing, and a
repeat may fare better.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Concatenate, ParamSpec, TypeVar

from app.errors import BusyError, IdempotencyKeyReusedError, VisavisError
from app.storage import idempotency
from app.storage.database import Database, Session
from app.storage.idempotency import Kept
from app.storage.records import Answer

P = ParamSpec("P")
T = TypeVar("T")

Keep = Callable[[Session, T], None]
"""Called with what a write did, at the end of its transaction."""


def keep_nothing(session: Session, result: object) -> None:
    """The ``Keep`` of a write that cannot be repeated."""


def kept(work: Callable[Concatenate[Session, P], T], keep: Keep[T]) -> Callable[Concatenate[Session, P], T]:
    """Return the work of a transaction with ``keep`` at its end."""

    def both(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result = work(session, *args, **kwargs)
        keep(session, result)
        return result

    return both


@dataclass(frozen=True)
class RepeatableRequest:
    """A request under an Idempotency-Key.

    Attributes:
        caller: Id of the API key, or empty: callers do not see one another's answers.
        key: The caller's name for the request.
        sha256: Of all that the request asks for.
    """

    caller: str
    key: str
    sha256: str


class Idempotency:
    """Gives each request under a key one answer."""

    def __init__(self, database: Database, hours: float) -> None:
        self._database = database
        self._lifetime = timedelta(hours=hours)

    async def once(
        self,
        request: RepeatableRequest,
        write: Callable[[Keep[T]], Awaitable[T]],
        answer: Callable[[T], Answer],
    ) -> tuple[Answer, bool]:
        """Do a write, or find that it is done.

        Args:
            request: What is to be done once.
            write: Does it, and calls what it is given at the end of its transaction.
            answer: Of what was done. It is made before the commit, so it tells the time up to there.

        Returns:
            The answer, and whether it was given before.

        Raises:
            IdempotencyKeyReusedError: The key came with another request.
            VisavisError: What the write refuses; nothing is kept then.
        """
        found = await self._find(request)
        if found is not None:
            return found, True
        made: list[Answer] = []

        def keep(session: Session, result: T) -> None:
            made.append(answer(result))
            since = self._since()
            if not idempotency.add(
                session, request.caller, request.key, Kept(request.sha256, made[-1]), since=since
            ):
                raise BusyError("the same Idempotency-Key is being answered at this moment; try again")
            idempotency.prune(session, before=since)

        try:
            await write(keep)
        except VisavisError as error:
            # Another with the same key may have been faster, and be why this one was refused.
            try:
                found = await self._find(request)
            except BusyError:
                raise error from None
            if found is None:
                raise
            return found, True
        return made[-1], False

    def prune_now(self) -> None:
        """Remove all answers that are too old, on this thread."""
        while self._database.write_now(idempotency.prune, before=self._since()):
            pass

    async def _find(self, request: RepeatableRequest) -> Answer | None:
        found = await self._database.read(idempotency.find, request.caller, request.key, since=self._since())
        if found is None:
            return None
        if found.request_sha256 != request.sha256:
            raise IdempotencyKeyReusedError
        return found.answer

    def _since(self) -> datetime:
        return datetime.now(UTC) - self._lifetime
