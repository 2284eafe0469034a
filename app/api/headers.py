"""Headers that say what a request takes for granted: that it is sent again, an ETag, a revision."""

from __future__ import annotations

import re
from typing import Annotated, Final

from fastapi import Depends, Header, Request
from pydantic import WithJsonSchema

from app.api.dependencies import ContextDep
from app.errors import InvalidRequestError
from app.services.preconditions import AtLeast, Unchanged

# Blanks at either end would be lost on the way.
_KEY: Final = r"^[!-~]([ -~]{0,253}[!-~])?$"
_ANY: Final = "*"
_ETAG: Final = r'^"[0-9]{1,18}"$'
_REVISION: Final = r"^[0-9]{1,18}$"

_Key = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "pattern": _KEY}),
    Header(
        alias="Idempotency-Key",
        description="the caller's own name for this request, such as a UUID: sent again under the same key, "
        "it is not done twice but gets the same answer, for the hours of VISAVIS_IDEMPOTENCY_HOURS",
    ),
]
_Match = Annotated[
    str | None,
    WithJsonSchema({"anyOf": [{"const": _ANY, "type": "string"}, {"pattern": _ETAG, "type": "string"}]}),
    Header(
        alias="If-Match",
        description="ETag of the identity as it was read; it is changed only if it is the same still. * asks "
        "that it is enrolled",
    ),
]
_Revision = Annotated[
    str | None,
    WithJsonSchema({"type": "string", "pattern": _REVISION}),
    Header(
        alias="If-Revision",
        description="a revision of the collection: the answer is to show it or a later one; a replica that "
        "is behind is waited for, VISAVIS_REVISION_TIMEOUT_S at most",
    ),
]


def etag(revision: int) -> str:
    """Return the ETag of an identity at a revision."""
    return f'"{revision}"'


def idempotency_key(request: Request, _: _Key = None) -> str | None:
    """Return the key under which the request may be sent again."""
    return _header(request, "Idempotency-Key", _KEY, "1 to 255 printable ASCII characters are wanted")


def if_match(request: Request, _: _Match = None) -> Unchanged | None:
    """Return what the identity must be still."""
    wanted = 'one ETag as an answer has it is wanted, such as "17" with its quotes, or *'
    text = _header(request, "If-Match", rf"\*|{_ETAG}", wanted)
    if text is None:
        return None
    return Unchanged(None if text == _ANY else int(text.strip('"')))


def if_revision(request: Request, context: ContextDep, _: _Revision = None) -> AtLeast:
    """Return what the answer must show at least."""
    text = _header(request, "If-Revision", _REVISION, "a revision is wanted, such as 17")
    return AtLeast(int(text or 0), context.settings.revision_timeout_s if text else 0.0)


KeyDep = Annotated[str | None, Depends(idempotency_key)]
UnchangedDep = Annotated[Unchanged | None, Depends(if_match)]
AtLeastDep = Annotated[AtLeast, Depends(if_revision)]


def _header(request: Request, name: str, pattern: str, wanted: str) -> str | None:
    values = request.headers.getlist(name)
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequestError([{"field": name, "problem": "given more than once"}])
    if not re.fullmatch(pattern, values[0]):
        raise InvalidRequestError([{"field": name, "problem": wanted}])
    return values[0]
