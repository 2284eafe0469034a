"""Defaults chosen by a look at a folder."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.folders import written
from training.config import FolderData, load_recipe
from training.data.errors import DataError, MissingDataError
from training.data.labelled import LabelledImages
from training.data.smoke import drawn_characters, drawn_faces
from training.folder_defaults import Survey, folder_defaults, input_size, part_sizes, survey


def looked(**changes: object) -> Survey:
    """Return a folder of 200 photos of 40 subjects, but for some changes."""
    values: dict[str, object] = {
        "subjects": 40,
        "images": 200,
        "width": 300,
        "height": 300,
        "same_shape": True,
        "colour": True,
        "drawing": False,
        "ground": 90,
        **changes,
    }
    return Survey(**values)  # type: ignore[arg-type]


def test_drawings_are_told_from_photos_by_their_even_ground(tmp_path: Path) -> None:
    found = survey(written(tmp_path / "characters", drawn_characters(30, 3, 60, seed=1)))
    assert found == Survey(30, 90, 60, 60, same_shape=True, colour=False, drawing=True, ground=255)


def test_white_on_black_is_a_drawing_too(tmp_path: Path) -> None:
    found = survey(written(tmp_path / "characters", drawn_characters(30, 3, 60, seed=1), invert=True))
    assert (found.drawing, found.ground) == (True, 0)


def test_pictures_in_colour_keep_three_channels_and_their_proportions(tmp_path: Path) -> None:
    folder = written(tmp_path / "faces", drawn_faces(30, 3, seed=1, height=90, width=60))
    found = survey(folder)
    assert (found.colour, found.drawing, found.same_shape) == (True, False, True)
    assert folder_defaults(found)["data.input"] == {"height": 64, "width": 40, "channels": 3}


def test_other_proportions_are_padded_with_the_ground() -> None:
    chosen = folder_defaults(looked(same_shape=False, ground=200))
    assert chosen["data.preprocess"] == {"mode": "pad", "background": 200}


@pytest.mark.parametrize(
    ("width", "height", "drawing", "size"),
    [
        (300, 300, False, (64, 64)),
        (300, 300, True, (48, 48)),
        (8, 8, True, (24, 24)),
        (30, 28, False, (32, 32)),
        (600, 300, False, (32, 64)),
        (3000, 30, False, (24, 64)),
    ],
)
def test_input_size(width: int, height: int, drawing: bool, size: tuple[int, int]) -> None:
    assert input_size(looked(width=width, height=height, drawing=drawing)) == size


@pytest.mark.parametrize(
    ("subjects", "validation", "calibration", "test"),
    [
        (28, 4, 9, 5),  # the fewest: 10 are left to train on
        (99, 9, 19, 19),  # 25 for 1e-2 would be more than a quarter
        (100, 10, 25, 20),
        (311, 31, 62, 62),
        (312, 31, 78, 62),
        (983, 98, 196, 196),
        (984, 98, 246, 196),
    ],
)
def test_thresholds_get_the_subjects_that_the_next_rate_takes(
    subjects: int, validation: int, calibration: int, test: int
) -> None:
    assert part_sizes(subjects) == (validation, calibration, test)


@pytest.mark.parametrize("subjects", [28, 31, 57, 100, 313, 5000])
def test_whatever_the_folder_the_choice_makes_a_run(subjects: int) -> None:
    found = looked(subjects=subjects, images=4 * subjects)
    chosen = {**folder_defaults(found), "data.path": "somewhere"}
    config = load_recipe("images", changes=chosen)
    assert isinstance(config.data, FolderData)
    trained = 1 - config.data.validation - config.data.calibration - config.data.test
    assert config.batches.kind == "pk"
    assert 2 <= config.batches.subjects <= trained * subjects
    assert 32 <= config.batches.subjects * config.batches.samples <= 96


def test_larger_folders_train_longer() -> None:
    few, many = (folder_defaults(looked(subjects=100, images=n))["loop.steps"] for n in (400, 20_000))
    assert few < many


def test_too_few_subjects_are_refused_before_a_file_is_opened(tmp_path: Path) -> None:
    for subject in range(12):
        for image in range(2 if subject < 10 else 1):
            path = tmp_path / "few" / f"s{subject}" / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"never opened")
    with pytest.raises(DataError, match="10 subjects with two images or more; at least 28 are needed: 10 to"):
        survey(tmp_path / "few")


def test_folder_without_a_readable_image_is_refused_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "damaged", drawn_characters(30, 2, 8, seed=1))
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"none of 60 files tried can be read: drawn00-character000/0000.png: "
    ):
        survey(folder)


def test_some_unreadable_files_do_not_spoil_the_look(tmp_path: Path) -> None:
    folder = written(tmp_path / "mostly", drawn_characters(30, 3, 60, seed=1))
    (folder / "drawn00-character000" / "0000.png").write_bytes(b"no image")
    assert survey(folder).drawing


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no folder"):
        survey(tmp_path / "nowhere")


def test_a_subject_left_out_is_not_counted(tmp_path: Path) -> None:
    folder = written(tmp_path / "characters", drawn_characters(29, 2, 20, seed=1))
    assert survey(folder, leave_out=["drawn00-character003"]).subjects == 28


def test_ground_is_that_of_the_borders(tmp_path: Path) -> None:
    images = np.full((60, 20, 20, 1), 30, np.uint8)
    images[:, 5:15, 5:15] = np.arange(60, dtype=np.uint8)[:, None, None, None] + 100
    labels = np.repeat(np.arange(30, dtype=np.int32), 2)
    data = LabelledImages(images, labels, tuple(f"s{number}" for number in range(30)))
    assert survey(written(tmp_path / "squares", data)).ground == 30
