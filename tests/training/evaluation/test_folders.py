"""Labelled images in folders: subjects, groups and drawers by their names."""

from pathlib import Path

import pytest

from app.errors import InvalidRequestError
from training.evaluation.folders import labelled_files


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_two_levels_are_subjects_without_groups_or_drawers(tmp_path: Path) -> None:
    found = labelled_files(folder_of(tmp_path, "bob/2.png", "ada/0001_01.png", "bob/1.JPG", "bob/notes.txt"))
    assert [path.relative_to(tmp_path).as_posix() for path in found.paths] == [
        "ada/0001_01.png",
        "bob/1.JPG",
        "bob/2.png",
    ]
    assert (found.labels.tolist(), found.subjects) == ([0, 1, 1], ("ada", "bob"))
    assert (found.groups, found.drawers) == (None, None)


def test_three_levels_are_groups_and_omniglots_names_tell_drawers(tmp_path: Path) -> None:
    found = labelled_files(
        folder_of(tmp_path, "Greek/c1/0394_02.png", "Greek/c2/0395_11.png", "Latin/c1/0684_02.png")
    )
    assert found.subjects == ("Greek/c1", "Greek/c2", "Latin/c1")
    assert found.groups == ("Greek", "Greek", "Latin")
    assert found.drawers == (2, 11, 2)


def test_drawers_are_unknown_when_one_name_does_not_tell(tmp_path: Path) -> None:
    assert labelled_files(folder_of(tmp_path, "G/a/1_02.png", "G/b/x.png")).drawers is None


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    assert len(labelled_files(folder_of(tmp_path, "a/1.png", "b/1.png", "b/._1.png")).paths) == 2


def test_images_at_both_depths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidRequestError, match=r"\(a/1.png\) and as <group>/<subject>/<image> \(b/c/1.png\)"
    ):
        labelled_files(folder_of(tmp_path, "a/1.png", "b/c/1.png"))


def test_images_of_one_subject_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="images of 1 subjects"):
        labelled_files(folder_of(tmp_path, "a/1.png", "a/2.png"))
