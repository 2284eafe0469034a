"""Answer a write once: a repeat under the same Idempotency-Key gets the answer that was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from app.api.dependencies import ContextDep
from app.api.headers import KeyDep
from app.services.idempotency import Keep, RepeatableRequest, keep_nothing
from app.storage.records import Answer

T = TypeVar("T")


class Once:
    """What a route that writes answers with."""

    def __init__(self, request: Request, context: ContextDep, key: KeyDep) -> None:
        self._request = request
        self._context = context
        self._key = key

    async def answer(
        self,
        fields: BaseModel | None,
        write: Callable[[Keep[T]], Awaitable[T]],
        answer: Callable[[T], Answer],
    ) -> Response:
        """Do the write and answer, or answer as before.

        Args:
            fields: Of the request, as they were understood.
            write: The use case; it takes what is kept with the write.
            answer: Of what was done.

        Raises:
            IdempotencyKeyReusedError: The key came with another request.
            VisavisError: What the use case refuses.
        """
        if self._key is None:
            return _response(answer(await write(keep_nothing)))
        # Off the event loop, because the digest of large photos takes a while.
        digest = await run_in_threadpool(request_sha256, self._request, fields)
        request = RepeatableRequest(self._request.state.caller, self._key, digest)
        given, before = await self._context.idempotency.once(request, write, answer)
        return _response(given, {"Idempotent-Replayed": "true"} if before else {})


OnceDep = Annotated[Once, Depends()]


def shown(status: int, view: BaseModel, *, etag: str | None = None) -> Answer:
    """Return the answer that shows what was written."""
    return Answer(status, view.model_dump_json().encode(), etag)


def request_sha256(request: Request, fields: BaseModel | None) -> str:
    """Return the SHA-256 of all that a request asks for, however its body was put together.

    Fields that were left to their defaults do not count: a later version may have more of them.
    """
    asked = {
        "method": request.method,
        # As it was sent: decoded, a slash in a name would be one between names.
        "path": (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1"),
        "query": sorted(request.query_params.multi_items()),
        "fields": None if fields is None else fields.model_dump(exclude_defaults=True),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=_photo).encode()).hexdigest()


def _photo(data: Any) -> dict[str, str]:  # noqa: ANN401 - bytes, but json may meet anything
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    headers = dict(headers or {})
    if answer.etag is not None:
        headers["ETag"] = answer.etag
    return Response(answer.body, answer.status, headers, "application/json" if answer.body else None)
