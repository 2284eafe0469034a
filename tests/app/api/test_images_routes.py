"""The image routes end to end, with templates at known angles."""

import math

import pytest
from fastapi.testclient import TestClient

from tests.support.images import angle_png


def test_enrolled_identity_is_found_at_the_distance_of_its_angle(client: TestClient) -> None:
    enrolled = client.post("/enroll", data={"identity": "ada"}, files={"image": angle_png(0)})
    assert enrolled.status_code == 201
    found = client.post("/identify", files={"image": angle_png(30)}).json()
    assert found["candidates"][0]["identity"] == "ada"
    assert found["candidates"][0]["distance"] == pytest.approx(2 * math.sin(math.radians(15)), abs=0.01)
