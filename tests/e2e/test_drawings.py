"""The shipped model of drawings served: one reference of each digit, the others identified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.resources import resource_dir
from tests.support.images import encoded
from tests.support.service import serving, settings_for
from training.data.smoke import handwritten_digits

pytestmark = pytest.mark.model


def test_ten_references_identify_other_peoples_digits(tmp_path: Path) -> None:
    # scikit-learn's digits: other writers and another scanner than MNIST's.
    digits = handwritten_digits()
    rng = np.random.default_rng(0)
    settings = settings_for(tmp_path, resource_dir("models"), ("digits",))
    with serving(settings) as client:
        for digit in range(10):
            row = int(np.flatnonzero(digits.labels == digit)[0])
            image = encoded(Image.fromarray(digits.images[row, :, :, 0]))
            enrolled = client.post("/enroll", data={"identity": str(digit)}, files={"image": image})
            assert enrolled.status_code == 201, enrolled.text
        right = 0
        for row in rng.permutation(len(digits))[:100]:
            image = encoded(Image.fromarray(digits.images[row, :, :, 0]))
            found = client.post("/identify", data={"top_k": "1"}, files={"image": image}).json()
            right += found["candidates"][0]["identity"] == str(digits.labels[row])
    assert right >= 90


def test_a_drawing_on_white_and_on_black_are_the_same(tmp_path: Path) -> None:
    digit = handwritten_digits().images[3, :, :, 0]
    settings = settings_for(tmp_path, resource_dir("models"), ("digits",))
    with serving(settings) as client:
        pair = {
            "image_a": encoded(Image.fromarray(digit)),
            "image_b": encoded(Image.fromarray(255 - digit)),
        }
        answer = client.post("/verify", files=pair).json()
    assert answer["match"]
    assert answer["distance"] < 0.05


def test_the_floor_for_photographs_does_not_refuse_a_nearly_empty_drawing(tmp_path: Path) -> None:
    paper = np.full((28, 28), 255, np.uint8)
    paper[10:12, 10:12] = 0
    image = encoded(Image.fromarray(paper))
    settings = settings_for(tmp_path, resource_dir("models"), ("digits",))
    with serving(settings) as client:
        assert client.post("/enroll", data={"identity": "dot"}, files={"image": image}).status_code == 201
        client.post("/collections", json={"name": "strict", "policy": {"max_brightness": 0.9}})
        refused = client.post(
            "/enroll", data={"identity": "dot", "collection": "strict"}, files={"image": image}
        )
    assert refused.json()["code"] == "quality_too_low"
