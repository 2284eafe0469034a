"""What identities and collections may be called, and what may be kept beside an identity."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Final

from app.errors import InvalidRequestError

_EDGE: Final = r"[^\x00-\x20\x7f-\x9f]"
_EDGE_NO_DOT: Final = r"[^\x00-\x20.\x7f-\x9f]"
_INNER: Final = r"[^\x00-\x1f\x7f-\x9f]"
IDENTITY_PATTERN: Final = (
    rf"^(?:{_EDGE_NO_DOT}|{_EDGE_NO_DOT}{_EDGE}|\.{_EDGE_NO_DOT}|{_EDGE}{_INNER}+{_EDGE})$"
)
"""Any script, no control characters, no blank at either end, not '.' or '..' (folders, in a path)."""
IDENTITY_MAX: Final = 256
COLLECTION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
DEFAULT_COLLECTION: Final = "default"
FILTER_KEY_PATTERN: Final = r'^[^"\\\x00-\x1f]*$'
"""Keys that a search can filter by: what both stores can name in a path."""
MAX_METADATA_BYTES: Final = 16 * 1024
MAX_METADATA_DEPTH: Final = 32
"""Objects and lists inside one another; what writes the answer gives up at some two hundred."""


def identity_name(text: str, *, field: str = "identity") -> str:
    """Return the name in Unicode's composed form (NFC), so that one spelling is one identity.

    Raises:
        InvalidRequestError: It is empty, too long, padded with blanks, or has control characters.
    """
    name = unicodedata.normalize("NFC", text)
    if not 1 <= len(name) <= IDENTITY_MAX:
        raise InvalidRequestError([{"field": field, "problem": f"1 to {IDENTITY_MAX} characters are wanted"}])
    if not re.fullmatch(IDENTITY_PATTERN, name):
        raise InvalidRequestError(
            [{"field": field, "problem": "no control characters, no blanks at either end, not '.' or '..'"}]
        )
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
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


def metadata_object(value: dict[str, Any], *, field: str = "metadata") -> dict[str, Any]:
    """Return the object unchanged.

    Raises:
        InvalidRequestError: It is too large, nested too deeply, or the store cannot hold it: not a number,
            infinity, lone surrogates.
    """
    try:
        _check_json(value, depth=1)
        if len(json.dumps(value, allow_nan=False)) > MAX_METADATA_BYTES:
            raise ValueError(f"at most {MAX_METADATA_BYTES} bytes of JSON are kept")
    except ValueError as error:
        raise InvalidRequestError([{"field": field, "problem": str(error)}]) from None
    return value


def _check_json(value: Any, depth: int) -> None:  # noqa: ANN401 - any JSON value
    if depth > MAX_METADATA_DEPTH + 1:
        raise ValueError(f"at most {MAX_METADATA_DEPTH} objects and lists may be nested")
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("not valid Unicode")
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_json(name, depth + 1)
            _check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth + 1)
