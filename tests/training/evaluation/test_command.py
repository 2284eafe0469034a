"""``visavis evaluate verification`` on folders in LFW's layout, with templates at known angles."""

import math
from itertools import combinations
from pathlib import Path

import pytest
from click.testing import Result

from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png

SUBJECTS = {"Ada": (0, 10), "Bob": (25, 33), "Cy": (50, 60), "Dan": (70, 10)}
"""Name: degrees of image 1 and image 2. Dan's two photos look like two people."""

PAIRS = """2\t2
Ada\t1\t2
Bob\t1\t2
Ada\t2\tBob\t1
Ada\t1\tCy\t1
Cy\t1\t2
Dan\t1\t2
Bob\t1\tDan\t1
Ada\t1\tDan\t1
"""
"""Mated trials 10 and 8, then 10 and 60 degrees apart; non-mated ones 15 and 50, then 45 and 70."""

DEFAULT_THRESHOLD = 0.5149
"""Of the ``angles`` model: its trials at 30 degrees or less match."""


@pytest.fixture
def lfw(tmp_path: Path) -> Path:
    """A folder with images ``Ada/Ada_0001.png`` ... and ``pairs.txt``."""
    for name, angles in SUBJECTS.items():
        (tmp_path / name).mkdir()
        for number, degrees in enumerate(angles, 1):
            (tmp_path / name / f"{name}_{number:04d}.png").write_bytes(angle_png(degrees))
    (tmp_path / "pairs.txt").write_text(PAIRS)
    return tmp_path


def arguments(lfw: Path, models: Path, model: str = "angles") -> list[object]:
    return [
        *("evaluate", "verification", "--model", model, "--models-dir", models),
        *("--images", lfw, "--pairs", lfw / "pairs.txt"),
    ]


def evaluated(lfw: Path, models: Path) -> Result:
    return visavis(*arguments(lfw, models))


def test_rates_at_the_default_threshold_are_those_of_the_angles(lfw: Path, angle_models: Path) -> None:
    at = visavis_json(*arguments(lfw, angle_models))["at_default_threshold"]
    assert (at["name"], at["max_fmr"]) == ("fmr-1e-2", 0.01)
    assert at["threshold"] == pytest.approx(DEFAULT_THRESHOLD, abs=1e-4)
    assert (at["fmr"], at["fnmr"]) == (0.25, 0.25)


def test_report_has_the_keys_that_others_rely_on(lfw: Path, angle_models: Path) -> None:
    answer = visavis_json(*arguments(lfw, angle_models))
    assert answer["accuracy"]["folds"] == 2
    # Fold 0 at fold 1's threshold, 27 degrees, has that of 15 wrong; fold 1 at 12 degrees has that of 60.
    assert answer["accuracy"]["mean"] == 0.75
    assert answer["accuracy"]["std"] == 0.0
    assert answer["eer"] == 0.25
    assert answer["trials"] == {"mated": 4, "nonmated": 4}
    assert answer["failed_trials"] == {"mated": 0, "nonmated": 0}
    assert answer["failures_to_acquire"] == 0
    assert (answer["images"], answer["subjects"]) == (8, 4)
    assert (answer["model"], answer["metric"], len(answer["model_digest"])) == ("angles", "euclidean", 64)
    assert {entry["supported"] for entry in answer["fnmr_at_fmr"].values()} == {False}
    assert answer["fnmr_at_fmr"]["0.01"]["reason"] == (
        "4 non-mated trials were compared; to show a rate of 0.01 takes at least 100"
    )


def test_fnmr_at_fmr_is_reported_where_the_trials_support_it(tmp_path: Path, angle_models: Path) -> None:
    # 18 subjects 5 degrees apart make 153 non-mated trials; 0.01 of them is one, and 17 are 5 degrees apart.
    for index in range(18):
        (tmp_path / f"s{index}").mkdir()
        for number, shift in ((1, 0), (2, 2)):
            file = tmp_path / f"s{index}" / f"s{index}_{number:04d}.png"
            file.write_bytes(angle_png(5 * index + shift))
    lines = [f"s{index} 1 2" for index in range(18)]
    lines += [f"s{a} 1 s{b} 1" for a, b in combinations(range(18), 2)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    answer = visavis_json(*arguments(tmp_path, angle_models))
    at = answer["fnmr_at_fmr"]["0.01"]
    assert at["supported"] is True
    assert at["fmr"] <= 0.01
    assert at["fnmr"] == 0.0
    assert 0.0 < at["fnmr_upper95"] < 0.25
    assert 2 * math.sin(math.radians(1)) < at["threshold"] < 2 * math.sin(math.radians(3))
    assert answer["accuracy"]["folds"] == 10
    assert answer["fnmr_at_fmr"]["0.001"]["supported"] is False


def test_each_image_is_embedded_once(lfw: Path, angle_models: Path) -> None:
    assert evaluated(lfw, angle_models).stderr.splitlines()[-1] == "embedding: 8 of 8"


def test_distances_are_of_the_models_metric(lfw: Path, angle_models: Path) -> None:
    answer = visavis_json(*arguments(lfw, angle_models, "other"))
    assert (answer["model"], answer["metric"]) == ("other", "cosine")
    # The same threshold, 0.5149, as a cosine distance is 61 degrees: only the trial of 70 is beyond.
    at = answer["at_default_threshold"]
    assert (at["fmr"], at["fnmr"]) == (0.75, 0.0)


def test_table_names_model_trials_rates_and_what_is_unsupported(lfw: Path, angle_models: Path) -> None:
    lines = evaluated(lfw, angle_models).stdout.splitlines()
    assert lines[0].startswith("model     angles 1 (")
    assert lines[1] == "trials    4 mated, 4 non-mated; 8 images of 4 subjects"
    assert lines[2] == "failures  0 images not acquired; 0 mated and 0 non-mated trials not compared"
    assert lines[3] == "accuracy  0.7500 +- 0.0000 over 2 folds"
    assert lines[4].startswith("EER       0.2500  [")
    assert any(line.startswith("FMR 0.001         4 non-mated trials were compared;") for line in lines)
    assert any(line.startswith("fmr-1e-2          0.5149     2.50e-01  [") for line in lines)


def test_image_that_cannot_be_used_is_a_failure_to_acquire(lfw: Path, angle_models: Path) -> None:
    (lfw / "Ada" / "Ada_0002.png").write_bytes(b"not an image")
    answer = visavis_json(*arguments(lfw, angle_models))
    assert answer["failures_to_acquire"] == 1
    assert answer["trials"] == {"mated": 4, "nonmated": 4}
    assert answer["failed_trials"] == {"mated": 1, "nonmated": 1}
    # Left are 8, 10 and 60 degrees mated and 45, 50 and 70 non-mated.
    assert (answer["at_default_threshold"]["fmr"], answer["at_default_threshold"]["fnmr"]) == (
        0.0,
        pytest.approx(1 / 3),
    )
    assert f"{lfw / 'Ada' / 'Ada_0002.png'}: image_unreadable: " in evaluated(lfw, angle_models).stderr


def test_missing_image_ends_with_its_line_and_exit_code_1(lfw: Path, angle_models: Path) -> None:
    (lfw / "Cy" / "Cy_0002.png").unlink()
    result = evaluated(lfw, angle_models)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "visavis: invalid_request: pairs: pairs.txt, line 6: " in result.stderr
    assert f"{lfw / 'Cy'} holds no image Cy_0002 (" in result.stderr


def test_malformed_line_ends_with_its_number_and_exit_code_1(lfw: Path, angle_models: Path) -> None:
    (lfw / "pairs.txt").write_text("Ada 1 2\nAda 1 Bob\n")
    result = evaluated(lfw, angle_models)
    assert result.exit_code == 1
    assert "pairs.txt, line 2: 'Bob' is no number of an image" in result.stderr


def test_unknown_model_ends_with_those_there_are(lfw: Path, angle_models: Path) -> None:
    result = visavis(*arguments(lfw, angle_models, "angels"))
    assert result.exit_code == 1
    assert "holds: angles, other" in result.stderr


def test_missing_folder_is_wrong_usage(lfw: Path) -> None:
    result = visavis("evaluate", "verification", "--images", lfw / "absent", "--pairs", lfw / "pairs.txt")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_help_says_what_becomes_of_failures() -> None:
    text = " ".join(visavis("evaluate", "verification", "--help").stdout.split())
    assert "is a failure to acquire: its trials are non-matches in the accuracy" in text
    assert "left out of FMR, FNMR and EER" in text
