"""A collection's change of model: nothing is lost, no answer mixes models, and going back changes nothing.

``other`` is the encoder of ``angles`` with another metric, so two templates ``d`` degrees apart are
``2 sin(d/2)`` apart by the one model and ``1 - cos(d)`` by the other.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.context import Context
from app.errors import BusyError, ModelNotServedError
from app.services.filling import Filled, fill
from app.services.images import Images
from app.services.model_migration import ModelMigration
from app.storage import collections, evidence
from app.storage.records import Measurement
from tests.support.images import angle_png
from tests.support.service import serving, settings_for

Pair = tuple[TestClient, TestClient]
MIGRATION = "/collections/default/migration"


@pytest.fixture
def pair(url: str, tmp_path: Path, angle_models: Path) -> Iterator[Pair]:
    """Two services with both models on one store."""
    settings = settings_for(tmp_path, angle_models, ("angles", "other"), database_url=url)
    with ExitStack() as stack:
        yield stack.enter_context(serving(settings)), stack.enter_context(serving(settings))


@pytest.fixture
def service(pair: Pair) -> TestClient:
    return pair[0]


def context_of(service: TestClient) -> Context:
    context: Context = service.app.state.context  # type: ignore[attr-defined]
    return context


def enrol(service: TestClient, name: str, degrees: float, **fields: str) -> Any:
    return service.post("/enroll", data={"identity": name, **fields}, files={"image": angle_png(degrees)})


def found(service: TestClient, degrees: float) -> Any:
    response = service.post("/identify", data={"top_k": "100"}, files={"image": angle_png(degrees)})
    return response.raise_for_status().json()


def verified(service: TestClient, name: str, degrees: float, **fields: str) -> Any:
    return service.post("/verify", data={"identity": name, **fields}, files={"image": angle_png(degrees)})


def begin(service: TestClient) -> Any:
    return service.post(MIGRATION, json={"model": "other"}).raise_for_status().json()


def step(service: TestClient, name: str) -> Any:
    return service.post(f"{MIGRATION}/{name}").raise_for_status().json()


def filled(service: TestClient, photos: dict[str, list[Path]] | None = None) -> Filled:
    context = context_of(service)
    return fill(context.database, context.models, "default", photos or {})


def keep_crops(service: TestClient) -> None:
    service.patch("/collections/default", json={"policy": {"keep_images": "aligned"}}).raise_for_status()


def templates(service: TestClient) -> dict[str, int]:
    """Return how many templates there are of each model."""
    context = context_of(service)
    query = text("SELECT model_digest, count(*) FROM reference_templates GROUP BY model_digest")
    rows = context.database.read_now(lambda session: session.execute(query).all())
    names = {model.digest: model.model_id for model in context.models.every()}
    return {names[digest]: number for digest, number in rows}


def by(model: str, degrees: float) -> Any:
    radians = math.radians(degrees)
    distance = 2 * math.sin(radians / 2) if model == "angles" else 1 - math.cos(radians)
    return pytest.approx(distance, abs=0.02)


def distances(answer: Any) -> dict[str, float]:
    return {candidate["identity"]: candidate["distance"] for candidate in answer["candidates"]}


def decision(answer: Any) -> dict[str, Any]:
    """Return an answer without what no two answers share."""
    return {name: value for name, value in answer.items() if name not in {"timings_ms", "revision"}}


def test_change_from_kept_crops_and_back(pair: Pair) -> None:
    one, other = pair
    keep_crops(one)
    enrol(one, "ada", 0)
    enrol(one, "eve", 60)
    before = [decision(found(other, 50)), decision(verified(other, "ada", 20, max_fmr="0.01").json())]

    status = begin(one)
    assert (status["state"], status["model"], status["pending"]) == ("filling", "angles", 2)
    enrol(other, "late", 90)
    assert templates(one) == {"angles": 3, "other": 1}
    result = filled(one)
    assert (result.from_crops, result.resized, result.overtaken) == (2, 0, 0)
    assert templates(one) == {"angles": 3, "other": 3}
    assert decision(found(other, 50))["model"] == "angles"

    status = step(one, "switch")
    assert (status["state"], status["model"], status["pending"]) == ("switched", "other", 0)
    answer = found(other, 50)
    assert (answer["model"], answer["pending"]) == ("other", 0)
    assert distances(answer) == {"eve": by("other", 10), "late": by("other", 40), "ada": by("other", 50)}
    assert verified(other, "ada", 20).json()["distance"] == by("other", 20)
    enrol(other, "after", 30)
    one.delete("/identities/late").raise_for_status()

    step(one, "rollback")
    assert distances(found(other, 50))["after"] == by("angles", 20)
    one.delete("/identities/after").raise_for_status()
    assert [decision(found(other, 50)), decision(verified(other, "ada", 20, max_fmr="0.01").json())] == before

    step(other, "switch")
    done = one.post(f"{MIGRATION}/finish", json={}).raise_for_status().json()
    assert (done["model"], done["dropped"]) == ("other", [])
    assert templates(one) == {"other": 2}
    assert distances(found(other, 50)) == {"eve": by("other", 10), "ada": by("other", 50)}
    assert one.get(MIGRATION).json()["state"] == "none"


def test_pending_are_verified_by_the_old_model_and_learnt_when_seen(pair: Pair) -> None:
    one, other = pair
    for name, degrees in (("ada", 0), ("eve", 45), ("bob", 90)):
        enrol(one, name, degrees)
    begin(one)
    assert filled(one) == Filled()  # there are no crops
    step(one, "switch")
    answer = found(other, 10)
    assert (answer["model"], answer["pending"], answer["candidates"]) == ("other", 3, [])

    # Too far for certainty: it is decided by the old model, and nothing is learnt.
    far = verified(other, "ada", 60).json()
    assert (far["model"], far["match"], far["learnt"]) == ("angles", False, False)
    assert far["distance"] == by("angles", 60)
    near = verified(other, "ada", 5).json()
    assert (near["model"], near["match"], near["learnt"]) == ("angles", True, True)
    assert near["distance"] == by("angles", 5)

    again = verified(one, "ada", 10).json()
    assert (again["model"], again["learnt"]) == ("other", False)
    assert again["distance"] == by("other", 5)
    answer = found(one, 10)
    assert (distances(answer), answer["pending"]) == ({"ada": by("other", 5)}, 2)
    assert one.get("/identities/ada").json()["references"] == 1
    status = one.get(MIGRATION, params={"limit": 1}).json()
    assert (status["pending"], status["pending_identities"]) == (2, ["eve"])
    more = one.get(MIGRATION, params={"limit": 1, "cursor": status["next_cursor"]}).json()
    assert more["pending_identities"] == ["bob"]


def test_seen_before_the_switch_is_known_after_it(service: TestClient) -> None:
    enrol(service, "ada", 0)
    begin(service)
    seen = verified(service, "ada", 3).json()
    assert (seen["model"], seen["learnt"]) == ("angles", True)
    assert step(service, "switch")["pending"] == 0
    assert distances(found(service, 3)) == {"ada": by("other", 0)}


def test_nothing_is_learnt_where_the_policy_forbids_it(service: TestClient) -> None:
    service.patch("/collections/default", json={"policy": {"migrate_on_verify": False}}).raise_for_status()
    enrol(service, "ada", 0)
    begin(service)
    assert verified(service, "ada", 0).json()["learnt"] is False
    assert templates(service) == {"angles": 1}


def test_threshold_is_not_taken_for_one_of_the_other_model(service: TestClient) -> None:
    enrol(service, "ada", 0)
    begin(service)
    step(service, "switch")
    refused = verified(service, "ada", 30, threshold="0.2")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "threshold")
    meant = verified(service, "ada", 30, threshold="0.2", model="angles").json()
    assert (meant["match"], meant["model"], meant["distance"]) == (False, "angles", by("angles", 30))
    unknown = verified(service, "ada", 30, model="other")
    assert (unknown.status_code, unknown.json()["code"]) == (409, "model_mismatch")


def test_service_without_the_second_model_refuses_to_enrol_and_verifies(
    pair: Pair, url: str, tmp_path: Path, angle_models: Path
) -> None:
    one = pair[0]
    enrol(one, "ada", 0)
    with serving(settings_for(tmp_path, angle_models, ("angles",), database_url=url)) as lacking:
        begin(one)
        for fields in ({"identity": "eve"}, {"identity": "ada", "replace": "true"}):
            refused = lacking.post("/enroll", data=fields, files={"image": angle_png(45)})
            assert (refused.status_code, refused.json()["code"]) == (409, "model_not_served")
        assert templates(one) == {"angles": 1}
        assert verified(lacking, "ada", 0).json()["match"] is True
        assert distances(found(lacking, 0)) == {"ada": by("angles", 0)}
        with pytest.raises(ModelNotServedError):
            filled(lacking)
        step(one, "switch")
        for path in ("/identify", "/verify"):
            data = {"identity": "ada"} if path == "/verify" else {}
            refused = lacking.post(path, data=data, files={"image": angle_png(0)})
            served = path == "/verify"  # by the template of the model that it has
            assert refused.status_code == (200 if served else 409)


def test_enrolment_under_way_when_the_change_begins_gets_both_templates(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(service, monkeypatch, lambda steps: steps.begin("default", "other"))
    assert enrol(service, "ada", 0).status_code == 201
    assert templates(service) == {"angles": 1, "other": 1}


def test_enrolment_under_way_at_the_switch_is_answered_with_the_new_model(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(service)
    meanwhile(service, monkeypatch, lambda steps: steps.switch("default"))
    answer = enrol(service, "ada", 0).json()
    assert answer["model"] == "other"
    listed = service.get("/identities/ada/references").json()["references"]
    assert {one["model"] for one in listed} == {"angles", "other"}
    (by_other,) = (one for one in listed if one["model"] == "other")
    assert answer["reference_id"] == by_other["id"]


def test_search_under_way_at_the_switch_is_answered_by_the_new_model_alone(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(service)
    enrol(service, "ada", 0)
    assert found(service, 60)["model"] == "angles"
    meanwhile(service, monkeypatch, lambda steps: steps.switch("default"))
    answer = found(service, 60)
    assert (answer["model"], distances(answer)) == ("other", {"ada": by("other", 60)})


def test_claim_under_way_at_the_switch_is_answered_by_one_model(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(service)
    enrol(service, "ada", 0)
    meanwhile(service, monkeypatch, lambda steps: steps.switch("default"))
    answer = verified(service, "ada", 60).json()
    assert answer["distance"] == by(answer["model"], 60)


def meanwhile(
    service: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[ModelMigration], Awaitable[object]],
) -> None:
    """Let a step of the change happen once, when the service has encoded the next image."""
    real = Images.encode
    left = [happens]

    async def encode(self: Images, *args: Any, **kwargs: Any) -> Any:
        encoded = await real(self, *args, **kwargs)
        while left:
            await left.pop()(context_of(service).model_migration)
        return encoded

    monkeypatch.setattr(Images, "encode", encode)


def test_photos_of_a_folder_stand_beside_the_reference_that_they_show(
    service: TestClient, tmp_path: Path
) -> None:
    service.patch("/collections/default", json={"policy": {"max_references": 2}}).raise_for_status()
    enrol(service, "ada", 0)
    enrol(service, "ada", 40, add="true")
    enrol(service, "eve", 90)
    begin(service)
    files = {"near.png": angle_png(41), "wrong.png": angle_png(90), "broken.png": b"no image"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in ("broken.png", "wrong.png", "near.png")]
    result = filled(service, {"ada": paths})
    assert (result.from_photos, result.not_confirmed) == (1, [str(tmp_path / "wrong.png")])
    assert list(result.failed) == [str(tmp_path / "broken.png")]
    listed = service.get("/identities/ada/references").json()["references"]
    photo = {one["photo"] for one in listed if one["model"] == "other"}
    assert photo == {listed[1]["photo"]}
    assert service.get(MIGRATION).json()["pending_identities"] == ["eve"]


def test_filling_that_was_broken_off_goes_on_and_two_at_once_make_each_template_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = pair
    keep_crops(one)
    for number in range(9):
        enrol(one, f"ada-{number}", 10 * number)
    begin(one)
    monkeypatch.setattr("app.services.filling.PAGE", 2)
    seen: list[Filled] = []

    def progress(count: int) -> None:
        if not seen:
            seen.append(filled(other))  # all of it, while the first has done one page
        elif len(seen) == 1:
            seen.append(Filled())
            raise KeyboardInterrupt

    context = context_of(one)
    with pytest.raises(KeyboardInterrupt):
        fill(context.database, context.models, "default", {}, progress=progress)
    assert seen[0].from_crops == 7
    assert templates(one) == {"angles": 9, "other": 9}
    assert filled(one) == Filled()


def test_identity_removed_while_its_crop_was_encoded_gets_no_template(
    service: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_crops(service)
    enrol(service, "ada", 0)
    enrol(service, "eve", 45)
    begin(service)
    real = context_of(service).models.get("other").images.encode_pixels

    def encode(*args: Any) -> Any:
        monkeypatch.undo()
        service.delete("/identities/ada").raise_for_status()
        enrol(service, "eve", 80, replace="true").raise_for_status()
        return real(*args)

    monkeypatch.setattr(context_of(service).models.get("other").images, "encode_pixels", encode)
    result = filled(service)
    assert (result.from_crops, result.overtaken) == (2, 2)
    assert templates(service) == {"angles": 1, "other": 1}
    step(service, "switch")
    assert distances(found(service, 80)) == {"eve": by("other", 0)}


def test_evidence_of_its_own_goes_out_of_force_with_its_model_and_comes_back(service: TestClient) -> None:
    enrol(service, "ada", 0)
    context = context_of(service)
    found_ = context.database.read_now(collections.get, "default")
    measured = Measurement(found_.model_digest, 1, "made up", 40, 40, 0, 780)
    number = context.database.write_now(evidence.put, found_, measured, b"").id
    begin(service)
    step(service, "switch")
    assert context.database.read_now(collections.get, "default").evidence_id is None
    step(service, "rollback")
    assert context.database.read_now(collections.get, "default").evidence_id == number
    step(service, "switch")
    service.post(f"{MIGRATION}/finish", json={"drop_pending": True}).raise_for_status()
    rows = context.database.read_now(lambda s: s.scalar(text("SELECT count(*) FROM evidence")))
    assert rows == 0


def test_finish_refuses_while_somebody_is_pending_and_drops_them_when_told(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    enrol(one, "eve", 45)
    begin(one)
    early = one.post(f"{MIGRATION}/finish", json={})
    assert (early.status_code, early.json()["code"]) == (409, "migration_state")
    verified(one, "eve", 45).raise_for_status()
    step(one, "switch")
    refused = one.post(f"{MIGRATION}/finish", json={})
    assert (refused.status_code, refused.json()["code"]) == (409, "identities_pending")
    assert (refused.json()["pending"], "'ada'" in refused.json()["detail"]) == (1, True)
    assert verified(other, "ada", 30).json()["model"] == "angles"
    done = one.post(f"{MIGRATION}/finish", json={"drop_pending": True}).raise_for_status().json()
    assert done["dropped"] == ["ada"]
    assert verified(other, "ada", 0).status_code == 404
    assert distances(found(other, 45)) == {"eve": by("other", 0)}
    assert templates(one) == {"other": 1}


def test_model_that_was_given_up_and_is_begun_again_has_nobody_of_before(pair: Pair) -> None:
    one, other = pair
    enrol(one, "ada", 0)
    begin(one)
    verified(one, "ada", 0).raise_for_status()
    step(one, "switch")
    assert distances(found(other, 0)) == {"ada": by("other", 0)}
    step(one, "rollback")
    one.post(f"{MIGRATION}/finish", json={"abandon": True}).raise_for_status()
    assert templates(one) == {"angles": 1}
    begin(one)
    step(one, "switch")
    answer = found(other, 0)
    assert (distances(answer), answer["pending"]) == ({}, 1)


def test_steps_out_of_their_order_are_refused_and_repeated_ones_change_nothing(service: TestClient) -> None:
    for name in ("switch", "rollback"):
        refused = service.post(f"{MIGRATION}/{name}")
        assert (refused.status_code, refused.json()["code"]) == (409, "migration_state")
    assert service.post(f"{MIGRATION}/finish", json={}).status_code == 409
    same = service.post(MIGRATION, json={"model": "angles"})
    assert (same.status_code, same.json()["code"]) == (409, "migration_state")
    assert service.post(MIGRATION, json={"model": "nobody"}).status_code == 404
    revision = begin(service)["revision"]
    assert begin(service)["revision"] == revision
    assert step(service, "rollback")["revision"] == revision
    assert step(service, "switch")["revision"] == revision + 1
    assert step(service, "switch")["revision"] == revision + 1


def test_finish_that_was_broken_off_goes_on(service: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_crops(service)
    enrol(service, "ada", 0)
    begin(service)
    filled(service)
    step(service, "switch")

    def broken(*_: Any, **__: Any) -> None:
        raise BusyError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr("app.storage.model_migration.drop_templates", broken)
        assert service.post(f"{MIGRATION}/finish", json={}).status_code == 503
    assert service.get(MIGRATION).json()["state"] == "finishing"
    assert service.post(f"{MIGRATION}/rollback").status_code == 409
    enrol(service, "eve", 60).raise_for_status()
    assert templates(service) == {"angles": 1, "other": 2}
    assert distances(found(service, 60)) == {"eve": by("other", 0), "ada": by("other", 60)}
    assert service.post(f"{MIGRATION}/finish", json={}).status_code == 200
    assert (service.get(MIGRATION).json()["state"], templates(service)) == ("none", {"other": 2})


def test_learnt_photo_below_the_floor_is_not_stored_and_the_verification_stands(service: TestClient) -> None:
    enrol(service, "ada", 0)
    policy = {"policy": {"min_sharpness": 1000}}
    service.patch("/collections/default", json=policy).raise_for_status()
    begin(service)
    answer = verified(service, "ada", 0).json()
    assert (answer["match"], answer["learnt"]) == (True, False)
    assert templates(service) == {"angles": 1}
