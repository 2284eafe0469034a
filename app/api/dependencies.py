"""What routes need of the process, and the checks that come before a body is read."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated

from fastapi import Depends, Path, Query, Request

from app.api.schemas import IdentityName
from app.context import Context
from app.errors import ForbiddenError, InvalidRequestError, UnauthorizedError
from app.services.names import COLLECTION_PATTERN


def get_context(request: Request) -> Context:
    """Return the process's services."""
    context: Context = request.app.state.context
    return context


_THIS_MACHINE = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")

ContextDep = Annotated[Context, Depends(get_context)]


async def may_read(request: Request, context: ContextDep) -> None:
    """Let any valid key pass."""
    await _authorise(request, context, changes=False)


async def may_change(request: Request, context: ContextDep) -> None:
    """Let keys of role ``full`` pass."""
    await _authorise(request, context, changes=True)


async def _authorise(request: Request, context: Context, *, changes: bool) -> None:
    settings = context.settings
    refuse_other_sites(request, loopback=settings.loopback, insecure=settings.insecure)
    request.state.caller = await context.access.authorise(_bearer(request), changes=changes)


def refuse_other_sites(request: Request, *, loopback: bool, insecure: bool) -> None:
    """Refuse what a web page of another site makes a browser send.

    Without a key, being on this machine is all the right there is, and so is every page in its browser: it
    could post a form to the loopback address, or come in under a name that it lets point there.

    Raises:
        ForbiddenError: The page is of another site, or the Host is no name of this machine.
        UnauthorizedError: A proxy passed the request on.
    """
    if insecure or "authorization" in request.headers:
        return  # a browser adds no key by itself
    hosts = request.headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        raise ForbiddenError("the request comes from a web page of another site; such pages need an API key")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError("the request comes from a web page of another site; such pages need an API key")
    if loopback and not _THIS_MACHINE.fullmatch(host):
        raise ForbiddenError(
            f"the Host {host!r} is no name of this machine; call 127.0.0.1 or localhost, or send an API key"
        )
    if loopback and any(name in request.headers for name in _FORWARDED):
        raise UnauthorizedError(
            "the request came through a proxy, which makes every caller look local; make a key with "
            "'visavis keys create NAME' and send it, or start with --insecure"
        )


def strict_query(request: Request) -> None:
    """Refuse query parameters that the route does not have, or that are given twice.

    Raises:
        InvalidRequestError: Such a parameter; it is named.
    """
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            raise InvalidRequestError([{"field": name, "problem": "there is no such query parameter here"}])
        if count > 1:
            raise InvalidRequestError([{"field": name, "problem": "given more than once"}])


READING = [Depends(may_read), Depends(strict_query)]
CHANGING = [Depends(may_change), Depends(strict_query)]
OPEN = [Depends(strict_query)]

CollectionQuery = Annotated[str, Query(pattern=COLLECTION_PATTERN, description="name of the collection")]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="entries of one page")]
CursorQuery = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}$", description="next_cursor of the page before")
]
CollectionPath = Annotated[str, Path(pattern=COLLECTION_PATTERN, description="name of the collection")]
IdentityPath = Annotated[IdentityName, Path(description="the caller's name for the subject")]


def _bearer(request: Request) -> str | None:
    value = request.headers.get("authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
