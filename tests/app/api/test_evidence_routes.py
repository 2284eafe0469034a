"""A collection's own evidence over HTTP: measured, used, shown, removed; damaged or foreign, passed over."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.services import own_evidence
from app.services.access import create_key
from app.storage import evidence
from tests.support.bad_requests import File, Raw, Text, as_form, as_json
from tests.support.crowd import apart, enrol_at, evenly
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

ROUTE = "/collections/people/evidence"
PEOPLE = evenly(40)


@pytest.fixture
def crowd(tmp_path: Path, crowd_models: Path) -> Iterator[TestClient]:
    """A service whose collection ``people`` has 40 identities, 9 degrees apart."""
    with serving(settings_for(tmp_path, crowd_models, ("crowd",))) as client:
        context = state(client)
        enrol_at(context.database, context.models.default, PEOPLE)
        yield client


def state(client: TestClient) -> Any:
    return client.app.state.context  # type: ignore[attr-defined]


def measured(client: TestClient, **request: Any) -> Any:
    response = client.post(ROUTE, **request)
    assert response.status_code == 201, response.text
    return response.json()


def verify(client: TestClient, degrees: float, **fields: Any) -> Any:
    data = {"identity": "p0", "collection": "people", **{name: str(value) for name, value in fields.items()}}
    response = client.post("/verify", data=data, files={"image": angle_png(degrees)})
    assert response.status_code == 200, response.text
    return response.json()


def identify(client: TestClient, degrees: float, **fields: Any) -> Any:
    data = {"collection": "people", **{name: str(value) for name, value in fields.items()}}
    response = client.post("/identify", data=data, files={"image": angle_png(degrees)})
    assert response.status_code == 200, response.text
    return response.json()


# measuring


def test_measured_without_a_body_and_in_force_from_then_on(crowd: TestClient) -> None:
    assert crowd.get(ROUTE).json()["evidence"]["source"] == "bundle"
    answer = measured(crowd)
    assert answer["collection"] == "people"
    assert (answer["evidence"]["source"], answer["evidence"]["subjects"]) == ("deployment", 40)
    assert (answer["evidence"]["mated"], answer["evidence"]["nonmated"]) == (0, 780)
    assert answer["evidence"]["revision"] == answer["collection_revision"] == 1
    age = datetime.now(UTC) - datetime.fromisoformat(answer["evidence"]["measured_at"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert answer["smallest_fmr"] == pytest.approx(3 / 780)
    assert answer["probes"] == {"used": 0, "failures_to_acquire": []}
    assert (answer["duplicates"]["seen"], answer["duplicates"]["suspected"]) == (0, False)
    assert len(answer["duplicates"]["closest"]) == 10
    shown = crowd.get(ROUTE).json()
    assert shown == {name: answer[name] for name in shown}


def test_operating_points_stand_beside_what_the_bundle_says_of_the_same_threshold(crowd: TestClient) -> None:
    (point,) = measured(crowd)["operating_points"]
    own, bundle = point["in_force"], point["bundle"]
    assert (own["max_fmr"], own["fmr"], own["fnmr"]) == (0.01, 0.0, None)
    assert own["threshold"] == bundle["threshold"] == pytest.approx(apart(9), abs=1e-6)
    assert bundle["fmr"] == pytest.approx(9 / 180, rel=0.1)
    assert bundle["fnmr"] == 0.0


@pytest.mark.parametrize("via", ["form", "json"])
def test_labelled_photos_give_the_false_non_match_rate(crowd: TestClient, via: str) -> None:
    photos = [("p0", angle_png(5)), ("p1", angle_png(9)), ("p2", b"no image"), ("p2", angle_png(48))]
    if via == "form":
        parts = [part for name, data in photos for part in (("identity", Text(name)), ("image", File(data)))]
        request = as_form(parts)
    else:
        entries = [{"identity": name, "image": base64.b64encode(data).decode()} for name, data in photos]
        request = {"json": {"probes": entries}}
    answer = measured(crowd, **request)
    assert answer["evidence"]["mated"] == 3
    assert answer["probes"]["used"] == 3
    (failure,) = answer["probes"]["failures_to_acquire"]
    assert (failure["identity"], failure["code"]) == ("p2", "image_unreadable")
    assert failure["image"] == ("image.2" if via == "form" else "probes.2.image")
    # 5, 0 and 30 degrees from their own; one of three is farther than 9.
    assert answer["operating_points"][0]["in_force"]["fnmr"] == pytest.approx(1 / 3)
    assert "1 probe photos could not be used (1 image_unreadable)" in answer["evidence"]["description"]


def test_all_identities_of_a_form_may_come_before_all_images(crowd: TestClient) -> None:
    parts = [("identity", Text("p0")), ("identity", Text("p1"))]
    answer = measured(
        crowd, **as_form([*parts, ("image", File(angle_png(5))), ("image", File(angle_png(9)))])
    )
    assert answer["evidence"]["mated"] == 2
    assert answer["operating_points"][0]["in_force"]["fnmr"] == 0.0


def test_duplicates_are_refused_by_name_and_accepted_on_request(crowd: TestClient) -> None:
    context = state(crowd)
    enrol_at(context.database, context.models.default, {f"again {n}": PEOPLE[f"p{n}"] for n in range(6)})
    refused = crowd.post(ROUTE)
    assert refused.status_code == 409
    problem = refused.json()
    assert (problem["code"], problem["seen"]) == ("duplicates_suspected", 6)
    assert {frozenset(pair["identities"]) for pair in problem["closest"][:6]} == {
        frozenset((f"p{n}", f"again {n}")) for n in range(6)
    }
    assert crowd.get(ROUTE).json()["evidence"]["source"] == "bundle"
    for send in (as_form, as_json):
        answer = measured(crowd, **send([("accept_duplicates", Raw("true"))]))
        assert answer["duplicates"]["suspected"] is True
        assert "accepted although 6 pairs" in answer["evidence"]["description"]


def test_too_few_identities_are_refused_with_how_many_it_takes(crowd: TestClient) -> None:
    context = state(crowd)
    enrol_at(context.database, context.models.default, evenly(24), collection="few")
    problem = crowd.post("/collections/few/evidence").json()
    assert (problem["code"], problem["identities"], problem["needed"]) == ("too_few_identities", 24, 25)


def test_measuring_again_replaces_what_was(crowd: TestClient) -> None:
    measured(crowd)
    context = state(crowd)
    enrol_at(context.database, context.models.default, {"between": 4.5})
    assert measured(crowd)["evidence"]["subjects"] == 41
    assert crowd.get(ROUTE).json()["evidence"]["revision"] == 2
    assert verify(crowd, 0, threshold=0.1)["evidence"]["subjects"] == 41
    rows = context.database.read_now(lambda session: session.scalar(text("SELECT count(*) FROM evidence")))
    assert rows == 1


def test_removed_evidence_is_gone_and_the_bundles_counts(crowd: TestClient) -> None:
    measured(crowd)
    assert crowd.delete(ROUTE).status_code == 204
    assert crowd.get(ROUTE).json()["evidence"]["source"] == "bundle"
    assert verify(crowd, 0, max_fmr=0.01)["evidence"]["source"] == "bundle"
    assert crowd.delete(ROUTE).status_code == 204


def test_deleted_collection_takes_its_evidence_along(crowd: TestClient) -> None:
    measured(crowd)
    assert crowd.delete("/collections/people").status_code == 204
    rows = state(crowd).database.read_now(lambda s: s.scalar(text("SELECT count(*) FROM evidence")))
    assert rows == 0


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_key_that_may_only_match_may_not_change_evidence(
    tmp_path: Path, crowd_models: Path, method: str
) -> None:
    with serving(settings_for(tmp_path, crowd_models, ("crowd",), host="0.0.0.0")) as client:
        context = state(client)
        enrol_at(context.database, context.models.default, PEOPLE)
        headers = {"Authorization": f"Bearer {create_key(context.database, 'gate', 'match')}"}
        assert client.request(method, ROUTE, headers=headers).status_code == 403
        assert client.request(method, ROUTE).status_code == 401
        assert client.get(ROUTE, headers=headers).json()["evidence"]["source"] == "bundle"


# deciding


def test_verification_decides_by_the_collections_own_rate(crowd: TestClient) -> None:
    # The nearest two here are 9 degrees apart; of people at random angles one in a hundred is within 1.8.
    before = verify(crowd, 5, max_fmr=0.01)
    assert (before["match"], before["evidence"]["source"]) == (False, "bundle")
    measured(crowd)
    after = verify(crowd, 5, max_fmr=0.01)
    assert (after["match"], after["evidence"]["source"]) == (True, "deployment")
    assert after["threshold"] == pytest.approx(apart(9), abs=1e-6)
    assert after["operating_point"]["fnmr"] is None
    assert after["evidence"]["revision"] == 1
    assert after["distance"] == before["distance"]


def test_rate_that_only_the_bundle_supports_is_the_bundles_and_says_so(crowd: TestClient) -> None:
    before = verify(crowd, 5, max_fmr=0.001)
    measured(crowd)
    after = verify(crowd, 5, max_fmr=0.001)
    assert after["operating_point"] == before["operating_point"]
    assert after["evidence"]["source"] == "bundle"
    assert "40 subjects" in after["evidence"]["note"]


def test_search_decides_by_the_collections_own_rate(crowd: TestClient) -> None:
    context = state(crowd)
    angles = np.random.default_rng(1).uniform(0, 360, 400)
    people = {f"p{number}": float(angle) for number, angle in enumerate(angles)}
    enrol_at(context.database, context.models.default, people, collection="large")
    before = identify(crowd, 45, collection="large", max_fpir=0.3)
    assert before["evidence"]["source"] == "bundle"
    crowd.post("/collections/large/evidence").raise_for_status()
    after = identify(crowd, 45, collection="large", max_fpir=0.3)
    assert (after["evidence"]["source"], after["evidence"]["subjects"]) == ("deployment", 400)
    assert after["gallery_size"] == 400
    # One of 400 at random angles is within d degrees with probability 400 * d / 180, for small d.
    degrees = 2 * np.degrees(np.arcsin(after["threshold"] / 2))
    assert 1 - np.exp(-400 * degrees / 180) == pytest.approx(0.3, abs=0.1)


def test_threshold_gets_the_rates_of_the_collections_own_people(crowd: TestClient) -> None:
    measured(crowd)
    for answer in (verify(crowd, 0, threshold=apart(10)), identify(crowd, 0, threshold=apart(10))):
        assert answer["operating_point"]["fmr"] == pytest.approx(40 / 780)
        assert answer["evidence"]["source"] == "deployment"


def test_default_and_named_points_stay_the_models(crowd: TestClient) -> None:
    before = [verify(crowd, 5), identify(crowd, 5, operating_point="fmr-1e-3")]
    measured(crowd)
    after = [verify(crowd, 5), identify(crowd, 5, operating_point="fmr-1e-3")]
    for one, other in zip(before, after, strict=True):
        assert other["operating_point"] == one["operating_point"]
        assert other["evidence"]["source"] == "bundle"
        assert "evidence of its own" in other["evidence"]["note"]


def test_two_images_have_no_collection_and_other_collections_are_left_alone(crowd: TestClient) -> None:
    measured(crowd)
    photos = {"image_a": angle_png(0), "image_b": angle_png(5)}
    pair = crowd.post("/verify", data={"max_fmr": "0.01"}, files=photos).json()
    assert (pair["evidence"]["source"], pair["evidence"]["note"]) == ("bundle", None)
    context = state(crowd)
    enrol_at(context.database, context.models.default, PEOPLE, collection="others")
    assert verify(crowd, 0, collection="others", max_fmr=0.01)["evidence"]["source"] == "bundle"


# what is kept, and what cannot be used


def test_evidence_is_read_once(crowd: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(crowd)
    verify(crowd, 5, max_fmr=0.01)
    monkeypatch.setattr(evidence, "get", None)  # would fail if called
    assert verify(crowd, 5, max_fmr=0.01)["evidence"]["source"] == "deployment"
    assert identify(crowd, 5, threshold=0.1)["evidence"]["source"] == "deployment"


def test_evidence_used_longest_ago_is_dropped_and_read_again(
    crowd: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_evidence, "MAX_KEPT", 2)
    context = state(crowd)
    for name in "abc":
        enrol_at(context.database, context.models.default, PEOPLE, collection=name)
        crowd.post(f"/collections/{name}/evidence").raise_for_status()
    kept = context.verification._own._kept
    for name in "abacba":
        assert verify(crowd, 5, collection=name, max_fmr=0.01)["match"] is True
        assert len(kept) <= 2


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _overwritten(data: bytes) -> bytes:
    return data[:-30] + bytes(30)


def _contradictory(_: bytes) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, nonmated_distance=np.array([np.nan]), subjects=np.array(2))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda _: b"no npz file",
        _truncated,
        _contradictory,
        lambda data: data[:-30] + bytes(30),
    ],
    ids=["empty", "garbage", "truncated", "contradictory", "overwritten"],
)
def test_damaged_evidence_is_passed_over_and_reported_once(
    crowd: TestClient, caplog: pytest.LogCaptureFixture, spoil: Any
) -> None:
    plain = [verify(crowd, 5, max_fmr=0.01), identify(crowd, 5, threshold=0.1), verify(crowd, 5)]
    measured(crowd)
    _set(crowd, trials=spoil(_stored_trials(crowd)))
    with caplog.at_level(logging.WARNING, "visavis.evidence"):
        answers = [verify(crowd, 5, max_fmr=0.01), identify(crowd, 5, threshold=0.1), verify(crowd, 5)]
        shown = crowd.get(ROUTE)
    for before, after in zip(plain, answers, strict=True):
        assert after["operating_point"] == before["operating_point"]
        assert after["evidence"]["source"] == "bundle"
    assert "it is damaged" in answers[0]["evidence"]["note"]
    assert (shown.status_code, shown.json()["evidence"]["source"]) == (200, "bundle")
    assert len([record for record in caplog.records if "cannot be used" in record.message]) == 1


def test_evidence_of_another_model_and_a_missing_row_are_passed_over(crowd: TestClient) -> None:
    measured(crowd)
    _set(crowd, model_digest="0" * 64)
    assert "of another model" in verify(crowd, 5, max_fmr=0.01)["evidence"]["note"]
    measured(crowd)
    state(crowd).database.write_now(lambda session: session.execute(text("DELETE FROM evidence")))
    answer = verify(crowd, 5, max_fmr=0.01)
    assert (answer["evidence"]["source"], answer["match"]) == ("bundle", False)
    assert "not in the store" in answer["evidence"]["note"]
    assert measured(crowd)["evidence"]["source"] == "deployment"
    assert verify(crowd, 5, max_fmr=0.01)["match"] is True


def _stored_trials(client: TestClient) -> bytes:
    database = state(client).database
    return bytes(database.read_now(lambda session: session.scalar(text("SELECT trials FROM evidence"))))


def _set(client: TestClient, **values: Any) -> None:
    columns = ", ".join(f"{name} = :{name}" for name in values)
    state(client).database.write_now(
        lambda session: session.execute(text(f"UPDATE evidence SET {columns}"), values)
    )
