"""``visavis evaluate oneshot`` and ``nway``, with templates at known angles."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png, encoded


def official(runs: Path, models: Path, model: str = "angles") -> list[object]:
    return ["evaluate", "oneshot", "--model", model, "--models-dir", models, "--runs", runs]


def nway(images: Path, models: Path, *options: object) -> list[object]:
    return ["evaluate", "nway", "--model", "angles", "--models-dir", models, "--images", images, *options]


@pytest.fixture
def alphabets(tmp_path: Path) -> Path:
    """Two alphabets of four characters, 20 degrees apart in each, each drawn by three drawers."""
    folder = tmp_path / "images"
    for alphabet, start in (("Greek", 0), ("Latin", 10)):
        for character in range(4):
            (folder / alphabet / f"character{character + 1:02d}").mkdir(parents=True)
            for drawer in range(3):
                file = folder / alphabet / f"character{character + 1:02d}" / f"0001_{drawer + 1:02d}.png"
                file.write_bytes(angle_png(start + 20 * character + 2 * drawer))
    return folder


# Official runs


def test_items_near_their_class_are_all_right(runs: Path, angle_models: Path) -> None:
    answer = visavis_json(*official(runs, angle_models))
    assert (answer["error_rate"], answer["trials"], answer["ways"]) == (0.0, 6, 3)
    assert answer["runs"] == {"run01": 0.0, "run02": 0.0}
    assert answer["chance_error_rate"] == pytest.approx(2 / 3)
    assert (answer["images"], answer["failures_to_acquire"], answer["metric"]) == (12, 0, "euclidean")


def test_item_nearer_to_another_class_is_an_error_of_its_run(runs: Path, angle_models: Path) -> None:
    # Right is class 1, at 0 degrees; class 2 is at 40.
    (runs / "run02" / "test" / "item01.png").write_bytes(angle_png(22))
    answer = visavis_json(*official(runs, angle_models))
    assert answer["runs"] == {"run01": 0.0, "run02": pytest.approx(1 / 3)}
    assert answer["error_rate"] == pytest.approx(1 / 6)
    assert answer["error_rate_lower95"] < 1 / 6 < answer["error_rate_upper95"]
    assert answer["error_rate_by_trial_lower95"] < 1 / 6 < answer["error_rate_by_trial_upper95"]


def test_distances_are_of_the_models_metric(runs: Path, angle_models: Path) -> None:
    assert visavis_json(*official(runs, angle_models, "other"))["metric"] == "cosine"


def test_pixels_are_compared_on_the_same_trials(runs: Path, angle_models: Path) -> None:
    # A dim class at 40 degrees: its item (180, 180) has the same direction but for 5 degrees; as pixels it is
    # 214 from it and 153 from the class (44, 251).
    dim = Image.fromarray(np.array([[31, 26]], np.uint8))
    (runs / "run02" / "training" / "class02.png").write_bytes(encoded(dim))
    answer = visavis_json(*official(runs, angle_models))
    assert (answer["error_rate"], answer["pixel_error_rate"]) == (0.0, pytest.approx(1 / 6))


def test_item_that_cannot_be_used_is_an_error_and_named(runs: Path, angle_models: Path) -> None:
    (runs / "run01" / "test" / "item02.png").write_bytes(b"not an image")
    answer = visavis_json(*official(runs, angle_models))
    assert (answer["failures_to_acquire"], answer["failed_trials"], answer["errors"]) == (1, 1, 1)
    assert "run01/test/item02.png: image_unreadable: " in visavis(*official(runs, angle_models)).stderr


def test_table_names_rates_baselines_and_runs(runs: Path, angle_models: Path) -> None:
    lines = visavis(*official(runs, angle_models)).stdout.splitlines()
    assert lines[0].startswith("model     angles 1 (")
    assert lines[1] == "runs      2 of 3 ways; 6 trials, 12 images"
    assert lines[2] == "failures  0 images not acquired; 0 trials are errors by one of them"
    assert lines[3].startswith("error     0.0000  [0.0000, ")
    assert lines[3].endswith("by trial; 0 errors, 0 of them ties")
    assert lines[4].startswith("pixels    0.0000  [0.0000, ")
    assert lines[5] == "chance    0.6667"
    assert lines[7:9] == ["run01     0.0000", "run02     0.0000"]


def test_folder_without_runs_ends_with_what_is_missing(tmp_path: Path, angle_models: Path) -> None:
    result = visavis(*official(tmp_path, angle_models))
    assert result.exit_code == 1
    assert f"visavis: invalid_request: runs: {tmp_path} holds no <run>/class_labels.txt" in result.stderr


def test_omniglots_archive_is_scored(data_dir: Path, angle_models: Path) -> None:
    archive = data_dir / "omniglot" / "all_runs.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    answer = visavis_json(*official(archive, angle_models))
    assert (answer["trials"], answer["ways"], len(answer["runs"])) == (400, 20, 20)
    assert (answer["pixel_error_rate"], answer["chance_error_rate"]) == (0.81, 0.95)
    assert answer["error_rate"] == pytest.approx(sum(answer["runs"].values()) / 20)


# N-way trials


def test_trials_within_and_across_alphabets_are_reported_for_each_number_of_ways(
    alphabets: Path, angle_models: Path
) -> None:
    answer = visavis_json(*nway(alphabets, angle_models, "--ways", "2..4", "--trials", 60))
    assert (answer["images"], answer["subjects"], answer["groups"]) == (24, 8, 2)
    assert answer["drawers_known"] is True
    for kind in ("within", "across"):
        assert [entry["ways"] for entry in answer[kind]] == [2, 3, 4]
        assert {entry["trials"] for entry in answer[kind]} == {60}
    # Within an alphabet characters are 20 degrees apart and drawers 4 at most.
    assert [entry["error_rate"] for entry in answer["within"]] == [0.0, 0.0, 0.0]


def test_subjects_without_groups_are_drawn_from_all(alphabets: Path, angle_models: Path) -> None:
    answer = visavis_json(*nway(alphabets / "Greek", angle_models, "--ways", 4, "--trials", 20))
    assert "within" not in answer
    assert (answer["groups"], answer["drawers_known"]) == (None, False)
    assert [entry["error_rate"] for entry in answer["across"]] == [0.0]


def test_same_seed_gives_the_same_answer_and_another_seed_another(
    alphabets: Path, angle_models: Path
) -> None:
    # Of the images of an alphabet some are as near to the next character as to their own.
    for character in range(1, 5):
        file = alphabets / "Greek" / f"character{character:02d}" / "0001_03.png"
        file.write_bytes(angle_png(20 * (character - 1) + 11))
    first, again, other = (
        visavis_json(*nway(alphabets, angle_models, "--ways", 3, "--trials", 50, "--seed", seed))["within"]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0]["errors"] > 0
    assert first != other


def test_image_that_cannot_be_used_is_counted_and_named(alphabets: Path, angle_models: Path) -> None:
    broken = alphabets / "Greek" / "character01" / "0001_01.png"
    broken.write_bytes(b"not an image")
    command = nway(alphabets, angle_models, "--ways", 4, "--trials", 100)
    answer = visavis_json(*command)
    assert answer["failures_to_acquire"] == 1
    assert answer["within"][0]["failed_trials"] == answer["within"][0]["errors"] > 0
    assert f"{broken}: image_unreadable: " in visavis(*command).stderr


def test_table_has_a_row_for_each_number_of_ways(alphabets: Path, angle_models: Path) -> None:
    lines = visavis(*nway(alphabets, angle_models, "--ways", "2..3", "--trials", 10)).stdout.splitlines()
    assert lines[1].endswith(" used of 24; 8 subjects in 2 groups; drawers by the files' names")
    assert lines[2] == "failures  0 images not acquired"
    assert lines[4] == "within groups: 10 trials, seed 0; 0 are errors by a failure to acquire"
    assert lines[6].startswith("2     0.0000  [0.0000, ")
    assert lines[7].endswith("  0.6667")
    assert lines[9].startswith("across groups: 10 trials, seed 0; ")


@pytest.mark.parametrize(
    ("ways", "problem"),
    [
        ("x", "is neither N nor FIRST..LAST"),
        ("1..5", "no numbers from 2 up"),
        ("5..2", "no numbers from 2 up"),
    ],
)
def test_ways_that_make_no_trials_are_wrong_usage(
    alphabets: Path, angle_models: Path, ways: str, problem: str
) -> None:
    result = visavis(*nway(alphabets, angle_models, "--ways", ways))
    assert result.exit_code == 2
    assert problem in result.stderr


def test_more_ways_than_characters_end_with_what_to_do(alphabets: Path, angle_models: Path) -> None:
    result = visavis(*nway(alphabets, angle_models))
    assert result.exit_code == 1
    assert "trials of 20 ways need 20 subjects of one group" in result.stderr
    assert "ask for fewer ways" in result.stderr
