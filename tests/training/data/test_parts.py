"""The four parts of a run on people: who is in which, and when there are too few."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.manifest import FaceAlignment, InputSpec, WholeImage
from tests.support.data import data_set
from tests.support.images import encoded
from training.config import AlignedFacesData, CharactersData, DigitsData, FolderData, RecipeError
from training.data.errors import DataError
from training.data.labelled import LabelledImages
from training.data.parts import (
    LEAST_SUBJECTS,
    ImageParts,
    four_parts,
    load_aligned_faces,
    load_characters,
    load_digits,
    load_folder,
)
from training.data.splits import Split
from training.faces_bundle import open_faces

SMALL = InputSpec(height=8, width=8, channels=1)


def write_people(folder: Path, subjects: int, images: int = 2) -> Path:
    """Write flat grey PNGs, every image of its own shade."""
    for subject in range(subjects):
        home = folder / f"p{subject:02d}"
        home.mkdir(parents=True)
        for image in range(images):
            shade = Image.new("L", (10, 10), subject * images + image)
            (home / f"{image}.png").write_bytes(encoded(shade))
    return folder


def named(parts: ImageParts) -> Iterator[set[str]]:
    """Yield the subjects of each part that there is."""
    for part in (parts.train, parts.validation, parts.calibration, parts.test):
        if part is not None:
            yield set(part.images.subjects)


def test_no_subject_of_a_folder_is_in_two_parts_and_none_is_lost(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", 50)
    parts = load_folder(FolderData(source="folder", path=str(folder), input=SMALL), tmp_path, seed=3)
    subjects = list(named(parts))
    assert [len(part) for part in subjects] == [25, 5, 10, 10]
    assert all(not one & other for one, other in combinations(subjects, 2))
    assert set().union(*subjects) == {f"p{number:02d}" for number in range(50)}


def test_images_stay_with_their_subject_in_every_part(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", 50)
    parts = load_folder(FolderData(source="folder", path=str(folder), input=SMALL), tmp_path, seed=3)
    test = parts.test.images
    shades = test.images[:, 0, 0, 0].tolist()
    assert [f"p{shade // 2:02d}" for shade in shades] == [test.subjects[label] for label in test.labels]


def test_recorded_split_names_all_four_parts(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", 50)
    parts = load_folder(FolderData(source="folder", path=str(folder), input=SMALL), tmp_path, seed=3)
    assert parts.split is not None
    assert Split.from_json(parts.split.as_json()) == parts.split
    recorded = [parts.split.train, parts.split.validation, parts.split.calibration, parts.split.test]
    assert [set(names) for names in recorded] == list(named(parts))


def test_folder_below_the_data_directory_is_found_by_its_name(tmp_path: Path) -> None:
    write_people(tmp_path / "sets" / "people", 50)
    parts = load_folder(FolderData(source="folder", path="people", input=SMALL), tmp_path / "sets", seed=3)
    assert len(parts.train.images.subjects) == 25


def test_too_few_subjects_are_refused_with_what_each_part_needs(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", LEAST_SUBJECTS - 1)
    with pytest.raises(DataError) as refused:
        load_folder(FolderData(source="folder", path=str(folder), input=SMALL), tmp_path, seed=1)
    assert "has 27 subjects with two usable images or more; at least 28 are needed" in str(refused.value)
    assert "10 to train on, 4 to choose the best weights, 9 for the thresholds" in str(refused.value)


def test_a_calibration_part_that_supports_no_rate_is_refused_before_training(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", 40)
    spec = FolderData(source="folder", path=str(folder), input=SMALL, calibration=0.2)
    with pytest.raises(DataError, match="8 of 40 subjects are for the thresholds and 9 are needed"):
        load_folder(spec, tmp_path, seed=1)


def test_subjects_left_out_are_in_no_part(tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", 50)
    spec = FolderData(source="folder", path=str(folder), input=SMALL, leave_out=("p07", "p31"))
    subjects = set().union(*named(load_folder(spec, tmp_path, seed=1)))
    assert len(subjects) == 48
    assert not subjects & {"p07", "p31"}


def grouped(groups: int, each: int) -> LabelledImages:
    count = groups * each
    names = tuple(f"g{number // each}/s{number:02d}" for number in range(count))
    return LabelledImages(
        np.zeros((count, 1, 1, 1), np.uint8),
        np.arange(count, dtype=np.int32),
        names,
        tuple(name.partition("/")[0] for name in names),
    )


def test_groups_stay_whole_where_there_are_eight() -> None:
    split = four_parts(grouped(10, 5), 0.1, 0.2, 0.2, seed=1)
    sides = [split.train, split.validation, split.calibration, split.test]
    groups = [{name.partition("/")[0] for name in part} for part in sides]
    assert [len(part) for part in groups] == [5, 1, 2, 2]
    assert all(not one & other for one, other in combinations(groups, 2))


def test_fewer_groups_are_dealt_out_subject_by_subject() -> None:
    split = four_parts(grouped(2, 25), 0.1, 0.2, 0.2, seed=1)
    sizes = [len(part) for part in (split.train, split.validation, split.calibration, split.test)]
    assert sizes == [25, 5, 10, 10]


def test_without_a_share_nobody_chooses_the_best_weights() -> None:
    split = four_parts(grouped(2, 25), 0.0, 0.2, 0.2, seed=1)
    assert split.validation == ()
    assert len(split.train) == 30


def test_shares_that_leave_nobody_to_train_on_are_refused() -> None:
    with pytest.raises(RecipeError, match="nobody to train on"):
        four_parts(grouped(2, 25), 0.3, 0.4, 0.3, seed=1)


def test_drawn_faces_are_whole_images_even_where_a_recipe_aligns_faces() -> None:
    size = InputSpec(height=16, width=16, channels=3)
    spec = FolderData(source="smoke-faces", input=size, preprocess="face-5pt")
    parts = load_folder(spec, Path(), seed=1)
    assert parts.preprocess == WholeImage(mode="fit")
    assert parts.detector is None
    assert parts.weights_licence == "Apache-2.0"


def test_drawn_aligned_faces_make_disjoint_parts() -> None:
    size = InputSpec(height=16, width=16, channels=3)
    parts = load_aligned_faces(AlignedFacesData(source="smoke-aligned", input=size), Path(), seed=1)
    subjects = list(named(parts))
    assert [len(part) for part in subjects] == [40, 8, 12, 20]
    assert all(not one & other for one, other in combinations(subjects, 2))


def test_weights_trained_on_celeba_are_marked_as_not_to_be_distributed() -> None:
    folder = data_set("faces/celeba_small/images.zip")
    size = InputSpec(height=16, width=16, channels=3)
    parts = load_aligned_faces(
        AlignedFacesData(source="celeba_small", input=size, least_images=5), folder, seed=1
    )
    assert "not distributed" in parts.weights_licence
    assert sum(len(part) for part in named(parts)) == 104  # 77 + 22 + 3 + 2 subjects of five to eight


@pytest.mark.model
def test_faces_of_a_folder_are_found_and_aligned_as_the_faces_bundle_does(tmp_path: Path) -> None:
    source = data_set("faces/celeba_wild") / "faces" / "celeba_wild"
    many = [home for home in sorted(source.iterdir()) if len(list(home.iterdir())) > 9][:LEAST_SUBJECTS]
    for home in many:
        (tmp_path / "faces" / home.name).mkdir(parents=True)
        for photo in sorted(home.iterdir())[:2]:
            (tmp_path / "faces" / home.name / photo.name).write_bytes(photo.read_bytes())
    size = InputSpec(height=112, width=112, channels=3)
    spec = FolderData(
        source="folder", path="faces", input=size, preprocess="face-5pt", calibration=0.35, test=0.2
    )
    parts = load_folder(spec, tmp_path, seed=1, cache=tmp_path / "prepared")
    faces = open_faces()
    assert parts.preprocess == FaceAlignment(mode="face-5pt")
    assert parts.detector is not None
    assert parts.detector[0] == faces.manifest.detector
    assert parts.detector[1].name == "detector.onnx"
    assert parts.input == faces.manifest.input
    assert list((tmp_path / "prepared").iterdir())


def test_input_that_faces_are_not_aligned_to_is_refused(tmp_path: Path) -> None:
    spec = FolderData(source="folder", path="faces", input=SMALL, preprocess="face-5pt")
    with pytest.raises(RecipeError, match="faces are aligned to"):
        load_folder(spec, tmp_path, seed=1)


def test_digits_are_a_closed_set_whose_parts_share_no_image() -> None:
    parts = load_digits(DigitsData(source="smoke-digits"), Path(), seed=1)
    assert parts.closed
    assert parts.split is None
    assert parts.validation is not None
    assert len(parts.train.images) + len(parts.validation.images) + len(parts.test.images) == 1797


def test_characters_held_back_are_whole_alphabets() -> None:
    size = InputSpec(height=16, width=16, channels=1)
    spec = CharactersData(source="smoke-characters", input=size, validation_alphabets=2)
    parts = load_characters(spec, Path(), seed=1)
    assert parts.validation is not None
    held = set(parts.validation.images.groups or ())
    assert len(held) == 2
    assert not held & set(parts.train.images.groups or ())
