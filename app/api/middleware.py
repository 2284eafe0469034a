"""Around every request: its id, its log line, and bounds on the body while it is read.

The body's bytes are reserved from a budget before they are read, so that many large uploads at once cannot
exhaust memory, and a client that sends too much, too slowly, or more than it announced is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.error_table import problem, problem_of
from app.api.observability import DURATION, REQUESTS, UPLOADS, set_request_id
from app.errors import BusyError, ImageTooLargeError, InvalidRequestError, VisavisError

logger = logging.getLogger("visavis.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

CLIENT_LEFT = 499
"""In the log and the metrics: the client hung up before its request was complete. nginx's number for it."""


class UploadTimeoutError(VisavisError):
    """The request's body did not arrive in time."""

    code = "upload_timeout"


class RequestIdAndLog:
    """Gives each request an id, answers what nothing else answered, and logs one line for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _incoming_id(scope) or uuid.uuid4().hex
        set_request_id(request_id)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = CLIENT_LEFT
        except Exception as error:
            # Here and not as a handler of the application: those run outside of this class, without the id.
            logger.error("unexpected failure", exc_info=error)
            if status == 0:
                detail = "the service failed; the log has the reason under this request_id"
                await problem("internal_error", detail)(scope, receive, send_with_id)
        finally:
            elapsed = time.perf_counter() - started
            # The pattern, not the path: a path holds identities.
            route = getattr(scope.get("route"), "path_format", "unmatched")
            REQUESTS.labels(scope["method"], route, status).inc()
            DURATION.labels(route).observe(elapsed)
            logger.info(
                "%s %s %s",
                scope["method"],
                route,
                status,
                extra={"status": status, "route": route, "ms": round(elapsed * 1e3, 2)},
            )


class BodyBudget:
    """Bounds the size of one body, the time it may take, and the bytes of all bodies together."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, total_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._total_bytes = total_bytes
        self._timeout_s = timeout_s
        self._reserved = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS", "TRACE"}:
            await self._app(scope, receive, send)
            return
        try:
            announced = self._announced(scope)
            if self._reserved + announced > self._total_bytes:
                raise BusyError("too many uploads are under way; try again")
        except VisavisError as error:
            await problem_of(error)(scope, receive, send)
            return
        self._reserved += announced
        UPLOADS.inc(announced)
        try:
            await self._app(scope, self._bounded(receive), send)
        finally:
            self._reserved -= announced
            UPLOADS.dec(announced)

    def _announced(self, scope: Scope) -> int:
        headers = dict(scope["headers"])
        length = headers.get(b"content-length")
        if length is None:
            return self._max_bytes if b"transfer-encoding" in headers else 0
        if not (length.isascii() and length.isdigit()):
            raise InvalidRequestError([{"field": "Content-Length", "problem": "a number of bytes is wanted"}])
        size = int(length[:20])
        if size > self._max_bytes:
            raise ImageTooLargeError(
                f"the request has {size} bytes; the limit is {self._max_bytes}, two images"
            )
        return size

    def _bounded(self, receive: Receive) -> Receive:
        received = 0
        deadline = time.monotonic() + self._timeout_s
        complete = False

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise UploadTimeoutError(
                    f"the request's body did not arrive within {self._timeout_s:g} s"
                ) from None
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise ImageTooLargeError(f"the request has more than {self._max_bytes} bytes")
            complete = not message.get("more_body", False)
            return message

        return bounded


def _incoming_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return text if _REQUEST_ID.fullmatch(text) else None
    return None
