"""The manifest: what it refuses, and what its digest covers."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.encoding.manifest import Manifest

SHA = "0123456789abcdef" * 4
ENTRY = {"sha256": SHA, "bytes": 10}

FACES: dict[str, Any] = {
    "schema_version": 1,
    "model_id": "faces",
    "version": "1.0.0",
    "description": "faces",
    "input": {"height": 112, "width": 112, "channels": 3},
    "preprocess": {"mode": "face-5pt"},
    "detector": {
        "file": "detector.onnx",
        "kind": "yunet",
        "canvases": [640, 320],
        "max_upscale": 2.0,
        "score_threshold": 0.7,
        "nms_iou": 0.3,
    },
    "dimensions": 128,
    "metric": "euclidean",
    "files": {
        name: {"sha256": SHA, "bytes": 10}
        for name in ("encoder.onnx", "detector.onnx", "golden.npz", "evidence.npz", "MODEL_CARD.md")
    },
    "operating_points": [
        {"name": "strict", "threshold": 0.9, "max_fmr": 1e-4},
        {"name": "lax", "threshold": 1.1, "max_fmr": 1e-2},
    ],
    "default_operating_point": "strict",
    "evidence": {
        "file": "evidence.npz",
        "source": "made up",
        "subjects": 10,
        "images": 20,
        "failures_to_acquire": 0,
        "mated": 10,
        "nonmated": 180,
    },
    "recipe": {},
    "datasets": [],
    "weights": [],
    "parity": {},
}

LOOK = {"canvas": 320, "face": 160, "turn": 10.0, "looks": 4}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the manifest with one value replaced, or removed when it is Ellipsis."""
    manifest = copy.deepcopy(FACES)
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    if to is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return manifest


@pytest.mark.parametrize("look", [None, LOOK])
def test_manifest_survives_being_written_and_read(look: dict[str, float] | None) -> None:
    manifest = Manifest.model_validate(changed("detector", "second_look", to=look))
    assert Manifest.model_validate_json(json.dumps(manifest.model_dump(mode="json"))) == manifest


def test_operating_points_are_found_by_name() -> None:
    manifest = Manifest.model_validate(FACES)
    lax = manifest.operating_point("lax")
    assert lax is not None
    assert lax.threshold == 1.1
    assert manifest.default_point.name == "strict"
    assert manifest.operating_point("other") is None


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        pytest.param(changed("extra", to=1), "Extra inputs", id="unknown key"),
        pytest.param(changed("schema_version", to=2), "schema_version", id="another schema"),
        pytest.param(changed("model_id", to="Faces"), "model_id", id="capital letter"),
        pytest.param(changed("model_id", to="../faces"), "model_id", id="path as model_id"),
        pytest.param(changed("version", to=...), "version", id="key missing"),
        pytest.param(changed("metric", to="manhattan"), "metric", id="metric"),
        pytest.param(changed("dimensions", to=0), "dimensions", id="no dimensions"),
        pytest.param(changed("input", "channels", to=4), "channels", id="four channels"),
        pytest.param(changed("input", "channels", to=1), "3 channels", id="grey faces"),
        pytest.param(changed("preprocess", to={"mode": "fit"}), "detector goes with", id="detector unused"),
        pytest.param(changed("detector", to=None), "detector goes with", id="no detector"),
        pytest.param(changed("detector", "canvases", to=[]), "canvases", id="no canvas"),
        pytest.param(changed("detector", "max_upscale", to=0.5), "max_upscale", id="upscale below 1"),
        pytest.param(changed("detector", "second_look", to={**LOOK, "canvas": 300}), "canvas", id="canvas"),
        pytest.param(changed("detector", "second_look", to={**LOOK, "face": 321}), "does not fit", id="face"),
        pytest.param(changed("detector", "second_look", to={**LOOK, "looks": 0}), "looks", id="no looks"),
        pytest.param(changed("detector", "second_look", to={**LOOK, "turn": 0}), "turn", id="no turn"),
        pytest.param(
            changed("default_operating_point", to="none"),
            r"'none' is not among \['strict', 'lax'\]",
            id="default",
        ),
        pytest.param(changed("operating_points", to=[]), "operating_points", id="no points"),
        pytest.param(changed("operating_points", 1, "name", to="strict"), "occurs twice", id="name twice"),
        pytest.param(changed("operating_points", 0, "max_fmr", to=0.0), "max_fmr", id="rate 0"),
        pytest.param(changed("operating_points", 0, "threshold", to=math.nan), "finite", id="no number"),
        pytest.param(changed("files", "encoder.onnx", to=...), "encoder.onnx not listed", id="no encoder"),
        pytest.param(
            changed("files", "detector.onnx", to=...), "detector.onnx not listed", id="detector file"
        ),
        pytest.param(changed("files", "golden.npz", to=...), "golden.npz not listed", id="no golden"),
        pytest.param(changed("files", "evidence.npz", to=...), "evidence.npz not listed", id="no evidence"),
        pytest.param(changed("files", "golden.npz", "sha256", to="ABC"), "sha256", id="digest malformed"),
        pytest.param(changed("files", "a/b", to=ENTRY), "plain file name", id="sub-folder"),
        pytest.param(changed("files", "..\\b", to=ENTRY), "plain file name", id="backslash"),
        pytest.param(changed("files", "..", to=ENTRY), "plain file name", id="dots"),
        pytest.param(changed("files", "manifest.json", to=ENTRY), "plain file name", id="itself"),
        pytest.param(changed("evidence", "subjects", to=0), "subjects", id="no subjects"),
    ],
)
def test_manifest_that_contradicts_itself_is_refused(manifest: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Manifest.model_validate(manifest)


def whole_image(manifest: dict[str, Any]) -> None:
    manifest["preprocess"] = {"mode": "pad"}
    manifest["detector"] = None


def white_to_black(manifest: dict[str, Any]) -> None:
    manifest["preprocess"]["background"] = 0


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(changed("files", "encoder.onnx", "sha256", to=SHA[::-1]), id="encoder"),
        pytest.param(changed("files", "detector.onnx", "sha256", to=SHA[::-1]), id="detector"),
        pytest.param(changed("detector", "canvases", to=[640]), id="canvases"),
        pytest.param(changed("detector", "max_upscale", to=1.0), id="upscale"),
        pytest.param(changed("detector", "score_threshold", to=0.6), id="score"),
        pytest.param(changed("detector", "nms_iou", to=0.4), id="suppression"),
        pytest.param(changed("detector", "second_look", to=LOOK), id="second look"),
        pytest.param(changed("input", "height", to=128), id="input"),
        pytest.param(changed("dimensions", to=64), id="dimensions"),
        pytest.param(changed("metric", to="cosine"), id="metric"),
    ],
)
def test_digest_changes_with_whatever_decides_an_embedding(manifest: dict[str, Any]) -> None:
    assert Manifest.model_validate(manifest).digest != Manifest.model_validate(FACES).digest


def test_digest_changes_with_every_number_of_the_second_look() -> None:
    changes: tuple[dict[str, float], ...] = ({}, {"canvas": 384}, {"face": 150}, {"turn": 5.0}, {"looks": 3})
    looks = [changed("detector", "second_look", to={**LOOK, **change}) for change in changes]
    assert len({Manifest.model_validate(look).digest for look in looks}) == len(changes)


def test_digest_of_a_manifest_older_than_the_second_look_is_what_it_was() -> None:
    # Computed by the release before; another digest would make every stored template incomparable.
    before = "709401ff2b434aab48d37bf252c0d9fd178e46d36b5dd7f5a4c916d1283fd62b"
    assert Manifest.model_validate(FACES).digest == before
    assert Manifest.model_validate(changed("detector", "second_look", to=None)).digest == before


def test_digest_changes_with_how_a_whole_image_is_prepared() -> None:
    manifest = copy.deepcopy(FACES)
    digests = set()
    changes: tuple[Callable[[dict[str, Any]], None], ...] = (whole_image, white_to_black)
    for change in changes:
        change(manifest)
        digests.add(Manifest.model_validate(manifest).digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    "manifest",
    [
        pytest.param(changed("operating_points", 0, "threshold", to=0.5), id="threshold"),
        pytest.param(changed("default_operating_point", to="lax"), id="default point"),
        pytest.param(changed("model_id", to="people"), id="name"),
        pytest.param(changed("version", to="2"), id="version"),
        pytest.param(changed("description", to="other"), id="description"),
        pytest.param(changed("evidence", "subjects", to=11), id="evidence"),
        pytest.param(changed("files", "golden.npz", "sha256", to=SHA[::-1]), id="golden"),
        pytest.param(changed("files", "MODEL_CARD.md", to=...), id="card"),
        pytest.param(changed("recipe", to={"seed": 1}), id="recipe"),
        pytest.param(changed("results", to={"eer": 0.1}), id="results"),
    ],
)
def test_digest_does_not_change_with_thresholds_and_texts(manifest: dict[str, Any]) -> None:
    assert Manifest.model_validate(manifest).digest == Manifest.model_validate(FACES).digest


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    backwards = {key: FACES[key] for key in reversed(FACES)}
    assert Manifest.model_validate(backwards).digest == Manifest.model_validate(FACES).digest
