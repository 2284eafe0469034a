"""Read the fields of a request, from multipart form data or from JSON, into one validated model.

The same field names and rules hold for both. JSON carries images in base64 and is read strictly (no text
where a number is meant); a form carries text, which is read as the field's type. A field that is missing,
unknown, malformed, out of range or given twice is refused by name. Where a form's model has a list, the field
may be given many times.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn, TypeVar, get_args, get_origin

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from app.api.error_table import invalid_request
from app.errors import (
    ImageUnreadableError,
    InvalidRequestError,
    UnsupportedMediaTypeError,
)

M = TypeVar("M", bound=BaseModel)
F = TypeVar("F", bound=BaseModel)

MAX_TEXT_FIELD = 64 * 1024
"""Bytes of one text field of a form."""
MAX_FIELDS = 32
"""Parts of a form whose fields are given once."""
MAX_JSON_PARTS = 20_000
"""Commas and opening brackets of one JSON body."""
MAX_PROBLEMS = 20
"""Problems listed in one answer."""


async def read_fields(request: Request, model: type[M]) -> M:
    """Return the request's fields.

    Args:
        request: Its content type says whether it is a form or JSON.
        model: Its fields that are ``bytes`` are images; those that are ``dict`` are JSON objects.

    Raises:
        UnsupportedMediaTypeError: Neither a form nor JSON.
        InvalidRequestError: A field breaks a rule; the error names it.
        ImageUnreadableError: An image is not valid base64.
    """
    images = bool(_fields_of_type(model, bytes))
    media_type = _media_type(request)
    if media_type == "multipart/form-data" and images:
        return await _from_form(request, model, MAX_FIELDS)
    if media_type == "application/json":
        return await _from_json(request, model, images=images)
    raise _wrong_type(media_type, "multipart/form-data or application/json" if images else "application/json")


async def read_list_fields(
    request: Request, form: type[F], json_model: type[M], *, most: int, optional: bool = False
) -> F | M:
    """Return the fields of a request that may carry many images.

    Args:
        request: Its content type says whether it is a form or JSON.
        form: Its fields that are lists may be given many times.
        json_model: The same as one object with a list of objects.
        most: Entries of a list.
        optional: Whether no body at all stands for the defaults of all fields.

    Raises:
        UnsupportedMediaTypeError, InvalidRequestError, ImageUnreadableError: As ``read_fields``.
    """
    media_type = _media_type(request)
    if media_type == "multipart/form-data":
        return await _from_form(request, form, most + MAX_FIELDS)
    if media_type == "application/json":
        return await _from_json(request, json_model, images=True)
    if optional and not media_type and not await request.body():
        return json_model()
    wanted = "multipart/form-data or application/json"
    raise _wrong_type(media_type, f"{wanted}, or send no body" if optional else wanted)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_type(media_type: str, wanted: str) -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(
        f"the content type is {media_type or 'missing'!r}; send the fields as {wanted}"
    )


async def _from_form(request: Request, model: type[M], most: int) -> M:
    raw = await _read_form(request, model, most)
    # An object is read as JSON already, with whatever booleans it holds.
    for name in (_fields_of_type(model, bool) - _fields_of_type(model, dict)) & raw.keys():
        raw[name] = _from_word(name, raw[name])
    return _validated(model, raw, strict=False)


async def _from_json(request: Request, model: type[M], *, images: bool) -> M:
    body = await request.body()
    if len(body) > MAX_TEXT_FIELD and not images:
        _refuse("body", f"{len(body)} bytes; at most {MAX_TEXT_FIELD} are read here")
    # Off the event loop, because base64 of large photos takes a while.
    return _validated(model, await run_in_threadpool(_json_fields, body, model), strict=True)


def _validated(model: type[M], raw: dict[str, Any], *, strict: bool) -> M:
    try:
        return model.model_validate(raw, strict=strict)
    except ValidationError as error:
        raise invalid_request(_explained(error, model)) from None


async def _read_form(request: Request, model: type[BaseModel], most: int) -> dict[str, Any]:
    parser = _FormParser(
        request.headers,
        request.stream(),
        max_files=most,
        max_fields=most,
        max_part_size=MAX_TEXT_FIELD,
    )
    # The body is bounded, so parts stay in memory: no photo ever touches the disk.
    parser.spool_max_size = 2**31
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", None) or "it is malformed"
        _refuse("body", f"the form cannot be read: {message}")
    try:
        return await _form_values(form, model)
    finally:
        await form.close()


class _FormParser(MultiPartParser):
    """Starlette's parser, which by itself drops an unfinished last part and guesses at text not in UTF-8."""

    _complete = False

    def on_part_end(self) -> None:
        if self._current_part.file is None:
            try:
                bytes(self._current_part.data).decode(self._charset)
            except (UnicodeDecodeError, LookupError):
                raise MultiPartException(
                    f"the text of {self._current_part.field_name!r} is not {self._charset.upper()}"
                ) from None
        super().on_part_end()

    def on_end(self) -> None:
        self._complete = True

    async def parse(self) -> FormData:
        form = await super().parse()
        if not self._complete:
            for file in self._files_to_close_on_error:
                file.close()
            raise MultiPartException("it is cut off, its last boundary is missing")
        return form


async def _form_values(form: FormData, model: type[BaseModel]) -> dict[str, Any]:
    lists = _fields_of_type(model, list)
    raw: dict[str, Any] = {}
    for name, part in form.multi_items():
        value = await _form_value(name, part, model)
        if name in lists:
            raw.setdefault(name, []).append(value)
        elif name in raw:
            _refuse(name, "given more than once")
        else:
            raw[name] = value
    return raw


async def _form_value(name: str, part: UploadFile | str, model: type[BaseModel]) -> Any:  # noqa: ANN401
    images, objects = _fields_of_type(model, bytes), _fields_of_type(model, dict)
    if isinstance(part, UploadFile):
        if name in images:
            return await part.read()
        if name in objects:
            if (part.size or 0) > MAX_TEXT_FIELD:
                _refuse(name, f"at most {MAX_TEXT_FIELD} bytes are read")
            return _parse_json(name, await part.read())
        if name in model.model_fields:
            _refuse(name, "text is wanted here, not a file")
        return None  # refused later, together with whatever else is wrong
    if name in images:
        _refuse(name, f"send a file, as curl does with -F {name}=@photo.jpg")
    return _parse_json(name, part) if name in objects else part


def _json_fields(body: bytes, model: type[BaseModel]) -> dict[str, Any]:
    # Base64 has none of these characters and metadata is small, so more of them is no request of ours;
    # parsed, a body of the largest size would become gigabytes of little objects.
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_JSON_PARTS:
        _refuse("body", f"more than {MAX_JSON_PARTS} values")
    raw = _parse_json("body", body)
    if not isinstance(raw, dict):
        _refuse("body", "a JSON object is wanted")
    _decode_images(raw, model, "")
    return raw


def _decode_images(raw: dict[str, Any], model: type[BaseModel], path: str) -> None:
    """Replace the base64 of every image by its bytes, also in lists of objects."""
    for name in _fields_of_type(model, bytes) & raw.keys():
        if raw[name] is not None:
            raw[name] = _from_base64(path + name, raw[name])
    for name, field in model.model_fields.items():
        item = next(iter(get_args(field.annotation)), None)
        if isinstance(item, type) and issubclass(item, BaseModel) and isinstance(raw.get(name), list):
            for number, entry in enumerate(raw[name]):
                if isinstance(entry, dict):
                    _decode_images(entry, item, f"{path}{name}.{number}.")


def _parse_json(field: str, text: str | bytes) -> Any:  # noqa: ANN401 - any JSON value
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                _refuse(name if field == "body" else field, f"{name!r} is given more than once")
            result[name] = value
        return result

    def no_constant(name: str) -> NoReturn:
        _refuse(field, f"{name} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=no_constant)
    except RecursionError:
        _refuse(field, "nested too deeply")
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are both
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "not UTF-8 or a number too long"
        _refuse(field, f"not valid JSON: {reason}")


def _from_word(field: str, value: str) -> bool:
    word = value.lower()  # Python's clients send True
    if word not in {"true", "false"}:
        _refuse(field, "true or false is wanted")
    return word == "true"


def _from_base64(field: str, value: object) -> bytes:
    if not isinstance(value, str):
        _refuse(field, "a base64 string is wanted")
    # Tools wrap lines, browsers make data: URIs; what counts is the base64 in them.
    text = value.partition(";base64,")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ImageUnreadableError(f"{field} is not base64 (RFC 4648)", field=field) from None


def _explained(error: ValidationError, model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return pydantic's errors, with the fields that a route does take where one is unknown."""
    explained = []
    for item in error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]:
        message = item["msg"]
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            message = f"unknown field; this route takes {', '.join(model.model_fields)}"
        explained.append({"loc": item["loc"], "msg": message})
    return explained


def _fields_of_type(model: type[BaseModel], kind: type) -> set[str]:
    def holds(annotation: object) -> bool:
        return annotation is kind or get_origin(annotation) is kind or any(map(holds, get_args(annotation)))

    return {name for name, field in model.model_fields.items() if holds(field.annotation)}


def _refuse(field: str, problem: str) -> NoReturn:
    raise InvalidRequestError([{"field": field, "problem": problem}])
