"""enroll, verify, identify, embed, detect: templates at known angles, exit codes, JSON."""

import math
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import MODELS
from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png, astronaut, encoded, no_face, two_faces

BY_10_DEGREES = 2 * math.sin(math.radians(5))
BY_90_DEGREES = math.sqrt(2)


# verify


def test_verify_ends_with_0_for_a_match() -> None:
    result = visavis("verify", "at0.png", "at10.png")
    assert result.exit_code == 0
    assert result.stdout.startswith("match: distance 0.17")


def test_verify_ends_with_3_for_no_match() -> None:
    result = visavis("verify", "at0.png", "at90.png")
    assert result.exit_code == 3
    assert result.stdout.startswith("no match: distance 1.4142")


def test_verify_answers_with_the_keys_of_the_http_route() -> None:
    answer = visavis_json("verify", "at0.png", "at10.png")
    assert set(answer) == {
        *("match", "distance", "threshold", "metric", "operating_point", "evidence", "model"),
        *("model_digest", "faces", "timings_ms", "fmr_at_distance", "probability", "prior"),
        *("learnt", "revision"),
    }
    assert answer["distance"] == pytest.approx(BY_10_DEGREES, abs=0.005)
    assert answer["operating_point"]["name"] == "fmr-1e-2"
    assert set(answer["timings_ms"]) == {"decode", "detect", "encode", "search", "total"}


def test_verify_with_another_model_measures_by_its_metric() -> None:
    answer = visavis_json("verify", "at0.png", "at90.png", "--model", "other", exit_code=3)
    assert (answer["model"], answer["metric"]) == ("other", "cosine")
    assert answer["distance"] == pytest.approx(1.0)


def test_verify_at_a_rate_states_the_bound_it_holds_with() -> None:
    answer = visavis_json("verify", "at0.png", "at10.png", "--max-fmr", "0.05")
    point = answer["operating_point"]
    assert point["max_fmr"] == 0.05
    assert point["fmr"] <= 0.05 <= point["fmr_upper95"]


@pytest.mark.parametrize(("threshold", "exit_code"), [(0.17, 3), (0.18, 0)])
def test_verify_at_a_threshold_matches_from_there_on(threshold: float, exit_code: int) -> None:
    assert visavis("verify", "at0.png", "at10.png", "--threshold", threshold).exit_code == exit_code


def test_verify_refuses_a_rate_that_the_evidence_cannot_show() -> None:
    result = visavis("verify", "at0.png", "at10.png", "--max-fmr", "1e-6")
    assert result.exit_code == 1
    assert "insufficient_evidence: max_fmr=1e-06 is not supported" in result.stderr
    assert "the smallest supported is" in result.stderr


@pytest.mark.parametrize("option", ["--max-fmr", "--threshold"])
@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
def test_verify_refuses_numbers_that_are_no_rate_and_no_distance(option: str, number: str) -> None:
    result = visavis("verify", "at0.png", "at10.png", option, number)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.stderr


def test_verify_refuses_two_criteria_at_once() -> None:
    result = visavis("verify", "at0.png", "at10.png", "--max-fmr", "0.1", "--threshold", "1")
    assert result.exit_code == 1
    assert "give at most one of max_fmr, threshold" in result.stderr


def test_verify_names_the_operating_points_there_are() -> None:
    result = visavis("verify", "at0.png", "at10.png", "--operating-point", "strict")
    assert result.exit_code == 1
    assert "'strict' is unknown; this model has fmr-1e-2" in result.stderr


def test_verify_reads_one_image_from_standard_input() -> None:
    result = visavis("verify", "-", "at10.png", stdin=angle_png(10))
    assert result.exit_code == 0
    assert result.stdout.startswith("match: distance 0.0000")


def test_verify_needs_no_store(folder: Path) -> None:
    visavis("verify", "at0.png", "at10.png")
    assert not (folder / "visavis.db").exists()


def test_verify_names_the_models_there_are() -> None:
    result = visavis("verify", "at0.png", "at10.png", "--model", "angels")
    assert result.exit_code == 1
    assert "there is no bundle at" in result.stderr
    assert "holds: angles, other" in result.stderr


@pytest.mark.parametrize("arguments", [["at0.png"], ["at0.png", "at10.png", "--identity", "ada"]])
def test_verify_wants_either_a_second_image_or_an_identity(arguments: list[str]) -> None:
    result = visavis("verify", *arguments)
    assert result.exit_code == 2
    assert "give a second image or --identity NAME" in result.stderr


@pytest.mark.model
def test_verify_knows_a_face_again(folder: Path) -> None:
    (folder / "a.png").write_bytes(encoded(astronaut()))
    (folder / "b.jpg").write_bytes(encoded(astronaut().resize((300, 300)), "JPEG", quality=80))
    result = visavis("verify", "a.png", "b.jpg", "--model", "faces", "--models-dir", MODELS)
    assert result.exit_code == 0, result.output


# verify --identity


def test_verify_against_an_identity_ends_with_0_for_a_match() -> None:
    visavis("enroll", "ada", "at0.png")
    result = visavis("verify", "at10.png", "--identity", "ada")
    assert result.exit_code == 0
    assert result.stdout.startswith("match: distance 0.17")


def test_verify_against_an_identity_ends_with_3_for_no_match() -> None:
    visavis("enroll", "ada", "at0.png")
    result = visavis("verify", "at90.png", "--identity", "ada")
    assert result.exit_code == 3
    assert result.stdout.startswith("no match: distance 1.4142")


def test_verify_against_an_identity_counts_only_the_image_given_as_a_face() -> None:
    visavis("enroll", "ada", "at0.png")
    answer = visavis_json("verify", "at0.png", "--identity", "ada")
    assert (answer["match"], answer["model"], len(answer["faces"])) == (True, "angles", 1)


def test_verify_against_an_identity_measures_by_the_model_of_its_collection() -> None:
    visavis("collections", "create", "staff", "--model", "other")
    visavis("enroll", "ada", "at0.png", "--collection", "staff")
    answer = visavis_json("verify", "at0.png", "--identity", "ada", "--collection", "staff")
    assert (answer["model"], answer["metric"]) == ("other", "cosine")


def test_verify_against_an_identity_refuses_another_model_than_its_collections() -> None:
    visavis("enroll", "ada", "at0.png")
    result = visavis("verify", "at0.png", "--identity", "ada", "--model", "other")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: model_mismatch: ")


def test_verify_against_an_identity_looks_in_the_collection_named() -> None:
    visavis("enroll", "ada", "at0.png")
    visavis("collections", "create", "staff")
    result = visavis("verify", "at0.png", "--identity", "ada", "--collection", "staff")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: identity_not_found: there is no identity 'ada'")


def test_verify_against_an_identity_finds_it_by_either_spelling() -> None:
    visavis("enroll", "Zoe\u0301", "at0.png")
    assert visavis("verify", "at0.png", "--identity", "Zo\u00e9").exit_code == 0


@pytest.mark.parametrize(("threshold", "exit_code"), [(0.17, 3), (0.18, 0)])
def test_verify_against_an_identity_at_a_threshold(threshold: float, exit_code: int) -> None:
    visavis("enroll", "ada", "at0.png")
    result = visavis("verify", "at10.png", "--identity", "ada", "--threshold", threshold)
    assert result.exit_code == exit_code


def test_verify_against_an_identity_reads_standard_input() -> None:
    visavis("enroll", "ada", "at0.png")
    assert visavis("verify", "-", "--identity", "ada", stdin=angle_png(0)).exit_code == 0


# enroll and identify


def test_enrolled_identity_is_identified_first() -> None:
    assert visavis("enroll", "ada", "at0.png").stdout == "enrolled ada in default, revision 1\n"
    assert visavis("enroll", "bob", "at90.png").stdout == "enrolled bob in default, revision 2\n"
    result = visavis("identify", "at10.png")
    assert result.exit_code == 0
    first, second, last = result.stdout.splitlines()
    assert first.startswith("1. ada  distance 0.17")
    assert first.endswith("  match")
    assert second.startswith("2. bob  distance 1.2")
    assert second.endswith("no match")
    assert last.startswith("2 enrolled, threshold ")


def test_identify_ends_with_3_when_nobody_matches() -> None:
    visavis("enroll", "ada", "at0.png")
    assert visavis("identify", "at90.png").exit_code == 3


def test_identify_ends_with_3_when_nobody_is_enrolled() -> None:
    visavis("db", "upgrade")
    result = visavis("identify", "at0.png")
    assert result.exit_code == 3
    assert result.stdout.startswith("0 enrolled, threshold ")


def test_identify_answers_with_the_keys_of_the_http_route() -> None:
    visavis("enroll", "ada", "at0.png", "--metadata", '{"team": "analysis"}')
    answer = visavis_json("identify", "at10.png", "--top-k", "3", "--max-fpir", "0.05")
    assert {"match", "candidates", "gallery_size", "revision", "threshold", "evidence"} <= set(answer)
    (candidate,) = answer["candidates"]
    assert candidate["distance"] == pytest.approx(BY_10_DEGREES, abs=0.005)
    assert (candidate["rank"], candidate["identity"], candidate["match"]) == (1, "ada", True)
    assert candidate["metadata"] == {"team": "analysis"}
    assert answer["operating_point"]["max_fpir"] == 0.05


def test_enroll_answers_with_the_keys_of_the_http_route() -> None:
    answer = visavis_json("enroll", "ada", "at0.png")
    assert set(answer) == {
        *("identity", "collection", "reference_id", "replaced", "model", "model_digest", "face"),
        *("quality", "revision", "timings_ms", "added", "references"),
    }
    assert (answer["identity"], answer["revision"], answer["replaced"]) == ("ada", 1, False)


def test_enrolling_twice_is_refused_unless_asked_to_replace() -> None:
    visavis("enroll", "ada", "at0.png")
    again = visavis("enroll", "ada", "at90.png")
    assert again.exit_code == 1
    assert again.stderr.startswith("visavis: identity_exists: identity 'ada' is in collection 'default'")
    assert "--replace" in again.stderr
    assert visavis("enroll", "ada", "at90.png", "--replace").stdout.startswith("replaced ada")
    assert visavis("identify", "at90.png").stdout.startswith("1. ada  distance 0.0000")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": NaN}', "not JSON compliant"),
        ('{"\\ud800": 1}', "not valid Unicode"),
        ('{"a": ' * 33 + "1" + "}" * 33, "at most 32 objects and lists may be nested"),
        ('{"a": "' + "x" * 2**14 + '"}', "at most 16384 bytes of JSON are kept"),
    ],
)
def test_metadata_that_the_service_would_refuse_is_refused(text: str, problem: str) -> None:
    result = visavis("enroll", "ada", "at0.png", "--metadata", text)
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: invalid_request: metadata: ")
    assert problem in result.stderr


@pytest.mark.parametrize("text", ["[1]", "{", "null", '{"a":' * 10**5])
def test_metadata_other_than_a_json_object_is_refused(text: str) -> None:
    result = visavis("enroll", "ada", "at0.png", "--metadata", text)
    assert result.exit_code == 1
    assert "metadata: a JSON object is wanted" in result.stderr


def test_unknown_collection_is_refused() -> None:
    visavis("db", "upgrade")
    result = visavis("identify", "at0.png", "--collection", "absent")
    assert result.exit_code == 1
    assert result.stderr.startswith("visavis: collection_not_found: there is no collection 'absent'")


# embed


def test_embed_writes_paths_embeddings_and_ok(folder: Path) -> None:
    (folder / "photos" / "more").mkdir(parents=True)
    (folder / "photos" / "a.png").write_bytes(angle_png(0))
    (folder / "photos" / "more" / "b.PNG").write_bytes(angle_png(90))
    (folder / "photos" / "c.jpg").write_bytes(b"no image")
    (folder / "photos" / "notes.txt").write_text("not looked at")
    result = visavis("embed", "--out", "out.npz", "photos", "at45.png")
    assert result.exit_code == 0
    assert result.stdout == "out.npz: 3 of 4 images embedded\n"
    assert "photos/c.jpg: image_unreadable: the bytes are no image" in result.stderr
    with np.load("out.npz") as arrays:
        assert arrays["paths"].tolist() == ["photos/a.png", "photos/c.jpg", "photos/more/b.PNG", "at45.png"]
        assert arrays["ok"].tolist() == [True, False, True, True]
        assert arrays["embeddings"].dtype == np.float32
        assert arrays["embeddings"] == pytest.approx(
            np.array([[1, 0], [0, 0], [0, 1], [0.5**0.5, 0.5**0.5]]), abs=1e-6
        )
        assert str(arrays["model"]) == "angles"
        assert len(str(arrays["model_digest"])) == 64


def test_embed_writes_the_file_of_that_very_name(folder: Path) -> None:
    assert visavis("embed", "--out", "vectors", "at0.png").exit_code == 0
    assert (folder / "vectors").is_file()
    assert not (folder / "vectors.npz").exists()


def test_embed_refuses_a_folder_that_is_not_there_before_it_embeds() -> None:
    result = visavis("embed", "--out", "absent/out.npz", "at0.png")
    assert result.exit_code == 1
    assert result.stderr == "visavis: invalid_request: out: there is no folder absent\n"


def test_embed_in_json_names_what_failed_and_why(folder: Path) -> None:
    (folder / "bad.jpg").write_bytes(b"")
    answer = visavis_json("embed", "--out", "out.npz", "at0.png", "bad.jpg")
    assert answer == {
        "out": "out.npz",
        "images": 2,
        "failed": {"bad.jpg": "image_unreadable: the image is empty (0 bytes)"},
        "model": "angles",
    }


def test_embed_refuses_a_folder_without_images(folder: Path) -> None:
    (folder / "empty").mkdir()
    result = visavis("embed", "--out", "out.npz", "empty")
    assert result.exit_code == 1
    assert "paths: no image files found" in result.stderr


def test_embed_counts_in_tenths_when_it_is_not_on_a_terminal() -> None:
    result = visavis("embed", "--out", "out.npz", "at0.png", "at10.png")
    assert result.stderr.splitlines() == ["embedding: 1 of 2", "embedding: 2 of 2"]


# detect


def test_detect_refuses_a_model_of_whole_images() -> None:
    result = visavis("detect", "at0.png")
    assert result.exit_code == 1
    assert "this model takes whole images and detects no faces" in result.stderr


@pytest.mark.model
def test_detect_prints_a_line_for_each_face(folder: Path) -> None:
    (folder / "two.png").write_bytes(encoded(two_faces()))
    result = visavis("detect", "two.png", "--model", "faces", "--models-dir", MODELS)
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("face at x ") for line in lines)


@pytest.mark.model
def test_detect_says_no_face_of_a_cup_of_coffee(folder: Path) -> None:
    (folder / "coffee.png").write_bytes(encoded(no_face()))
    result = visavis("detect", "coffee.png", "--model", "faces", "--models-dir", MODELS)
    assert (result.exit_code, result.stdout) == (0, "no face\n")


@pytest.mark.model
def test_detect_in_json_has_box_landmarks_score_and_quality(folder: Path) -> None:
    (folder / "face.png").write_bytes(encoded(astronaut()))
    answer = visavis_json("detect", "face.png", "--model", "faces", "--models-dir", MODELS)
    assert (answer["width"], answer["height"], answer["model"]) == (512, 512, "faces")
    (face,) = answer["faces"]
    assert len(face["landmarks"]) == 5
    assert 0.7 <= face["score"] <= 1
    assert face["quality"]["face_size"] == pytest.approx(
        min(face["box"]["width"], face["box"]["height"]), abs=0.1
    )
