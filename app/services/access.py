"""API keys: made once, stored as hashes, compared in constant time.

A key reads ``vv_<id>_<secret>``. The secret has 256 random bits, so a plain SHA-256 of it cannot be
searched; the id only finds the row.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final, Literal

from app.errors import ForbiddenError, InvalidRequestError, UnauthorizedError
from app.storage import api_keys
from app.storage.api_keys import ApiKey
from app.storage.database import Database

Role = Literal["full", "match"]
"""``match`` may verify, identify, embed, detect and read; ``full`` may also enrol, change and delete."""

_KEY_FORM: Final = re.compile(r"vv_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NO_KEY: Final = hashlib.sha256(b"").hexdigest()
_REMEDY: Final = "send a valid key as 'Authorization: Bearer vv_...' (made by: visavis keys create NAME)"


@dataclass(frozen=True)
class Guard:
    """Whether keys are demanded at all."""

    required: bool
    """Always, or (False) only from the moment that a key was made; revoking it does not open the door."""
    disabled: bool
    """Never: ``VISAVIS_INSECURE``."""


class Access:
    """Checks and manages keys."""

    def __init__(self, database: Database, guard: Guard) -> None:
        self._database = database
        self._guard = guard

    async def authorise(self, presented: str | None, *, changes: bool) -> str:
        """Let a request pass or refuse it.

        Args:
            presented: The bearer token of the request, if any.
            changes: Whether the request would enrol, change or delete.

        Returns:
            Id of the key; empty where none was asked for.

        Raises:
            UnauthorizedError: A key is demanded and this is not one.
            ForbiddenError: The key's role does not allow changes.
        """
        if self._guard.disabled:
            return ""
        if presented is None:
            if self._guard.required or await self._database.read(api_keys.any_made):
                raise UnauthorizedError(f"an API key is needed; {_REMEDY}")
            return ""
        key_id, secret = _split(presented)
        key = await self._database.read(api_keys.get, key_id)
        stored = key.secret_sha256 if key else _NO_KEY
        same = hmac.compare_digest(stored, hashlib.sha256(secret.encode()).hexdigest())
        if key is None or not same or key.revoked_at is not None:
            raise UnauthorizedError(f"the API key is unknown or revoked; {_REMEDY}")
        if changes and key.role != "full":
            raise ForbiddenError(f"the key {key.name!r} has role {key.role!r}; this needs role 'full'")
        return key.id


def create_key(database: Database, name: str, role: Role) -> str:
    """Make a key and return it; it cannot be shown again.

    Raises:
        InvalidRequestError: The name is taken or not 1 to 64 printable characters.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidRequestError([{"field": "name", "problem": "1 to 64 printable characters are wanted"}])
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    if not database.write_now(api_keys.add, key_id, name, digest, role):
        raise InvalidRequestError([{"field": "name", "problem": f"a key {name!r} exists already"}])
    return f"vv_{key_id}_{secret}"


def list_keys(database: Database) -> list[ApiKey]:
    """Return every key, oldest first, without secrets."""
    return database.read_now(api_keys.every)


def revoke_key(database: Database, name: str) -> None:
    """Refuse a key from now on.

    Raises:
        InvalidRequestError: There is none of that name.
    """
    if not database.write_now(api_keys.revoke, name):
        raise InvalidRequestError([{"field": "name", "problem": f"there is no key {name!r}"}])


def _split(presented: str) -> tuple[str, str]:
    form = _KEY_FORM.fullmatch(presented)
    return (form[1], form[2]) if form else ("", "")
