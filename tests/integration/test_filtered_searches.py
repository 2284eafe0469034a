"""Searches among identities whose metadata has given values, on both stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.images import angle_png
from tests.support.service import serving, settings_for

PEOPLE: dict[str, dict[str, Any]] = {
    "ada": {"team": "analysis", "floor": 1, "guest": False, "nested": {"team": "other"}},
    "bob": {"team": "Analysis", "floor": 2, "guest": True},
    "eve": {"team": 'quo"te\\ é 😀', "floor": 2.5, "guest": "true"},
    "kay": {"team": r"a \u0000 that is none", "floor": "1", "guest": None},
    "nul": {"text": "zero\x00character"},
    "zoe": {"a.b": "dotted", "it's": "quoted", "$": 1e300, "": "no name"},
}


@pytest.fixture
def client(url: str, tmp_path: Path, angle_models: Path) -> Iterator[TestClient]:
    settings = settings_for(tmp_path, angle_models, ("angles",), database_url=url)
    with serving(settings) as running:
        for place, (name, metadata) in enumerate(PEOPLE.items()):
            data = {"identity": name, "metadata": json.dumps(metadata)}
            running.post("/enroll", data=data, files={"image": angle_png(10 * place)}).raise_for_status()
        yield running


def found(client: TestClient, wanted: dict[str, Any]) -> list[str]:
    answer = client.post(
        "/identify", data={"filter": json.dumps(wanted), "top_k": 100}, files={"image": angle_png(0)}
    )
    answer.raise_for_status()
    names = [candidate["identity"] for candidate in answer.json()["candidates"]]
    assert answer.json()["gallery_size"] == len(names)
    return names


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"team": "analysis"}, ["ada"]),
        ({"floor": 2}, ["bob"]),
        ({"floor": 2.0}, ["bob"]),
        ({"floor": 1}, ["ada"]),
        ({"floor": "1"}, ["kay"]),
        ({"floor": 2.5}, ["eve"]),
        ({"guest": True}, ["bob"]),
        ({"guest": "true"}, ["eve"]),
        ({"guest": False}, ["ada"]),
        ({"team": "analysis", "floor": 2}, []),
        ({"team": "Analysis", "floor": 2}, ["bob"]),
        ({"team": 'quo"te\\ é 😀'}, ["eve"]),
        ({"team": r"a \u0000 that is none"}, ["kay"]),
        ({"a.b": "dotted"}, ["zoe"]),
        ({"it's": "quoted", "$": 1e300}, ["zoe"]),
        ({"team": "nobody's"}, []),
        ({"a": "dotted"}, []),
    ],
    ids=str,
)
def test_only_identities_with_these_values_are_searched(
    client: TestClient, wanted: dict[str, Any], names: list[str]
) -> None:
    assert found(client, wanted) == names


def test_filter_follows_changes_of_metadata(client: TestClient) -> None:
    client.patch("/identities/ada", json={"metadata": {"floor": 2}}).raise_for_status()
    assert found(client, {"floor": 2}) == ["ada", "bob"]
    client.delete("/identities/bob").raise_for_status()
    assert found(client, {"floor": 2}) == ["ada"]
