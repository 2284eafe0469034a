"""What an answer says its distance means: on the made-up trials of the angles model.

Its non-mated trials lie evenly over 0.5 to 2, its mated ones evenly over 0 to 0.6.
"""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.images import angle_png


def _verify(client: TestClient, degrees: float, **fields: Any) -> dict[str, Any]:
    files = {"image_a": angle_png(0), "image_b": angle_png(degrees)}
    answer = client.post("/verify", data=fields, files=files)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_share_of_strangers_as_close_follows_the_distance(client: TestClient) -> None:
    answer = _verify(client, 60)
    assert answer["distance"] == pytest.approx(1.0, abs=0.01)
    assert answer["fmr_at_distance"] == pytest.approx(1 / 3, abs=0.01)


def test_close_images_are_probably_one_subject_and_far_ones_probably_not(client: TestClient) -> None:
    near, far = _verify(client, 10), _verify(client, 60)
    assert near["probability"] > 0.99
    assert far["probability"] < 0.05
    assert near["prior"] == far["prior"] == 0.5


def test_prior_moves_the_probability_by_bayes_rule_and_not_the_decision(client: TestClient) -> None:
    even, rare = _verify(client, 10), _verify(client, 10, prior=0.01)
    odds = even["probability"] / (1 - even["probability"]) / 99
    assert rare["probability"] == pytest.approx(odds / (1 + odds))
    assert (rare["match"], rare["threshold"]) == (even["match"], even["threshold"])


@pytest.mark.parametrize("prior", ["0", "1", "-0.5", "nan", "often"])
def test_prior_outside_0_to_1_is_refused_by_name(client: TestClient, prior: str) -> None:
    files = {"image_a": angle_png(0), "image_b": angle_png(10)}
    answer = client.post("/verify", data={"prior": prior}, files=files)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "prior"


def test_candidates_share_out_the_prior(client: TestClient) -> None:
    for number in range(4):
        client.post("/enroll", data={"identity": str(number)}, files={"image": angle_png(20 * number)})
    found = client.post("/identify", data={"prior": 0.4}, files={"image": angle_png(1)}).json()
    alone = _verify(client, 1, prior=0.1)
    first = found["candidates"][0]
    assert found["prior"] == 0.4
    assert first["probability"] == pytest.approx(alone["probability"], abs=1e-3)
    assert first["fmr_at_distance"] == 0.0


def test_rate_predicted_for_a_search_is_that_of_the_evidence(client: TestClient) -> None:
    for number in range(5):
        client.post("/enroll", data={"identity": str(number)}, files={"image": angle_png(15 * number)})
    # These trials have no measured searches, so the gallery's size multiplies the rate.
    found = client.post(
        "/identify", data={"operating_point": "fmr-1e-2"}, files={"image": angle_png(80)}
    ).json()
    assert found["predicted_fpir"] == pytest.approx(5 * found["operating_point"]["fmr"])
    assert found["predicted_fpir_upper95"] == pytest.approx(5 * found["operating_point"]["fmr_upper95"])


def test_nobody_is_found_in_an_empty_gallery(client: TestClient) -> None:
    found = client.post("/identify", files={"image": angle_png(10)}).json()
    assert (found["predicted_fpir"], found["candidates"]) == (0.0, [])
