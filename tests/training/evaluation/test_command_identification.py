"""``visavis evaluate identification`` with templates at known angles."""

import math
from pathlib import Path

import pytest

from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png

SUBJECTS = 10


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Ten subjects 9 degrees apart with three images each, at 0, 1 and 2 degrees from theirs."""
    folder = tmp_path / "people"
    for subject in range(SUBJECTS):
        (folder / f"s{subject}").mkdir(parents=True)
        for number in range(3):
            (folder / f"s{subject}" / f"{number}.png").write_bytes(angle_png(9 * subject + number))
    return folder


def arguments(people: Path, models: Path, *options: object) -> list[object]:
    return [
        *("evaluate", "identification", "--model", "angles", "--models-dir", models),
        *("--images", people, *options),
    ]


def test_images_near_their_reference_are_all_found_at_rank_1(people: Path, angle_models: Path) -> None:
    answer = visavis_json(*arguments(people, angle_models, "--draws", 4))
    assert answer["gallery_size"] == 5
    assert answer["searches"] == {"mated": 4 * 5 * 2, "nonmated": 4 * 5 * 3}
    # A gallery of five has no rank 10.
    assert list(answer["identification_rate"]) == ["1", "5"]
    assert answer["identification_rate"]["1"]["rate"] == 1.0
    assert 0.5 < answer["identification_rate"]["1"]["lower95"] < 1.0
    assert answer["cumulative_match"] == [1.0] * 5


def test_rates_at_operating_points_are_those_of_their_thresholds(people: Path, angle_models: Path) -> None:
    at = visavis_json(*arguments(people, angle_models))["at_operating_points"]
    # About 30 degrees: everyone has a stranger that near in most galleries, and is that near to themselves.
    assert at["fmr-1e-2"]["threshold"] == pytest.approx(0.5149, abs=1e-4)
    assert at["fmr-1e-2"]["fpir"] > 0.9
    assert at["fmr-1e-2"]["fnir"] == 0.0


def test_fnir_at_fpir_takes_a_threshold_below_the_nearest_stranger(people: Path, angle_models: Path) -> None:
    entry = visavis_json(*arguments(people, angle_models))["fnir_at_fpir"]["0.1"]
    assert entry["supported"] is True
    assert entry["fpir"] <= 0.1
    assert entry["fpir_lower95"] <= entry["fpir"] <= entry["fpir_upper95"]
    assert 2 * math.sin(math.radians(2.5)) < entry["threshold"] < 2 * math.sin(math.radians(9))
    assert entry["fnir"] == 0.0


def test_rate_that_the_images_cannot_show_is_unsupported(people: Path, angle_models: Path) -> None:
    entry = visavis_json(*arguments(people, angle_models))["fnir_at_fpir"]["0.01"]
    assert entry == {
        "supported": False,
        "reason": "30 images of subjects not enrolled cannot show a rate of 0.01",
    }


def test_threshold_of_the_models_evidence_is_tried_for_the_size_of_the_gallery(
    people: Path, angle_models: Path
) -> None:
    # The made-up evidence has no false match below 0.5, and 100 subjects show a rate of 6.1e-4.
    answer = visavis_json(*arguments(people, angle_models))["at_max_fpir"]
    assert answer["0.1"]["threshold"] > answer["0.01"]["threshold"] > 0.5
    # With 18 enrolled 0.01 needs 5.6e-4.
    for subject in range(SUBJECTS):
        (people / f"second{subject}").mkdir()
        for number in range(3):
            (people / f"second{subject}" / f"{number}.png").write_bytes(angle_png(9 * subject + number))
    answer = visavis_json(*arguments(people, angle_models, "--enrolled-share", 0.9))["at_max_fpir"]
    assert answer["0.1"]["supported"] is True
    assert answer["0.01"]["supported"] is False
    assert "with 18 enrolled it needs a false match rate below 0.00061" in answer["0.01"]["reason"]


def test_share_of_enrolled_subjects_sets_the_gallery(people: Path, angle_models: Path) -> None:
    answer = visavis_json(*arguments(people, angle_models, "--enrolled-share", 0.8, "--draws", 1))
    assert answer["gallery_size"] == 8
    assert answer["searches"] == {"mated": 16, "nonmated": 6}


def test_same_seed_gives_the_same_answer_and_another_seed_another(people: Path, angle_models: Path) -> None:
    first, again, other = (
        visavis_json(*arguments(people, angle_models, "--draws", 1, "--seed", seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["fnir_at_fpir"] != other["fnir_at_fpir"]


def test_image_that_cannot_be_used_takes_no_part_and_is_named(people: Path, angle_models: Path) -> None:
    for number in (0, 1):
        (people / "s0" / f"{number}.png").write_bytes(b"not an image")
    command = arguments(people, angle_models, "--draws", 1, "--enrolled-share", 0.99)
    answer = visavis_json(*command)
    assert (answer["images"], answer["failures_to_acquire"], answer["subjects"]) == (30, 2, 10)
    # The others have three images each; s0 has one left, so it cannot be enrolled.
    assert (answer["gallery_size"], answer["searches"]) == (9, {"mated": 18, "nonmated": 1})
    assert f"{people / 's0' / '0.png'}: image_unreadable: " in visavis(*command).stderr


def test_table_names_galleries_ranks_and_thresholds(people: Path, angle_models: Path) -> None:
    lines = visavis(*arguments(people, angle_models)).stdout.splitlines()
    assert lines[1] == "images    30 of 10 subjects"
    assert lines[2] == "failures  0 images not acquired"
    assert lines[3] == "searches  100 mated, 150 non-mated in 10 galleries of 5; seed 0"
    assert lines[4].startswith("rank 1    1.0000  [")
    assert any(line.startswith("FPIR 0.01         30 images of subjects not enrolled") for line in lines)
    assert any(line.startswith("fmr-1e-2          0.5149     ") for line in lines)


def test_everyone_enrolled_leaves_nobody_to_refuse(people: Path, angle_models: Path) -> None:
    result = visavis(*arguments(people, angle_models, "--enrolled-share", 0.99))
    assert result.exit_code == 1
    assert "someone must be enrolled and someone not" in result.stderr


@pytest.mark.parametrize("share", ["0", "1", "nan"])
def test_share_of_nobody_or_everyone_is_wrong_usage(people: Path, angle_models: Path, share: str) -> None:
    assert visavis(*arguments(people, angle_models, "--enrolled-share", share)).exit_code == 2
