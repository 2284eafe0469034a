"""Domain errors as HTTP answers: one table, one format (RFC 9457 problem+json)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from app.api.observability import REFUSALS, current_request_id
from app.errors import BusyError, InvalidRequestError, OutcomeUnknownError, VisavisError

logger = logging.getLogger("visavis.errors")

STATUS: Final[dict[str, int]] = {
    "image_unreadable": 422,
    "image_too_large": 413,
    "unsupported_media_type": 415,
    "no_face": 422,
    "multiple_faces": 422,
    "quality_too_low": 422,
    "identity_not_found": 404,
    "collection_not_found": 404,
    "model_not_found": 404,
    "reference_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "identity_exists": 409,
    "collection_exists": 409,
    "model_mismatch": 409,
    "model_not_served": 409,
    "migration_state": 409,
    "identities_pending": 409,
    "too_many_references": 409,
    "last_reference": 409,
    "too_few_identities": 409,
    "duplicates_suspected": 409,
    "revision_not_reached": 409,
    "precondition_failed": 412,
    "idempotency_key_reused": 422,
    "insufficient_evidence": 422,
    "invalid_request": 422,
    "busy": 503,
    "outcome_unknown": 503,
    "not_ready": 503,
    "unauthorized": 401,
    "forbidden": 403,
    "internal_error": 500,
}
"""Every code the service answers with, and its status. Codes are stable."""


class Problem(BaseModel):
    """An error, as RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:visavis:problem:<code>")
    title: str
    status: int
    detail: str = Field(description="what is wrong and what to do about it")
    code: str = Field(description="stable name of the error")
    request_id: str = Field(description="also in the X-Request-ID header and in the log")


class ProblemResponse(Response):
    """An answer of media type ``application/problem+json``."""

    media_type = "application/problem+json"


def problem(
    code: str,
    detail: str,
    *,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> ProblemResponse:
    """Return the answer for an error code."""
    status = STATUS[code]
    REFUSALS.labels(code).inc()
    content = {
        **(details or {}),
        "type": f"urn:visavis:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": current_request_id(),
    }
    # ASCII with escapes: a message may quote a caller's text, and that may not be valid Unicode.
    return ProblemResponse(json.dumps(content), status_code=status, headers=headers)


def problem_of(error: VisavisError) -> ProblemResponse:
    """Return the answer for a domain error."""
    headers = {}
    if isinstance(error, BusyError | OutcomeUnknownError):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.code == "unauthorized":
        headers["WWW-Authenticate"] = 'Bearer realm="visavis"'
    if error.code == "upload_timeout":
        headers["Connection"] = "close"  # or the rest of the body would be waited for
    return problem(error.code, str(error), details=error.details(), headers=headers)


def invalid_request(errors: Sequence[Any], *, prefix: str = "") -> InvalidRequestError:
    """Turn pydantic's errors into one domain error that names each field."""
    problems = []
    for item in errors:
        path = [str(part) for part in item["loc"] if part not in {"body", "query", "path", "header"}]
        message = str(item["msg"]).removeprefix("Value error, ")
        problems.append({"field": prefix + ".".join(path) or "body", "problem": message})
    return InvalidRequestError(problems)


def install(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make every error of the app a problem; the routes are asked which methods a path has."""

    @app.exception_handler(VisavisError)
    async def _domain(_: Request, error: VisavisError) -> Response:
        if STATUS[error.code] >= 500 and not isinstance(error, BusyError | OutcomeUnknownError):
            logger.error("failed: %s", error)
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> Response:
        return problem_of(invalid_request(error.errors()))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(allowed_methods(routes, request))
            return problem(
                "method_not_allowed",
                f"{request.method} is not possible here; allowed: {allowed}",
                headers={"Allow": allowed},
            )
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem("not_found", "there is no such route; /docs lists them all")
        return problem("invalid_request", str(error.detail))


def allowed_methods(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """Return every method that some route offers at the request's path."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods.update(route.methods or ())
    return sorted(methods)
