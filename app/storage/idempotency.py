"""SQL of the answers that are kept for writes that may be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.storage.records import Answer
from app.storage.schema import IdempotencyKeyRow, utc_now

PRUNED_AT_ONCE: Final = 100
"""Rows removed with one write, which adds one: so a backlog shrinks and no write pays for all of it."""


@dataclass(frozen=True)
class Kept:
    """An answer, and the digest of the request that it answers."""

    request_sha256: str
    answer: Answer


def find(session: Session, caller: str, key: str, *, since: datetime) -> Kept | None:
    """Return the answer that a caller got under a key; None where there is none, or an older one."""
    row = session.scalar(
        select(IdempotencyKeyRow).where(
            IdempotencyKeyRow.caller == caller,
            IdempotencyKeyRow.key == key,
            IdempotencyKeyRow.created_at >= since,
        )
    )
    return None if row is None else Kept(row.request_sha256, Answer(row.status, row.answer, row.etag))


def add(session: Session, caller: str, key: str, kept: Kept, *, since: datetime) -> bool:
    """Keep an answer in place of one that is too old; returns False when a newer one is there.

    A transaction that adds the same key at the same time is waited for.
    """
    session.execute(
        delete(IdempotencyKeyRow).where(
            IdempotencyKeyRow.caller == caller,
            IdempotencyKeyRow.key == key,
            IdempotencyKeyRow.created_at < since,
        )
    )
    session.flush()  # so that the error below can only be of the key
    row = IdempotencyKeyRow(
        caller=caller,
        key=key,
        request_sha256=kept.request_sha256,
        status=kept.answer.status,
        answer=kept.answer.body,
        etag=kept.answer.etag,
        created_at=utc_now(),
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return False
    return True


def prune(session: Session, *, before: datetime) -> bool:
    """Remove some of the answers that are older; returns False when nobody else left any."""
    oldest = session.execute(
        select(IdempotencyKeyRow.caller, IdempotencyKeyRow.key)
        .where(IdempotencyKeyRow.created_at < before)
        .order_by(IdempotencyKeyRow.created_at)
        .limit(PRUNED_AT_ONCE)
        .with_for_update(skip_locked=True)
    ).all()
    if oldest:
        which = tuple_(IdempotencyKeyRow.caller, IdempotencyKeyRow.key)
        session.execute(
            delete(IdempotencyKeyRow)
            .where(which.in_([tuple(row) for row in oldest]))
            .execution_options(synchronize_session=False)
        )
    return bool(oldest)
