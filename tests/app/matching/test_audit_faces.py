"""The audit of real photographs: CelebA has one woman under two numbers, and photos under a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.encoding.bulk import embed_files
from app.encoding.model import Model, open_model
from app.matching.audit import AuditResult
from app.services.audit import labelled_files, of_folder, prepared
from tests.support.data import data_set

pytestmark = pytest.mark.model

SUBJECTS = ("07392", "07393", "07433", "07450", "07201", "07202")
PHOTOS = 8
WRONG = "026072.jpg"
"""Of 07450 by its folder; it shows 07433."""


@pytest.fixture(scope="module")
def faces() -> Model:
    return open_model(Path(__file__).parents[3] / "models" / "faces", provider="cpu")


@pytest.fixture(scope="module")
def found(
    faces: Model, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[str, ...], AuditResult, list[str]]:
    """Names, result and the files' names, of a few photos of six numbers."""
    source = data_set("faces/celeba_wild") / "faces" / "celeba_wild"
    folder = tmp_path_factory.mktemp("people")
    for subject in SUBJECTS:
        (folder / subject).mkdir()
        photos = sorted((source / subject).iterdir())[:PHOTOS]
        if subject == "07450":
            photos.append(source / subject / WRONG)
        for photo in photos:
            if not (folder / subject / photo.name).exists():
                (folder / subject / photo.name).symlink_to(photo.resolve())
    files = labelled_files(folder, field="data")
    made = embed_files(faces.images, [path for _, path in files], "central")
    failed = {path: why for (_, path), why in zip(files, made.reasons, strict=True) if why}
    sample = of_folder(files, made.embeddings, failed)
    return sample.names, prepared(sample, faces).run(), [str(path and path.name) for path in sample.images]


def test_one_woman_under_two_numbers_is_the_only_duplicate(
    found: tuple[tuple[str, ...], AuditResult, list[str]],
) -> None:
    names, result, _ = found
    assert [tuple(names[label] for label in group) for group in result.groups] == [("07392", "07393")]


def test_photo_under_a_wrong_number_is_told_with_the_right_one(
    found: tuple[tuple[str, ...], AuditResult, list[str]],
) -> None:
    names, result, images = found
    assert [(images[one.image], names[one.label], names[one.nearest]) for one in result.swapped] == [
        (WRONG, "07450", "07433")
    ]
