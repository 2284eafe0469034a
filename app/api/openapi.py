"""What FastAPI cannot see of the routes that read their own body: both media types, and their errors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from app.api.error_table import STATUS, Problem

_OPEN = ("invalid_request", "internal_error")
_GUARDED = (*_OPEN, "unauthorized", "forbidden", "busy")


def errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a guarded route that may answer with the codes, and the usual ones."""
    return _responses(*_GUARDED, *codes)


def open_errors(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route that asks for no key."""
    return _responses(*_OPEN, *codes)


def _responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code], []).append(code)
    return {
        status: {
            "description": " or ".join(sorted(names)),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, names in sorted(by_status.items())
    }


BODY_ERRORS = ("image_too_large", "unsupported_media_type", "upload_timeout")
IMAGE_ERRORS = (*BODY_ERRORS, "image_unreadable", "no_face", "multiple_faces")


def _links(operations: tuple[str, ...], **parameters: str) -> dict[str, Any]:
    return {
        name: {
            "operationId": name,
            "parameters": {
                place.replace("__", "."): f"$response.body#{at}" for place, at in parameters.items()
            },
        }
        for name in operations
    }


WRITE_ERRORS = ("idempotency_key_reused", "outcome_unknown")
ETAG: dict[str, Any] = {
    "headers": {
        "ETag": {
            "description": "the identity's revision, for If-Match",
            "schema": {"type": "string", "pattern": '^"[0-9]+"$'},
        }
    }
}
"""What an answer about one identity has beside its body."""

_ON_IDENTITY = ("get_identity", "change_identity", "delete_identity")
IDENTITY_LINKS = {"links": _links(_ON_IDENTITY, path__identity="/identity", query__collection="/collection")}
"""Where the identity of an answer can be used, for clients that follow OpenAPI links."""
COLLECTION_LINKS = {
    "links": _links(
        ("get_collection", "delete_collection", "get_evidence", "measure_evidence"), path__name="/name"
    )
}


def form_or_json(
    model: type[BaseModel],
    example: dict[str, Any],
    *,
    form: type[BaseModel] | None = None,
    required: bool = True,
) -> dict[str, Any]:
    """Return ``openapi_extra`` for a route whose fields come as a form or as JSON with base64 images.

    Args:
        model: The fields.
        example: Of the JSON.
        form: The fields of the form where they are others.
        required: Whether there must be a body.
    """
    as_json = _inlined(model)
    as_form = _inlined(form or model)
    for field in as_form["properties"].values():
        for part in (field, *field.get("anyOf", ()), field.get("items", {})):
            if part.get("format") == "byte":
                part.pop("contentEncoding", None)
                part["format"] = "binary"
    return {
        "requestBody": {
            "required": required,
            "content": {
                "multipart/form-data": {"schema": as_form},
                "application/json": {"schema": as_json, "example": example},
            },
        }
    }


def json_only(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return ``openapi_extra`` for a route whose fields come as JSON."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _inlined(model), "example": example}},
        }
    }


def add_components(document: dict[str, Any], *, keys_required: bool) -> dict[str, Any]:
    """Add the problem schema and the security scheme: demanded, or possible where no key is needed yet."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
    # FastAPI's own validation error is never answered.
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "vv_..."}}
    for path, operations in document["paths"].items():
        if path not in {"/healthz", "/readyz"}:
            for operation in operations.values():
                operation["security"] = [{"key": []}] if keys_required else [{"key": []}, {}]
    return document


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """Return the model's JSON schema without references to definitions of its own."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:  # noqa: ANN401 - any JSON value
        if isinstance(node, dict):
            reference = node.get("$ref", "")
            name = reference.rsplit("/", 1)[-1]
            if name in definitions:
                rest = {key: value for key, value in node.items() if key != "$ref"}
                return {**resolve(definitions[name]), **resolve(rest)} if name != "JsonValue" else rest
            return {key: resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [resolve(item) for item in node]
        return node

    resolved: dict[str, Any] = resolve(schema)
    return resolved
