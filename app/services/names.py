"""What identities and collections may be called."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from app.errors import InvalidRequestError

IDENTITY_PATTERN: Final = r"^[^\x00-\x20\x7f-\x9f](?:[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f])?$"
"""Any script, no control characters, no blank at either end."""
IDENTITY_MAX: Final = 256
COLLECTION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEFAULT_COLLECTION: Final = "default"


def identity_name(text: str, *, field: str = "identity") -> str:
    """Return the name in Unicode's composed form (NFC), so that one spelling is one identity.

    Raises:
        InvalidRequestError: It is empty, too long, padded with blanks, or has control characters.
    """
    name = unicodedata.normalize("NFC", text)
    if not 1 <= len(name) <= IDENTITY_MAX:
        raise InvalidRequestError([{"field": field, "problem": f"1 to {IDENTITY_MAX} characters are wanted"}])
    if not re.fullmatch(IDENTITY_PATTERN, name) or name in {".", ".."}:
        raise InvalidRequestError(
            [{"field": field, "problem": "no control characters, no blanks at either end, not '.' or '..'"}]
        )
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise InvalidRequestError([{"field": field, "problem": "not valid Unicode"}])
    return name


def collection_name(text: str, *, field: str = "collection") -> str:
    """Return the name unchanged.

    Raises:
        InvalidRequestError: It has other characters than letters, digits, dot, hyphen and underscore.
    """
    if not re.fullmatch(COLLECTION_PATTERN, text):
        raise InvalidRequestError(
            [
                {
                    "field": field,
                    "problem": "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit",
                }
            ]
        )
    return text
