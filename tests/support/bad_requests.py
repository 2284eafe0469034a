"""Every bad input to every route, and its answer, written once.

``tests/app/api/test_bad_requests.py`` sends each row; ``docs/errors.md`` is rendered from the same rows
(``python -m tests.support.errors_page``), so the page and the service cannot disagree.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote

from PIL import Image

from app.api.error_table import STATUS
from tests.support.images import angle_png, astronaut, encoded, no_face, two_faces

Via = Literal["form", "json"]

MAX_IMAGE_BYTES: Final = 512 * 1024
"""Small limits, so that what breaks them is small."""
MAX_IMAGE_PIXELS: Final = 10_000
MAX_BODY_BYTES: Final = 2 * (MAX_IMAGE_BYTES * 4 // 3 + 4) + 256 * 1024

PHOTO: Final = angle_png(10)


@dataclass(frozen=True)
class Text:
    """A value that a form can carry as text."""

    text: str


@dataclass(frozen=True)
class File:
    """A form part with a file name, or base64 in JSON."""

    data: bytes


@dataclass(frozen=True)
class Raw:
    """JSON text to send as it is."""

    json: str


@dataclass(frozen=True)
class Twice:
    """The good value of the field, sent two times."""


@dataclass(frozen=True)
class Missing:
    """No such field."""


Value = Text | File | Raw | Twice | Missing


@dataclass(frozen=True)
class Rule:
    """One way to break one field. ``also_in`` names fields that are of the same kind."""

    fields: tuple[str, ...]
    what: str
    value: Value
    via: tuple[Via, ...] = ("form", "json")
    code: str = "invalid_request"
    only: tuple[str, ...] = ()
    """Routes; empty for every route that has the field."""


@dataclass(frozen=True)
class Row:
    """One request and the code it must get."""

    id: str
    method: str
    path: str
    code: str
    names: str
    """What the detail must mention."""
    what: str = ""
    request: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return STATUS[self.code]


GOOD: Final[dict[str, dict[str, Value]]] = {
    "/enroll": {
        "identity": Text("new"),
        "image": File(PHOTO),
        "collection": Text("default"),
        "metadata": Raw('{"a": 1}'),
        "replace": Raw("false"),
        "add": Raw("false"),
        "face": Text("only"),
    },
    "/verify": {
        "image_a": File(PHOTO),
        "image_b": File(PHOTO),
        "model": Text("angles"),
        "face": Text("largest"),
    },
    "/identify": {
        "image": File(PHOTO),
        "collection": Text("default"),
        "top_k": Raw("5"),
        "filter": Raw('{"a": 1}'),
        "face": Text("largest"),
    },
    "/embed": {"image": File(PHOTO), "model": Text("angles"), "face": Text("central")},
}
"""A request of each route that is accepted, with most of its fields.

``/detect`` is not here: the small model finds no faces, so none of its requests is.
"""
CLAIM: Final[dict[str, Value]] = {
    "image": File(PHOTO),
    "identity": Text("ada"),
    "collection": Text("default"),
    "model": Text("angles"),
}
"""The other kind of ``/verify``."""
CRITERIA: Final = {
    "/verify": ("max_fmr", "threshold", "operating_point"),
    "/identify": ("max_fpir", "threshold", "operating_point"),
}

_RATES = ("max_fmr", "max_fpir")
_PHOTOS = ("image", "image_a", "image_b")
_DEEP = '{"a": ' * 33 + "1" + "}" * 33
_DEEPEST = '{"a": ' + "[" * 20_000 + "]" * 20_000 + "}"

RULES: Final[tuple[Rule, ...]] = (
    # identity
    Rule(("identity",), "missing", Missing(), only=("/enroll",)),
    Rule(("identity",), "empty", Text("")),
    Rule(("identity",), "257 characters", Text("a" * 257)),
    Rule(("identity",), "`.`", Text(".")),
    Rule(("identity",), "`..`", Text("..")),
    Rule(("identity",), "the character NUL", Text("a\0b")),
    Rule(("identity",), "a control character", Text("a\x1bb")),
    Rule(("identity",), "a line break", Text("a\nb")),
    Rule(("identity",), "a blank at an end", Text("ada ")),
    Rule(("identity",), "half of a surrogate pair", Raw('"\\ud800"'), ("json",)),
    Rule(("identity",), "a number", Raw("7"), ("json",)),
    Rule(("identity",), "null", Raw("null"), ("json",), only=("/enroll",)),
    Rule(("identity",), "a list", Raw('["ada"]'), ("json",)),
    Rule(("identity",), "a file", File(b"ada"), ("form",)),
    Rule(("identity",), "given twice", Twice()),
    # images
    Rule(_PHOTOS, "missing", Missing()),
    Rule(_PHOTOS, "empty", File(b""), code="image_unreadable"),
    Rule(_PHOTOS, "no image", File(b"hello, world"), code="image_unreadable"),
    Rule(_PHOTOS, "a truncated image", File(PHOTO[:45]), code="image_unreadable"),
    Rule(
        _PHOTOS,
        "a PDF, HEIC, SVG or another kind of file",
        File(b"%PDF-1.7\n%"),
        code="unsupported_media_type",
    ),
    Rule(
        _PHOTOS,
        "more bytes than `VISAVIS_MAX_IMAGE_BYTES`",
        File(b"\x89PNG" + bytes(MAX_IMAGE_BYTES)),
        code="image_too_large",
    ),
    Rule(
        _PHOTOS,
        "more pixels than `VISAVIS_MAX_IMAGE_PIXELS`",
        File(encoded(Image.new("L", (101, 100)))),
        code="image_too_large",
    ),
    Rule(_PHOTOS, "not base64", Raw('"***"'), ("json",), code="image_unreadable"),
    Rule(_PHOTOS, "base64 without its padding", Raw('"iVBORw0"'), ("json",), code="image_unreadable"),
    Rule(_PHOTOS, "base64 with line breaks", Raw('"iVBO\\nRw0K"'), ("json",), code="image_unreadable"),
    Rule(
        _PHOTOS, "a `data:` URI", Raw('"data:image/png;base64,iVBORw0K"'), ("json",), code="image_unreadable"
    ),
    Rule(_PHOTOS, "an address", Raw('"https://example.org/ada.png"'), ("json",), code="image_unreadable"),
    Rule(_PHOTOS, "a number", Raw("7"), ("json",)),
    Rule(_PHOTOS, "null", Raw("null"), ("json",)),
    Rule(_PHOTOS, "text instead of a file", Text("hello"), ("form",)),
    Rule(_PHOTOS, "given twice", Twice()),
    # collection
    Rule(("collection",), "empty", Text("")),
    Rule(("collection",), "65 characters", Text("a" * 65)),
    Rule(("collection",), "a blank, a slash or other characters", Text("a/b")),
    Rule(("collection",), "begins with a dot", Text("..")),
    Rule(("collection",), "not ASCII", Text("é")),
    Rule(("collection",), "half of a surrogate pair", Raw('"\\udfff"'), ("json",)),
    Rule(("collection",), "a number", Raw("7"), ("json",)),
    Rule(("collection",), "null", Raw("null"), ("json",), only=("/enroll", "/identify")),
    Rule(("collection",), "given twice", Twice()),
    Rule(("collection",), "does not exist", Text("nowhere"), code="collection_not_found"),
    # metadata
    Rule(("metadata",), "not JSON", Text("{a:1}"), ("form",)),
    Rule(("metadata",), "empty", Text(""), ("form",)),
    Rule(("metadata",), "a list", Raw("[1]")),
    Rule(("metadata",), "text", Raw('"a"')),
    Rule(("metadata",), "a number", Raw("1")),
    Rule(("metadata",), "NaN or Infinity", Raw('{"a": NaN}')),
    Rule(("metadata",), "a number too large for a float", Raw('{"a": 1e999}')),
    Rule(("metadata",), "an integer of 5000 digits", Raw('{"a": ' + "9" * 5000 + "}")),
    Rule(("metadata",), "more than 16384 bytes", Raw(json.dumps({"a": "b" * 16_384}))),
    Rule(("metadata",), "nested more than 32 deep", Raw(_DEEP)),
    Rule(("metadata",), "nested 20,000 deep", Raw(_DEEPEST)),
    Rule(("metadata",), "half of a surrogate pair", Raw('{"a": "\\ud800"}')),
    Rule(("metadata",), "half of a surrogate pair in a key", Raw('{"\\ud800": 1}')),
    Rule(("metadata",), "a key twice", Raw('{"a": 1, "a": 2}')),
    Rule(("metadata",), "a file that is not JSON", File(b"\xff\xfe\x00"), ("form",)),
    Rule(("metadata",), "given twice", Twice()),
    # filter
    Rule(("filter",), "not JSON", Text("team=analysis"), ("form",)),
    Rule(("filter",), "empty", Text(""), ("form",)),
    Rule(("filter",), "a list", Raw("[1]")),
    Rule(("filter",), "text", Raw('"a"')),
    Rule(("filter",), "no key", Raw("{}")),
    Rule(("filter",), "more than 16 keys", Raw(json.dumps({str(n): 1 for n in range(17)}))),
    Rule(("filter",), "an empty key", Raw('{"": 1}')),
    Rule(("filter",), "a key of more than 64 characters", Raw(json.dumps({"k" * 65: 1}))),
    Rule(("filter",), "a key with a quotation mark or a backslash", Raw('{"a\\"b": 1}')),
    Rule(("filter",), "a list for a value", Raw('{"a": [1]}')),
    Rule(("filter",), "an object for a value", Raw('{"a": {"b": 1}}')),
    Rule(("filter",), "null for a value", Raw('{"a": null}')),
    Rule(("filter",), "a zero character", Raw('{"a": "b\\u0000"}')),
    Rule(("filter",), "half of a surrogate pair", Raw('{"a": "\\ud800"}')),
    Rule(("filter",), "NaN or Infinity", Raw('{"a": NaN}')),
    Rule(("filter",), "given twice", Twice()),
    # replace, add, face
    Rule(("replace", "add"), "neither `true` nor `false`", Text("1"), ("form",)),
    Rule(("replace", "add"), "empty", Text(""), ("form",)),
    Rule(("replace", "add"), "text", Raw('"true"'), ("json",)),
    Rule(("replace", "add"), "a number", Raw("1"), ("json",)),
    Rule(("replace", "add"), "null", Raw("null"), ("json",)),
    Rule(("replace", "add"), "given twice", Twice()),
    Rule(("face",), "not only, largest or central", Text("all")),
    Rule(("face",), "empty", Text("")),
    Rule(("face",), "a number", Raw("1"), ("json",)),
    Rule(("face",), "null", Raw("null"), ("json",)),
    Rule(("face",), "given twice", Twice()),
    # criteria
    Rule(_RATES, "0", Raw("0"), code="invalid_request"),
    Rule(_RATES, "1", Raw("1")),
    Rule(_RATES, "negative", Raw("-0.001")),
    Rule(_RATES, "not a number", Text("strict")),
    Rule(_RATES, "empty", Text(""), ("form",)),
    Rule(_RATES, "NaN", Raw("NaN")),
    Rule(_RATES, "a number as text", Raw('"0.01"'), ("json",)),
    Rule(_RATES, "below what the evidence can show", Raw("1e-12"), code="insufficient_evidence"),
    Rule(_RATES, "given twice", Twice()),
    Rule(("threshold",), "negative", Raw("-0.5")),
    Rule(("threshold",), "more than 1,000,000", Raw("1000001")),
    Rule(("threshold",), "infinite", Text("inf"), ("form",)),
    Rule(("threshold",), "a number too large for a float", Raw("1e999")),
    Rule(("threshold",), "NaN", Raw("NaN")),
    Rule(("threshold",), "not a number", Text("close")),
    Rule(("threshold",), "a number as text", Raw('"0.5"'), ("json",)),
    Rule(("threshold",), "true", Raw("true"), ("json",)),
    Rule(("operating_point",), "unknown to the model", Text("fmr-1e-99")),
    Rule(("operating_point",), "empty", Text("")),
    Rule(("operating_point",), "65 characters", Text("a" * 65)),
    Rule(("operating_point",), "half of a surrogate pair", Raw('"\\ud800"'), ("json",)),
    Rule(("operating_point",), "a number", Raw("1"), ("json",)),
    # top_k
    Rule(("top_k",), "0", Raw("0")),
    Rule(("top_k",), "101", Raw("101")),
    Rule(("top_k",), "negative", Raw("-1")),
    Rule(("top_k",), "a fraction", Raw("2.5")),
    Rule(("top_k",), "not a number", Text("all")),
    Rule(("top_k",), "an integer of 5000 digits", Raw("9" * 5000)),
    Rule(("top_k",), "a number as text", Raw('"5"'), ("json",)),
    Rule(("top_k",), "true", Raw("true"), ("json",)),
    Rule(("top_k",), "null", Raw("null"), ("json",)),
    Rule(("top_k",), "given twice", Twice()),
    # model
    Rule(("model",), "not served here", Text("nothing"), code="model_not_found"),
    Rule(("model",), "empty", Text("")),
    Rule(("model",), "65 characters", Text("a" * 65)),
    Rule(("model",), "half of a surrogate pair", Raw('"\\ud800"'), ("json",)),
    Rule(("model",), "a number", Raw("1"), ("json",)),
    Rule(("model",), "given twice", Twice()),
    # anything else
    Rule(("colour",), "a field that the route does not have", Text("red")),
    Rule(("colour",), "a file that the route does not have", File(b"red"), ("form",)),
    Rule(("\ud800",), "a name that is half of a surrogate pair", Text("red"), ("json",)),
    Rule(("",), "a field without a name", Text("red")),
)

EXAMPLES: Final[dict[str, Value]] = {
    "max_fmr": Raw("0.01"),
    "max_fpir": Raw("0.01"),
    "threshold": Raw("0.5"),
    "operating_point": Text("fmr-1e-2"),
}
"""Good values of fields that no good request above carries."""


def field_rows() -> Iterator[Row]:
    """Yield each rule on each route and in each media type that it applies to."""
    for path, fields in (*GOOD.items(), ("/verify", CLAIM)):
        known = (*fields, *CRITERIA.get(path, ()), "colour", "\ud800", "")
        for rule in RULES:
            for name in rule.fields:
                if name not in known or (rule.only and path not in rule.only):
                    continue
                for via in rule.via:
                    good = fields.get(name) or EXAMPLES.get(name) or Text("x")
                    values = [good, good] if isinstance(rule.value, Twice) else [rule.value]
                    if isinstance(rule.value, Missing):
                        values = []
                    parts = [(n, v) for n, v in fields.items() if n != name] + [(name, v) for v in values]
                    kind = "claim" if fields is CLAIM else path[1:]
                    label = name.encode("ascii", "backslashreplace").decode()
                    yield Row(
                        id=f"{kind}-{via}-{label or 'nameless'}-{rule.what}",
                        method="POST",
                        path=path,
                        code=rule.code,
                        names=_mentioned(rule, name, via),
                        request=as_form(parts) if via == "form" else as_json(parts),
                    )


_NOT_JSON: Final = {
    "NaN",
    "NaN or Infinity",
    "an integer of 5000 digits",
    "nested 20,000 deep",
    "a key twice",
}
"""These spoil the JSON of the whole body, and the parser does not say where it was."""


def _mentioned(rule: Rule, name: str, via: Via) -> str:
    if rule.code in {"collection_not_found", "model_not_found"} and isinstance(rule.value, Text):
        return repr(rule.value.text)
    if not name.isascii() or not name:
        return ""
    if via == "json" and rule.what in _NOT_JSON:
        return "body" if rule.what != "a key twice" else "a"
    if rule.code in {"image_unreadable", "image_too_large", "unsupported_media_type"}:
        return ""  # the member `field` has it; see test_bad_image_is_named_in_the_member_field
    return name


def as_form(parts: Iterable[tuple[str, Value]]) -> dict[str, Any]:
    """Return what sends the parts as multipart form data."""
    files: list[tuple[str, tuple[str | None, bytes]]] = []
    for name, value in parts:
        if isinstance(value, File):
            files.append((name, ("photo", value.data)))
        elif isinstance(value, Text):
            files.append((name, (None, value.text.encode())))
        elif isinstance(value, Raw):
            files.append((name, (None, value.json.encode())))
    return {"files": files}


def as_json(parts: Iterable[tuple[str, Value]]) -> dict[str, Any]:
    """Return what sends the parts as JSON."""
    members = []
    for name, value in parts:
        if isinstance(value, File):
            text = json.dumps(base64.b64encode(value.data).decode())
        elif isinstance(value, Text):
            text = json.dumps(value.text)
        elif isinstance(value, Raw):
            text = value.json
        members.append(f"{json.dumps(name)}: {text}")
    return _json_text("{" + ", ".join(members) + "}")


def _json_text(text: str | bytes, content_type: str = "application/json") -> dict[str, Any]:
    return {"content": text, "headers": {"Content-Type": content_type}}


def _multipart(body: bytes, content_type: str = "multipart/form-data; boundary=b") -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": content_type}}


def _part(name: str, value: bytes, extra: str = "") -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
        name.encode(),
        extra.encode(),
        value,
    )


_WHOLE = _part("identity", b"new") + _part("image", PHOTO, '; filename="p.png"') + b"--b--\r\n"
_MANY = b"".join(_part(f"f{i}", b"x") for i in range(10_000)) + b"--b--\r\n"
_MANY_FILES = b"".join(_part(f"f{i}", b"x", '; filename="f"') for i in range(10_000)) + b"--b--\r\n"


def _in_pieces(size: int) -> Iterator[bytes]:
    for _ in range(size // 65_536 + 1):
        yield bytes(65_536)


def body_rows() -> Iterator[Row]:
    """Yield bodies that are wrong as a whole. Requests are made anew each time: some are streams."""
    wrong_types = {
        "no content type": None,
        "plain text": "text/plain",
        "a form in URL encoding": "application/x-www-form-urlencoded",
        "an image as the whole body": "image/png",
        "JSON with another suffix": "application/vnd.api+json",
        "no such thing": "garbage",
    }
    for path in (*GOOD, "/detect", "/collections"):
        for what, kind in wrong_types.items():
            headers = {} if kind is None else {"Content-Type": kind}
            yield Row(
                f"{path}-body-{what}",
                "POST",
                path,
                "unsupported_media_type",
                "application/json",
                f"content type: {what}",
                {"content": b"{}", "headers": headers},
            )
        for what, text in (
            ("empty", b""),
            ("not JSON", b"{"),
            ("not UTF-8", b'{"identity": "\xff\xfe"}'),
            ("JSON, but a list", b"[]"),
            ("JSON, but text", b'"image"'),
            ("JSON, but null", b"null"),
            ("nested 100,000 deep", b"[" * 100_000),
            ("NaN", b"NaN"),
        ):
            yield Row(
                f"{path}-json-{what}",
                "POST",
                path,
                "invalid_request",
                "body",
                f"JSON body: {what}",
                _json_text(text),
            )
        yield Row(
            f"{path}-announced",
            "POST",
            path,
            "image_too_large",
            str(MAX_BODY_BYTES),
            "more bytes than two images may have, announced by Content-Length",
            _json_text(b" " * (MAX_BODY_BYTES + 1)),
        )
        yield Row(
            f"{path}-chunked",
            "POST",
            path,
            "image_too_large",
            str(MAX_BODY_BYTES),
            "more bytes than two images may have, sent in chunks",
            {"content": _in_pieces(MAX_BODY_BYTES), "headers": {"Content-Type": "application/json"}},
        )
    for path in GOOD:
        for what, request in (
            ("no boundary", _multipart(_WHOLE, "multipart/form-data")),
            ("another boundary than announced", _multipart(_WHOLE, "multipart/form-data; boundary=c")),
            ("empty", _multipart(b"")),
            ("truncated in a file", _multipart(_WHOLE[:160])),
            ("truncated in a part's header", _multipart(_WHOLE[:30])),
            ("without its last boundary", _multipart(_WHOLE[:-9])),
            ("text that is not UTF-8", _multipart(_part("face", b"\xff\xfe") + _WHOLE)),
            (
                "a part without a name",
                _multipart(b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"),
            ),
            ("a part without a disposition", _multipart(b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n")),
            ("10,000 parts", _multipart(_MANY)),
            ("10,000 files", _multipart(_MANY_FILES)),
            (
                "a part header of 100,000 bytes",
                _multipart(_part("identity", b"x", "; x=" + "y" * 100_000) + b"--b--\r\n"),
            ),
            (
                "a text part of more than 65536 bytes",
                _multipart(_part("identity", b"x" * 65_537) + b"--b--\r\n"),
            ),
            ("garbage", _multipart(bytes(range(256)))),
        ):
            yield Row(f"{path}-form-{what}", "POST", path, "invalid_request", "", f"form: {what}", request)
    yield Row(
        "criteria-verify-two",
        "POST",
        "/verify",
        "invalid_request",
        "at most one",
        "two criteria at once",
        as_json([*GOOD["/verify"].items(), ("max_fmr", Raw("0.01")), ("threshold", Raw("0.5"))]),
    )
    yield Row(
        "criteria-identify-three",
        "POST",
        "/identify",
        "invalid_request",
        "at most one",
        "three criteria at once",
        as_form([*GOOD["/identify"].items(), *((n, EXAMPLES[n]) for n in CRITERIA["/identify"])]),
    )
    yield Row(
        "verify-other-rate",
        "POST",
        "/verify",
        "invalid_request",
        "max_fpir",
        "the criterion of another route",
        as_json([*GOOD["/verify"].items(), ("max_fpir", Raw("0.01"))]),
    )
    sides: dict[str, list[str]] = {
        "nothing": [],
        "one image of two": ["image_a"],
        "both image pairs": ["image_a", "image_b", "image", "identity"],
        "an image and half a pair": ["image", "image_a"],
        "an identity without an image": ["identity"],
        "an identity with a pair": ["image_a", "image_b", "identity"],
        "a collection with a pair": ["image_a", "image_b", "collection"],
    }
    every = {**GOOD["/verify"], **CLAIM}
    for what, names in sides.items():
        parts = [(name, every[name]) for name in names]
        for via, request in (("form", as_form(parts)), ("json", as_json(parts))):
            if via == "form" and not parts:
                continue
            yield Row(f"verify-{via}-{what}", "POST", "/verify", "invalid_request", "image", what, request)


def _coded(name: str) -> str:
    return quote(name.encode("utf-8", "surrogatepass"), safe="").replace(".", "%2E")


def stored_rows() -> Iterator[Row]:
    """Yield rows of the routes over what is stored."""
    change = _json_text('{"metadata": {}}')
    for method in ("GET", "PATCH", "DELETE"):
        extra = change if method == "PATCH" else {}
        for what, name in (
            ("empty", ""),
            ("`.`", "."),
            ("`..`", ".."),
            ("the character NUL", "a\0b"),
            ("a control character", "a\x1bb"),
            ("a blank at an end", " ada"),
            ("257 characters", "a" * 257),
        ):
            path = f"/identities/{_coded(name)}"
            yield Row(
                f"{method}-identity-{what}",
                method,
                path,
                "invalid_request",
                "identity",
                f"identity in the path: {what}",
                extra,
            )
        for what, name in (
            ("unknown", "nobody"),
            ("unknown, with slashes", "a/b/../c"),
            ("not UTF-8", "\udcff"),
        ):
            path = f"/identities/{_coded(name)}"
            yield Row(
                f"{method}-identity-{what}",
                method,
                path,
                "identity_not_found",
                "enrol",
                f"identity in the path: {what}",
                extra,
            )
        for what, query, code, names in (
            ("unknown collection", "collection=nowhere", "collection_not_found", "nowhere"),
            ("collection with other characters", "collection=a%2Fb", "invalid_request", "collection"),
            ("collection empty", "collection=", "invalid_request", "collection"),
            (
                "collection given twice",
                "collection=default&collection=default",
                "invalid_request",
                "collection",
            ),
            ("unknown query parameter", "colour=red", "invalid_request", "colour"),
        ):
            yield Row(f"{method}-query-{what}", method, f"/identities/ada?{query}", code, names, what, extra)
    for path in ("/identities", "/collections"):
        for what, query, names in (
            ("limit 0", "limit=0", "limit"),
            ("limit 1001", "limit=1001", "limit"),
            ("limit not a number", "limit=ten", "limit"),
            ("limit empty", "limit=", "limit"),
            ("limit a fraction", "limit=1.5", "limit"),
            ("limit of 5000 digits", "limit=" + "9" * 5000, "limit"),
            ("limit given twice", "limit=1&limit=1", "limit"),
            ("cursor not a number", "cursor=abc", "cursor"),
            ("cursor negative", "cursor=-1", "cursor"),
            ("cursor of 19 digits", "cursor=" + "9" * 19, "cursor"),
            ("cursor in other digits", "cursor=%D9%A1", "cursor"),
            ("cursor with NUL", "cursor=1%00", "cursor"),
            ("unknown query parameter", "colour=red", "colour"),
        ):
            yield Row(f"{path}-{what}", "GET", f"{path}?{query}", "invalid_request", names, what)
    yield Row(
        "list-nowhere",
        "GET",
        "/identities?collection=nowhere",
        "collection_not_found",
        "nowhere",
        "unknown collection",
    )
    for path in ("/healthz", "/readyz", "/metrics", "/models", "/models/angles", "/collections/default"):
        yield Row(
            f"{path}-query",
            "GET",
            f"{path}?colour=red",
            "invalid_request",
            "colour",
            "unknown query parameter",
        )
    for path, fields in GOOD.items():
        yield Row(
            f"{path}-query",
            "POST",
            f"{path}?identity=ada",
            "invalid_request",
            "identity",
            "fields in the query",
            as_json(list(fields.items())),
        )
    for method in ("GET", "DELETE"):
        for what, name, code in (
            ("unknown", "nowhere", "collection_not_found"),
            ("other characters", "a%20b", "invalid_request"),
            ("65 characters", "a" * 65, "invalid_request"),
            ("`..`", "%2E%2E", "invalid_request"),
        ):
            names = "nowhere" if code.endswith("found") else "name"
            yield Row(
                f"{method}-collection-{what}",
                method,
                f"/collections/{name}",
                code,
                names,
                f"collection in the path: {what}",
            )
    for what, body, code, names in (
        ("no field", "{}", "invalid_request", "name"),
        ("name empty", '{"name": ""}', "invalid_request", "name"),
        ("name with other characters", '{"name": "a b"}', "invalid_request", "name"),
        ("name a number", '{"name": 1}', "invalid_request", "name"),
        ("name null", '{"name": null}', "invalid_request", "name"),
        ("name twice", '{"name": "a", "name": "b"}', "invalid_request", "name"),
        ("name taken", '{"name": "default"}', "collection_exists", "default"),
        ("model not served here", '{"name": "new", "model": "nothing"}', "model_not_found", "nothing"),
        ("model empty", '{"name": "new", "model": ""}', "invalid_request", "model"),
        ("policy not an object", '{"name": "new", "policy": 1}', "invalid_request", "policy"),
        ("policy null", '{"name": "new", "policy": null}', "invalid_request", "policy"),
        (
            "policy with an unknown measure",
            '{"name": "new", "policy": {"smile": 1}}',
            "invalid_request",
            "policy.smile",
        ),
        (
            "policy negative",
            '{"name": "new", "policy": {"min_face_size": -1}}',
            "invalid_request",
            "policy.min_face_size",
        ),
        (
            "policy out of range",
            '{"name": "new", "policy": {"max_brightness": 2}}',
            "invalid_request",
            "policy.max_brightness",
        ),
        ("policy NaN", '{"name": "new", "policy": {"max_yaw": NaN}}', "invalid_request", "NaN"),
        (
            "policy a number too large for a float",
            '{"name": "new", "policy": {"max_yaw": 1e999}}',
            "invalid_request",
            "policy.max_yaw",
        ),
        (
            "policy as text",
            '{"name": "new", "policy": {"max_yaw": "1"}}',
            "invalid_request",
            "policy.max_yaw",
        ),
        ("unknown field", '{"name": "new", "colour": "red"}', "invalid_request", "colour"),
    ):
        yield Row(
            f"collections-{what}",
            "POST",
            "/collections",
            code,
            names,
            f"new collection: {what}",
            _json_text(body),
        )
    for what, body, code, names in (
        ("no field", "{}", "invalid_request", "identity"),
        ("new name empty", '{"identity": ""}', "invalid_request", "identity"),
        ("new name of 257 characters", json.dumps({"identity": "a" * 257}), "invalid_request", "identity"),
        ("new name with NUL", '{"identity": "a\\u0000"}', "invalid_request", "identity"),
        ("new name half of a surrogate pair", '{"identity": "\\ud800"}', "invalid_request", "identity"),
        ("new name taken", '{"identity": "grace"}', "identity_exists", "grace"),
        ("metadata a list", '{"metadata": []}', "invalid_request", "metadata"),
        ("metadata nested more than 32 deep", f'{{"metadata": {_DEEP}}}', "invalid_request", "metadata"),
        (
            "metadata of more than 16384 bytes",
            json.dumps({"metadata": {"a": "b" * 16_384}}),
            "invalid_request",
            "metadata",
        ),
        ("unknown field", '{"colour": "red"}', "invalid_request", "colour"),
        ("field twice", '{"metadata": {}, "metadata": {}}', "invalid_request", "metadata"),
    ):
        yield Row(
            f"change-{what}",
            "PATCH",
            "/identities/ada",
            code,
            names,
            f"change of an identity: {what}",
            _json_text(body),
        )
    yield Row(
        "change-form",
        "PATCH",
        "/identities/ada",
        "unsupported_media_type",
        "application/json",
        "change of an identity: a form",
        as_form([("metadata", Raw("{}"))]),
    )
    yield from reference_rows()
    yield from policy_rows()
    yield from evidence_rows()
    yield from batch_rows()
    yield from migration_rows()
    yield Row(
        "model-unknown", "GET", "/models/nothing", "model_not_found", "nothing", "model in the path: unknown"
    )


def reference_rows() -> Iterator[Row]:
    """Yield rows of ``/identities/{identity}/references``."""
    of_nobody, of_ada = "/identities/nobody/references", "/identities/ada/references"
    for method, path in (("GET", of_nobody), ("DELETE", f"{of_nobody}/r")):
        yield Row(
            f"{method}-references-nobody",
            method,
            path,
            "identity_not_found",
            "nobody",
            "references of an identity that is not enrolled",
        )
    for method, path in (("GET", of_ada), ("DELETE", f"{of_ada}/r")):
        for what, query, code, names in (
            ("unknown collection", "collection=nowhere", "collection_not_found", "nowhere"),
            ("unknown query parameter", "colour=red", "invalid_request", "colour"),
        ):
            yield Row(f"{method}-references-{what}", method, f"{path}?{query}", code, names, what)
    for what, reference, code, names in (
        ("reference in the path: unknown", "nothing", "reference_not_found", "nothing"),
        ("reference in the path: other characters", "a%2Fb", "invalid_request", "reference_id"),
        ("reference in the path: 37 characters", "a" * 37, "invalid_request", "reference_id"),
    ):
        yield Row(f"DELETE-{what}", "DELETE", f"{of_ada}/{reference}", code, names, what)
    yield Row(
        "DELETE-reference-last",
        "DELETE",
        f"{of_ada}/r?collection=moved",
        "last_reference",
        "delete the identity",
        "the only reference of an identity",
    )


def policy_rows() -> Iterator[Row]:
    """Yield rows of ``PATCH /collections/{name}``."""
    for what, name, body, code, names in (
        ("collection unknown", "nowhere", '{"policy": {}}', "collection_not_found", "nowhere"),
        ("no policy", "default", "{}", "invalid_request", "policy"),
        ("max_references 0", "default", '{"policy": {"max_references": 0}}', "invalid_request", "policy"),
        ("max_references 65", "default", '{"policy": {"max_references": 65}}', "invalid_request", "policy"),
        (
            "max_references a fraction",
            "default",
            '{"policy": {"max_references": 1.5}}',
            "invalid_request",
            "policy",
        ),
        (
            "keep_images another word",
            "default",
            '{"policy": {"keep_images": "all"}}',
            "invalid_request",
            "policy",
        ),
        (
            "migrate_on_verify text",
            "default",
            '{"policy": {"migrate_on_verify": "yes"}}',
            "invalid_request",
            "policy",
        ),
        ("model", "default", '{"policy": {}, "model": "other"}', "invalid_request", "model"),
    ):
        yield Row(
            f"policy-{what}",
            "PATCH",
            f"/collections/{name}",
            code,
            names,
            f"change of a collection: {what}",
            _json_text(body),
        )


def migration_rows() -> Iterator[Row]:
    """Yield rows of ``/collections/{name}/migration``."""
    to_other, empty = _json_text('{"model": "other"}'), _json_text("{}")
    steps: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("GET", "", {}),
        ("POST", "", to_other),
        ("POST", "/switch", {}),
        ("POST", "/rollback", {}),
        ("POST", "/finish", empty),
    )
    for method, step, request in steps:
        for what, name, code, names in (
            ("unknown", "nowhere", "collection_not_found", "nowhere"),
            ("other characters", "a%20b", "invalid_request", "name"),
        ):
            yield Row(
                f"migration-{method}{step}-{what}",
                method,
                f"/collections/{name}/migration{step}",
                code,
                names,
                f"collection in the path: {what}",
                request,
            )
        yield Row(
            f"migration-{method}{step}-query",
            method,
            f"/collections/default/migration{step}?colour=red",
            "invalid_request",
            "colour",
            "unknown query parameter",
            request,
        )
        if step:
            yield Row(
                f"migration{step}-none",
                method,
                f"/collections/default/migration{step}",
                "migration_state",
                "begin with",
                "no change of model is under way",
                request,
            )
    for what, name, step, body, code, names in (
        ("model missing", "default", "", "{}", "invalid_request", "model"),
        ("model not served here", "default", "", '{"model": "nothing"}', "model_not_found", "nothing"),
        ("the collection's own model", "default", "", '{"model": "angles"}', "migration_state", "already"),
        ("another is under way", "halfway", "", '{"model": "other"}', "migration_state", "finish that"),
        (
            "the collection's model is not served",
            "moved",
            "",
            '{"model": "other"}',
            "model_mismatch",
            "moved",
        ),
        ("finish before the switch", "halfway", "/finish", "{}", "migration_state", "abandon=true"),
        ("identities are pending", "between", "/finish", "{}", "identities_pending", "drop_pending=true"),
        ("unknown field", "between", "/finish", '{"force": true}', "invalid_request", "force"),
    ):
        yield Row(
            f"migration-{what}",
            "POST",
            f"/collections/{name}/migration{step}",
            code,
            names,
            f"change of model: {what}",
            _json_text(body),
        )


def evidence_rows() -> Iterator[Row]:
    """Yield rows of ``/collections/{name}/evidence``."""
    for method in ("GET", "POST", "DELETE"):
        for what, name, code, names in (
            ("unknown", "nowhere", "collection_not_found", "nowhere"),
            ("other characters", "a%20b", "invalid_request", "name"),
        ):
            yield Row(
                f"{method}-evidence-{what}",
                method,
                f"/collections/{name}/evidence",
                code,
                names,
                f"collection in the path: {what}",
            )
        yield Row(
            f"{method}-evidence-query",
            method,
            "/collections/default/evidence?colour=red",
            "invalid_request",
            "colour",
            "unknown query parameter",
        )
    for method in ("GET", "POST"):
        yield Row(
            f"{method}-evidence-moved",
            method,
            "/collections/moved/evidence",
            "model_mismatch",
            "moved",
            "collection made by another build of its model",
        )
    yield Row(
        "evidence-few",
        "POST",
        "/collections/default/evidence",
        "too_few_identities",
        "takes 25",
        "calibration: fewer than 25 identities",
    )
    yield Row(
        "evidence-double",
        "POST",
        "/collections/twins/evidence",
        "duplicates_suspected",
        "visavis audit --collection twins",
        "calibration: more close pairs of identities than chance explains",
    )
    photo = base64.b64encode(PHOTO).decode()
    one = f'{{"identity": "ada", "image": "{photo}"}}'
    for what, body, code, names in (
        ("probes not a list", f'{{"probes": {one}}}', "invalid_request", "probes"),
        ("probes null", '{"probes": null}', "invalid_request", "probes"),
        ("a probe that is text", '{"probes": ["ada"]}', "invalid_request", "probes.0"),
        (
            "a probe without an image",
            '{"probes": [{"identity": "ada"}]}',
            "invalid_request",
            "probes.0.image",
        ),
        (
            "a probe without an identity",
            f'{{"probes": [{{"image": "{photo}"}}]}}',
            "invalid_request",
            "probes.0.identity",
        ),
        (
            "a probe with another field",
            f'{{"probes": [{one[:-1]}, "colour": "red"}}]}}',
            "invalid_request",
            "probes.0.colour",
        ),
        (
            "an image that is not base64",
            '{"probes": [{"identity": "ada", "image": "***"}]}',
            "image_unreadable",
            "probes.0.image",
        ),
        (
            "an image that is a number",
            '{"probes": [{"identity": "ada", "image": 7}]}',
            "invalid_request",
            "probes.0.image",
        ),
        ("1,001 probes", f'{{"probes": [{", ".join([one] * 1001)}]}}', "invalid_request", "probes"),
        (
            "a probe of somebody not enrolled",
            f'{{"probes": [{one.replace("ada", "nobody")}]}}',
            "invalid_request",
            "nobody",
        ),
        (
            "accept_duplicates as text",
            '{"accept_duplicates": "true"}',
            "invalid_request",
            "accept_duplicates",
        ),
        ("face not only, largest or central", '{"face": "all"}', "invalid_request", "face"),
        ("unknown field", '{"image": []}', "invalid_request", "image"),
        ("JSON, but a list", "[]", "invalid_request", "body"),
        ("JSON, but empty", "", "invalid_request", "body"),
    ):
        yield Row(
            f"evidence-json-{what}",
            "POST",
            "/collections/default/evidence",
            code,
            names,
            f"calibration in JSON: {what}",
            _json_text(body),
        )
    forms: tuple[tuple[str, list[tuple[str, Value]], str, str], ...] = (
        ("an image without its identity", [("image", File(PHOTO))], "invalid_request", "in pairs"),
        (
            "two identities and one image",
            [("identity", Text("ada")), ("image", File(PHOTO)), ("identity", Text("grace"))],
            "invalid_request",
            "in pairs",
        ),
        (
            "text instead of a file",
            [("identity", Text("ada")), ("image", Text("a.jpg"))],
            "invalid_request",
            "image",
        ),
        (
            "a file instead of text",
            [("identity", File(b"ada")), ("image", File(PHOTO))],
            "invalid_request",
            "identity",
        ),
        (
            "the fields of the JSON",
            [("probes", Raw("[]"))],
            "invalid_request",
            "probes",
        ),
        (
            "accept_duplicates twice",
            [("accept_duplicates", Raw("true")), ("accept_duplicates", Raw("true"))],
            "invalid_request",
            "accept_duplicates",
        ),
        (
            "1,001 probes",
            [("identity", Text("ada")), ("image", File(PHOTO))] * 1001,
            "invalid_request",
            "",
        ),
        (
            "a probe of somebody not enrolled",
            [("identity", Text("nobody")), ("image", File(PHOTO))],
            "invalid_request",
            "nobody",
        ),
    )
    for what, parts, code, names in forms:
        yield Row(
            f"evidence-form-{what}",
            "POST",
            "/collections/default/evidence",
            code,
            names,
            f"calibration as a form: {what}",
            as_form(parts),
        )
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        yield Row(
            f"evidence-{kind}",
            "POST",
            "/collections/default/evidence",
            "unsupported_media_type",
            "no body",
            "calibration: neither a form nor JSON",
            {"content": b"", "headers": {"Content-Type": kind}},
        )
    yield Row(
        "evidence-untyped",
        "POST",
        "/collections/default/evidence",
        "unsupported_media_type",
        "no body",
        "calibration: a body without a content type",
        {"content": b"{}"},
    )


def batch_rows() -> Iterator[Row]:
    """Yield rows of ``/enroll/batch`` as a whole; what is wrong with one photo is told in its result."""
    route = "/enroll/batch"
    photo = base64.b64encode(PHOTO).decode()
    one = f'{{"identity": "new", "image": "{photo}"}}'
    for what, body, code, names in (
        ("no items", '{"items": []}', "invalid_request", "items"),
        ("items missing", "{}", "invalid_request", "items"),
        ("items not a list", f'{{"items": {one}}}', "invalid_request", "items"),
        ("items null", '{"items": null}', "invalid_request", "items"),
        ("an item that is text", '{"items": ["new"]}', "invalid_request", "items.0"),
        ("an item without an image", '{"items": [{"identity": "new"}]}', "invalid_request", "items.0.image"),
        (
            "an item without an identity",
            f'{{"items": [{{"image": "{photo}"}}]}}',
            "invalid_request",
            "items.0.identity",
        ),
        (
            "an identity that cannot be one",
            f'{{"items": [{one.replace("new", " ")}]}}',
            "invalid_request",
            "items.0.identity",
        ),
        (
            "replace and add of one item",
            f'{{"items": [{one[:-1]}, "replace": true, "add": true}}]}}',
            "invalid_request",
            "not both",
        ),
        (
            "metadata that is a list",
            f'{{"items": [{one[:-1]}, "metadata": [1]}}]}}',
            "invalid_request",
            "items.0.metadata",
        ),
        (
            "an item with another field",
            f'{{"items": [{one[:-1]}, "colour": "red"}}]}}',
            "invalid_request",
            "items.0.colour",
        ),
        (
            "an image that is not base64",
            '{"items": [{"identity": "new", "image": "***"}]}',
            "image_unreadable",
            "items.0.image",
        ),
        ("101 items", f'{{"items": [{", ".join([one] * 101)}]}}', "invalid_request", "items"),
        ("unknown field", f'{{"items": [{one}], "replace": true}}', "invalid_request", "replace"),
        (
            "face not only, largest or central",
            f'{{"items": [{one}], "face": "all"}}',
            "invalid_request",
            "face",
        ),
        (
            "a collection that does not exist",
            f'{{"items": [{one}], "collection": "nowhere"}}',
            "collection_not_found",
            "nowhere",
        ),
        (
            "a collection made by another build of its model",
            f'{{"items": [{one}], "collection": "moved"}}',
            "model_mismatch",
            "moved",
        ),
        ("JSON, but a list", "[]", "invalid_request", "body"),
    ):
        yield Row(
            f"batch-json-{what}", "POST", route, code, names, f"batch in JSON: {what}", _json_text(body)
        )
    pair: list[tuple[str, Value]] = [("identity", Text("new")), ("image", File(PHOTO))]
    forms: tuple[tuple[str, list[tuple[str, Value]], str], ...] = (
        ("an image without its identity", [*pair, ("image", File(PHOTO))], "in pairs"),
        ("no image", [("identity", Text("new"))], "image"),
        ("metadata of one of two", [*pair, *pair, ("metadata", Raw("{}"))], "for every image or for none"),
        ("metadata that is a list", [*pair, ("metadata", Raw("[1]"))], "metadata"),
        ("replace and add", [*pair, ("replace", Raw("true")), ("add", Raw("true"))], "not both"),
        ("replace twice", [*pair, ("replace", Raw("true")), ("replace", Raw("true"))], "replace"),
        ("the fields of the JSON", [("items", Raw("[]"))], "items"),
        ("text instead of a file", [("identity", Text("new")), ("image", Text("a.jpg"))], "image"),
        ("101 photos", pair * 101, "100 items"),
    )
    for what, parts, names in forms:
        yield Row(
            f"batch-form-{what}",
            "POST",
            route,
            "invalid_request",
            names,
            f"batch as a form: {what}",
            as_form(parts),
        )
    for kind, request in (
        ("neither a form nor JSON", {"content": b"", "headers": {"Content-Type": "text/plain"}}),
        ("no body", {}),
    ):
        yield Row(
            f"batch-{kind}", "POST", route, "unsupported_media_type", "form-data", f"batch: {kind}", request
        )


def _with_headers(request: dict[str, Any], *headers: tuple[str, str]) -> dict[str, Any]:
    given = [*request.get("headers", {}).items(), *headers]
    return {**request, "headers": [(name.encode(), value.encode()) for name, value in given]}


TAKEN_KEY: Final = "taken"
"""An Idempotency-Key under which another request was answered."""


def header_rows() -> Iterator[Row]:
    """Yield rows of headers that say what a request takes for granted."""
    enroll = as_json([*GOOD["/enroll"].items()])
    replace = as_json([("identity", Text("ada")), ("image", File(PHOTO)), ("replace", Raw("true"))])
    change = _json_text('{"metadata": {"a": 1}}')
    changing: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "/enroll", replace),
        ("PATCH", "/identities/ada", change),
        ("DELETE", "/identities/ada", {}),
    )
    writing = (
        ("POST", "/enroll", enroll),
        ("POST", "/enroll/batch", as_form([("identity", Text("new")), ("image", File(PHOTO))])),
        *changing[1:],
        ("POST", "/collections", _json_text('{"name": "new"}')),
        ("DELETE", "/collections/default", {}),
        ("POST", "/collections/default/evidence", {}),
        ("DELETE", "/collections/default/evidence", {}),
    )
    reading: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", "/identify", as_form(GOOD["/identify"].items())),
        ("POST", "/verify", as_form(CLAIM.items())),
        ("GET", "/identities", {}),
        ("GET", "/identities/ada", {}),
    )
    key, match, revision = "Idempotency-Key", "If-Match", "If-Revision"
    bad = "invalid_request"
    for name, routes, cases in (
        (
            key,
            writing,
            (
                ("empty", [""], bad),
                ("256 characters", ["a" * 256], bad),
                ("not ASCII", ["\u043a\u043b\u044e\u0447"], bad),
                ("a control character", ["a\tb"], bad),
                ("given twice", ["a", "a"], bad),
                ("the key of another request", [TAKEN_KEY], "idempotency_key_reused"),
            ),
        ),
        (
            match,
            changing,
            (
                ("empty", [""], bad),
                ("without quotes", ["1"], bad),
                ("a weak ETag", ['W/"1"'], bad),
                ("two ETags", ['"1", "2"'], bad),
                ("no number", ['"abc"'], bad),
                ("19 digits", [f'"{"9" * 19}"'], bad),
                ("given twice", ['"1"', '"1"'], bad),
                ("another revision than the identity's", ['"999"'], "precondition_failed"),
            ),
        ),
        (
            revision,
            reading,
            (
                ("empty", [""], bad),
                ("negative", ["-1"], bad),
                ("a fraction", ["1.5"], bad),
                ("not a number", ["latest"], bad),
                ("19 digits", ["9" * 19], bad),
                ("given twice", ["1", "1"], bad),
                ("later than any there is", ["999999"], "revision_not_reached"),
            ),
        ),
    ):
        for what, values, code in cases:
            for method, path, request in routes:
                yield Row(
                    f"{name}-{method}-{path}-{what}",
                    method,
                    path,
                    code,
                    name,
                    f"`{name}`: {what}",
                    _with_headers(request, *((name, value) for value in values)),
                )
    nobody = as_json([("identity", Text("nobody")), ("image", File(PHOTO)), ("replace", Raw("true"))])
    for what, request, code in (
        ("without `replace=true`", enroll, bad),
        ("`*`, and the identity is not enrolled", nobody, "precondition_failed"),
    ):
        yield Row(
            f"{match}-enroll-{what}",
            "POST",
            "/enroll",
            code,
            match,
            f"`{match}`: {what}",
            _with_headers(request, (match, "*")),
        )


def state_rows() -> Iterator[Row]:
    """Yield rows that are good requests, but not now or not here."""
    enroll: dict[str, Value] = {"identity": Text("ada"), "image": File(PHOTO)}
    claim: dict[str, Value] = {"image": File(PHOTO), "identity": Text("ada")}
    cases: tuple[tuple[str, str, dict[str, Value], str, str], ...] = (
        ("enrolled already, without replace", "/enroll", enroll, "identity_exists", "replace=true"),
        (
            "as many references as the policy allows",
            "/enroll",
            {**enroll, "add": Raw("true")},
            "too_many_references",
            "replace=true",
        ),
        (
            "replace and add",
            "/enroll",
            {**enroll, "add": Raw("true"), "replace": Raw("true")},
            "invalid_request",
            "not both",
        ),
        (
            "collection changing to a model that is not served here",
            "/enroll",
            {**enroll, "identity": Text("new"), "collection": Text("halfway")},
            "model_not_served",
            "gone",
        ),
        (
            "threshold, where another model than the collection's knows the identity",
            "/verify",
            {**claim, "collection": Text("between"), "threshold": Raw("0.1")},
            "invalid_request",
            "max_fmr",
        ),
        (
            "enrolled already, in another Unicode form",
            "/enroll",
            {**enroll, "identity": Text("E\u0301mile")},
            "identity_exists",
            "replace=true",
        ),
        (
            "identity not enrolled",
            "/verify",
            {**claim, "identity": Text("nobody")},
            "identity_not_found",
            "nobody",
        ),
        (
            "identity of another collection",
            "/verify",
            {**claim, "collection": Text("others")},
            "identity_not_found",
            "others",
        ),
        (
            "model other than the collection's",
            "/verify",
            {**claim, "model": Text("other")},
            "model_mismatch",
            "default",
        ),
        (
            "collection made by another build of its model: enrol",
            "/enroll",
            {**enroll, "identity": Text("new"), "collection": Text("moved")},
            "model_mismatch",
            "moved",
        ),
        (
            "collection made by another build of its model: verify",
            "/verify",
            {**claim, "collection": Text("moved")},
            "model_mismatch",
            "moved",
        ),
        (
            "collection made by another build of its model: identify",
            "/identify",
            {"image": File(PHOTO), "collection": Text("moved")},
            "model_mismatch",
            "moved",
        ),
        (
            "collection whose model is not served",
            "/identify",
            {"image": File(PHOTO), "collection": Text("orphaned")},
            "model_mismatch",
            "orphaned",
        ),
        (
            "faces asked of a model for whole images",
            "/detect",
            {"image": File(PHOTO)},
            "invalid_request",
            "model",
        ),
    )
    for via, send in (("form", as_form), ("json", as_json)):
        for what, path, fields, code, names in cases:
            yield Row(f"{path}-{via}-{what}", "POST", path, code, names, what, send(fields.items()))


def route_rows() -> Iterator[Row]:
    """Yield rows of addresses and methods."""
    for path in (
        "/nothing",
        "/enroll/",
        "/models/a/b",
        "/verify/x",
        "/%00",
        "/identities/a%0Ab",
        "/..%2F..%2Fetc%2Fpasswd",
        "/collections/a%2Fb",
    ):
        yield Row(f"route-{path}", "GET", path, "not_found", "/docs", "no such route")
    for method, path in (
        ("GET", "/enroll"),
        ("PUT", "/verify"),
        ("DELETE", "/identify"),
        ("HEAD", "/embed"),
        ("OPTIONS", "/detect"),
        ("POST", "/identities"),
        ("POST", "/identities/ada"),
        ("PUT", "/identities/ada"),
        ("PUT", "/collections/default"),
        ("POST", "/identities/ada/references"),
        ("PATCH", "/identities/ada/references"),
        ("GET", "/identities/ada/references/r"),
        ("PUT", "/collections/default/migration"),
        ("DELETE", "/models/angles"),
        ("POST", "/healthz"),
        ("POST", "/readyz"),
        ("POST", "/metrics"),
        ("TRACE", "/models"),
    ):
        yield Row(
            f"method-{method}-{path}",
            method,
            path,
            "method_not_allowed",
            "allowed",
            "a method that the route does not have",
        )


def every_row() -> list[Row]:
    """Return the whole table for the small models."""
    return [
        *field_rows(),
        *body_rows(),
        *stored_rows(),
        *header_rows(),
        *state_rows(),
        *route_rows(),
    ]


def face_rows() -> list[tuple[Row, str]]:
    """Return rows for the ``faces`` model, each with the field that the problem must name."""
    one, none, two = (encoded(image, "JPEG") for image in (astronaut(), no_face(), two_faces()))
    small = encoded(astronaut().resize((200, 200)), "PNG")
    dark = encoded(astronaut().point(lambda value: value // 20), "PNG")
    cases: tuple[tuple[str, dict[str, Value], str, str, str], ...] = (
        ("/enroll", {"identity": Text("new"), "image": File(none)}, "no_face", "no face", "image"),
        ("/verify", {"image_a": File(one), "image_b": File(none)}, "no_face", "no face", "image_b"),
        ("/verify", {"image_a": File(none), "image_b": File(one)}, "no_face", "no face", "image_a"),
        ("/identify", {"image": File(none)}, "no_face", "no face", "image"),
        ("/embed", {"image": File(none)}, "no_face", "no face", "image"),
        (
            "/enroll",
            {"identity": Text("new"), "image": File(two)},
            "multiple_faces",
            "two faces and `face` is `only`",
            "image",
        ),
        (
            "/verify",
            {"image_a": File(one), "image_b": File(two), "face": Text("only")},
            "multiple_faces",
            "two faces and `face` is `only`",
            "image_b",
        ),
        (
            "/identify",
            {"image": File(two), "face": Text("only")},
            "multiple_faces",
            "two faces and `face` is `only`",
            "image",
        ),
        (
            "/embed",
            {"image": File(two), "face": Text("only")},
            "multiple_faces",
            "two faces and `face` is `only`",
            "image",
        ),
        (
            "/enroll",
            {"identity": Text("new"), "image": File(small), "collection": Text("strict")},
            "quality_too_low",
            "a face smaller than the collection's `min_face_size`",
            "image",
        ),
        (
            "/enroll",
            {"identity": Text("new"), "image": File(dark)},
            "quality_too_low",
            "a photo too dark to enrol",
            "image",
        ),
        ("/detect", {"image": File(b"hello")}, "image_unreadable", "no image", "image"),
    )
    rows = []
    for path, fields, code, what, field_name in cases:
        for via, send in (("form", as_form), ("json", as_json)):
            parts = fields.items()
            rows.append(
                (
                    Row(f"{path}-{via}-{what}-{field_name}", "POST", path, code, "", what, send(parts)),
                    field_name,
                )
            )
    return rows
