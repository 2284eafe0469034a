"""SQL of API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.storage.records import with_zone
from app.storage.schema import ApiKeyRow, utc_now


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; the secret itself is nowhere."""

    id: str
    name: str
    secret_sha256: str
    role: str
    created_at: datetime
    revoked_at: datetime | None


def add(session: Session, key_id: str, name: str, secret_sha256: str, role: str) -> bool:
    """Store a new key; returns False when the name is taken."""
    try:
        with session.begin_nested():
            session.add(ApiKeyRow(id=key_id, name=name, secret_sha256=secret_sha256, role=role))
    except IntegrityError:
        return False
    return True


def get(session: Session, key_id: str) -> ApiKey | None:
    """Return a key by its public id, revoked or not."""
    row = session.get(ApiKeyRow, key_id)
    return None if row is None else _plain(row)


def every(session: Session) -> list[ApiKey]:
    """Return all keys, oldest first."""
    return [_plain(row) for row in session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at))]


def any_made(session: Session) -> bool:
    """Return whether a key was ever made, revoked or not."""
    return session.scalar(select(ApiKeyRow.id).limit(1)) is not None


def revoke(session: Session, name: str) -> bool:
    """Revoke a key by name; returns False when there is none."""
    touched = session.execute(
        update(ApiKeyRow).where(ApiKeyRow.name == name).values(revoked_at=utc_now()).returning(ApiKeyRow.id)
    )
    return touched.first() is not None


def _plain(row: ApiKeyRow) -> ApiKey:
    return ApiKey(
        row.id,
        row.name,
        row.secret_sha256,
        row.role,
        with_zone(row.created_at),
        None if row.revoked_at is None else with_zone(row.revoked_at),
    )
