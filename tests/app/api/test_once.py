"""What makes two requests the same: what they ask for, not how their bytes were put together."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from pydantic import BaseModel
from starlette.requests import Request

from app.api import schemas
from app.api.once import request_sha256
from tests.support.images import angle_png

PHOTO = angle_png(10)


def digest(
    fields: BaseModel | None, method: str = "POST", path: str = "/enroll", query: str = "", **headers: str
) -> str:
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
    }
    return request_sha256(Request(scope), fields)


def enrol(**changes: Any) -> schemas.EnrollFields:
    return schemas.EnrollFields(**{"identity": "ada", "image": PHOTO, **changes})


def test_digest_is_sha256_in_hexadecimal_and_the_same_in_every_process() -> None:
    assert digest(None, "DELETE", "/identities/ada") == (
        # printf '{"fields": null, "method": "DELETE", "path": "/identities/ada", "query": []}' | sha256sum
        "bc41a2347d6f7189ea4fa51f191d2848aa6baface4b309aecadad6bc877e9b82"
    )


@pytest.mark.parametrize(
    "same",
    [
        {"collection": "default"},
        {"replace": False, "face": "only", "metadata": None},
        {"image": bytes(bytearray(PHOTO))},
    ],
)
def test_fields_as_by_default_are_as_if_left_out(same: dict[str, Any]) -> None:
    assert digest(enrol(**same)) == digest(enrol())


@pytest.mark.parametrize(
    "other",
    [
        {"identity": "Ada"},
        {"image": PHOTO + b"\0"},
        {"image": angle_png(11)},
        {"metadata": {}},
        {"metadata": {"a": 1}},
        {"collection": "visitors"},
        {"replace": True},
        {"face": "largest"},
    ],
)
def test_each_field_counts(other: dict[str, Any]) -> None:
    assert digest(enrol(**other)) != digest(enrol())


def test_order_of_metadata_and_of_the_query_does_not_count() -> None:
    one, other = enrol(metadata={"a": 1, "b": [1, 2]}), enrol(metadata={"b": [1, 2], "a": 1})
    assert digest(one, query="a=1&b=2") == digest(other, query="b=2&a=1")
    assert digest(one) != digest(enrol(metadata={"a": 1, "b": [2, 1]}))


def test_method_path_and_query_count() -> None:
    requests = [("DELETE", "/a", ""), ("PATCH", "/a", ""), ("DELETE", "/b", ""), ("DELETE", "/a", "x=1")]
    assert len({digest(None, *request) for request in requests}) == 4


def test_slash_in_a_name_is_not_one_between_names() -> None:
    paths = ("/identities/a/references/r", "/identities/a%2Freferences%2Fr")
    assert digest(None, "DELETE", paths[0]) != digest(None, "DELETE", paths[1])


def test_headers_do_not_count() -> None:
    assert digest(None, host="one", authorization="Bearer x") == digest(None, host="other")


def test_each_of_many_photos_counts() -> None:
    photos = [schemas.ProbeFields(identity="ada", image=angle_png(n)) for n in range(3)]
    every = digest(schemas.CalibrationFields(probes=photos))
    assert every != digest(schemas.CalibrationFields(probes=photos[::-1]))
    assert every != digest(schemas.CalibrationFields(probes=photos[:2]))
