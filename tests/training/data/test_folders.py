"""Folders of anyone's images: what is read, what is reported, what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.encoding.intake import decode_image
from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.model import open_model
from app.encoding.preprocess import prepare_whole
from tests.conftest import MODELS
from tests.support.data import data_set
from tests.support.images import astronaut, encoded, no_face
from training.data.errors import DataError, MissingDataError
from training.data.folders import count_images, read_folder
from training.data.preparing import LIMITS, aligned_faces, whole_images

SPEC = InputSpec(height=4, width=4, channels=1)
HOW = WholeImage(mode="fit")
GREY = whole_images(SPEC, HOW)


def put(folder: Path, name: str, shade: int | None = None) -> None:
    """Write a flat grey PNG, or with no shade a file that is none."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"no image" if shade is None else encoded(Image.new("L", (8, 8), shade)))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Twelve subjects ``p00`` to ``p11`` with two images each, every image of its own shade."""
    folder = tmp_path / "people"
    for subject in range(12):
        for image in range(2):
            put(folder, f"p{subject:02d}/{image}.png", 20 * subject + image)
    return folder


def test_folders_are_subjects_in_order_of_their_names(people: Path) -> None:
    data, report = read_folder(people, GREY)
    assert data.subjects == tuple(f"p{subject:02d}" for subject in range(12))
    assert data.groups is None
    assert data.images[:, 0, 0, 0].tolist() == [20 * s + i for s in range(12) for i in range(2)]
    assert data.labels.tolist() == [s for s in range(12) for _ in range(2)]
    assert report.lines() == ["24 images of 12 subjects"]


def test_folders_one_level_deeper_make_groups(people: Path) -> None:
    (people / "old").mkdir()
    (people / "new").mkdir()
    for subject in sorted(people.glob("p*")):
        subject.rename(people / ("old" if subject.name < "p05" else "new") / subject.name)
    data, _ = read_folder(people, GREY)
    assert data.subjects[:2] == ("new/p05", "new/p06")
    assert data.groups == ("new",) * 7 + ("old",) * 5


def test_an_image_is_what_the_service_would_make_of_the_file(people: Path) -> None:
    photo = encoded(astronaut().rotate(90), "JPEG", quality=80)
    (people / "p00" / "0.jpeg").write_bytes(photo)
    (people / "p00" / "0.png").unlink()
    data, _ = read_folder(people, GREY)
    assert np.array_equal(data.images[0], prepare_whole(decode_image(photo, LIMITS), HOW, SPEC).pixels)


def test_unreadable_files_are_left_out_and_listed_with_reasons(people: Path) -> None:
    put(people, "p03/bad.jpg")
    put(people, "p03/empty.png")
    (people / "p03" / "empty.png").write_bytes(b"")
    put(people, "p03/notes.txt")
    data, report = read_folder(people, GREY)
    assert len(data) == 24
    assert [name for name, _ in report.unusable] == ["p03/bad.jpg", "p03/empty.png"]
    assert "the bytes are no image" in report.unusable[0][1]
    assert "0 bytes" in report.unusable[1][1]
    assert report.other_files == 1
    assert report.lines()[1].startswith("2 files left out: the bytes are no image")
    assert report.as_json()["files"] == 26


def test_too_many_unreadable_files_are_refused(people: Path) -> None:
    for number in range(3):
        put(people, f"p00/bad{number}.png")
    with pytest.raises(
        DataError, match=r"3 of 27 files cannot be used: the bytes are no image.*p00/bad0\.png"
    ):
        read_folder(people, GREY)
    assert len(read_folder(people, GREY, most_unusable=0.2)[0]) == 24


def test_a_picture_under_two_subjects_is_refused_and_both_are_named(people: Path) -> None:
    put(people, "p07/again.png", 41)  # p02/1.png
    with pytest.raises(DataError, match=r"under two subjects, 1 times: p02/1\.png = p07/again\.png"):
        read_folder(people, GREY)


def test_the_same_pixels_in_another_file_are_the_same_picture(people: Path) -> None:
    (people / "p07" / "again.bmp").write_bytes(encoded(Image.new("RGB", (5, 9), (41, 41, 41)), "BMP"))
    with pytest.raises(DataError, match=r"p02/1\.png = p07/again\.bmp"):
        read_folder(people, GREY)


def test_a_mixed_subject_can_be_left_out(people: Path) -> None:
    put(people, "p07/again.png", 41)
    data, _ = read_folder(people, GREY, leave_out=["p07"])
    assert "p07" not in data.subjects
    assert len(data.subjects) == 11
    with pytest.raises(DataError, match="has no subject p77 to leave out"):
        read_folder(people, GREY, leave_out=["p77"])


def test_a_picture_twice_under_one_subject_counts_once(people: Path) -> None:
    put(people, "p02/copy.png", 41)
    data, report = read_folder(people, GREY)
    assert len(data) == 24
    assert report.repeated == ("p02/copy.png",)


def test_subjects_with_one_image_are_left_out_and_named(people: Path) -> None:
    (people / "p04" / "1.png").unlink()
    data, report = read_folder(people, GREY)
    assert "p04" not in data.subjects
    assert report.single == ("p04",)
    assert data.labels.max() == 10


def test_too_few_subjects_are_refused_with_those_of_one_image(people: Path) -> None:
    for subject in (4, 5, 6):
        (people / f"p{subject:02d}" / "1.png").unlink()
    with pytest.raises(
        DataError, match=r"9 subjects .* at least 10 are needed; with a single image: p04, p05, p06"
    ):
        read_folder(people, GREY)
    assert len(read_folder(people, GREY, least_subjects=9)[0].subjects) == 9


def test_images_without_a_folder_of_their_own_are_refused(people: Path) -> None:
    put(people, "loose.png", 5)
    with pytest.raises(DataError, match=r"in a folder of its own: loose\.png"):
        read_folder(people, GREY)


def test_folders_of_unequal_depth_are_refused(people: Path) -> None:
    put(people, "p03/more/a.png", 5)
    with pytest.raises(DataError, match=r"not p00/0\.png and p03/more/a\.png"):
        read_folder(people, GREY)


def test_hidden_files_are_not_looked_at(people: Path) -> None:
    put(people, "__MACOSX/p00/0.png", 5)
    put(people, ".thumbs/a.png", 6)
    put(people, "p00/._0.png", 7)
    assert count_images(people) == 24


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/b.txt")
    with pytest.raises(DataError, match="has no images"):
        read_folder(tmp_path, GREY)


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no folder .*absent"):
        read_folder(tmp_path / "absent", GREY)


def test_a_link_to_nothing_is_no_file(people: Path) -> None:
    (people / "p00" / "loop.png").symlink_to(people / "p00" / "loop.png")
    data, _ = read_folder(people, GREY)
    assert len(data) == 24


def test_progress_counts_every_file(people: Path) -> None:
    for leave_out in ((), ("p01",)):
        done: list[int] = []
        read_folder(people, GREY, leave_out=leave_out, progress=done.append)
        assert sum(done) == count_images(people) == 24


def test_cache_is_used_until_a_file_changes(people: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    put(people, "p03/bad.jpg")
    _, report = read_folder(people, GREY, cache=cache)
    (kept,) = cache.iterdir()
    with np.load(kept) as held:
        swapped = {"images": held["images"], "reasons": held["reasons"]}
    swapped["images"][:2] = swapped["images"][1::-1]
    np.savez(kept, **swapped)
    changed, _ = read_folder(people, GREY, cache=cache)
    assert changed.images[:2, 0, 0, 0].tolist() == [1, 0]  # as in the cache, not as in the files
    put(people, "p03/0.png", 199)
    again, second_report = read_folder(people, GREY, cache=cache)
    assert again.images[6, 0, 0, 0] == 199
    assert report == second_report
    assert len(list(cache.iterdir())) == 2


def test_damaged_cache_is_made_anew(people: Path, tmp_path: Path) -> None:
    first, _ = read_folder(people, GREY, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    again, _ = read_folder(people, GREY, cache=tmp_path / "cache")
    assert np.array_equal(again.images, first.images)
    with np.load(kept) as now:
        assert now["images"].shape == (24, 4, 4, 1)


@pytest.mark.model
def test_faces_are_aligned_as_the_service_aligns_them(tmp_path: Path) -> None:
    model = open_model(MODELS / "faces", provider="cpu", limits=LIMITS)
    preparation = aligned_faces(model)
    for subject in range(2):
        (tmp_path / f"s{subject}").mkdir()
        for quality in (80, 90):
            photo = astronaut().crop((subject, 0, 400, 400))
            (tmp_path / f"s{subject}" / f"{quality}.jpg").write_bytes(encoded(photo, "JPEG", quality=quality))
    (tmp_path / "s1" / "cup.jpg").write_bytes(encoded(no_face(), "JPEG"))
    data, report = read_folder(tmp_path, preparation, least_subjects=2, most_unusable=0.5)
    assert data.images.shape == (4, 112, 112, 3)
    assert report.unusable[0][0] == "s1/cup.jpg"
    assert "no face was found" in report.unusable[0][1]
    assert np.array_equal(data.images[0], preparation.prepare((tmp_path / "s0" / "80.jpg").read_bytes()))


def test_one_subject_of_the_wild_crops_has_pictures_of_four_others() -> None:
    folder = data_set("faces/celeba_wild") / "faces" / "celeba_wild"
    preparation = whole_images(InputSpec(height=16, width=16, channels=3), HOW)
    with pytest.raises(DataError, match="under two subjects, 10 times"):
        read_folder(folder, preparation)
    data, report = read_folder(folder, preparation, leave_out=["07312"])
    assert len(data.subjects) == 298
    assert report.repeated == ("07246/194317.jpg", "07287/048009.jpg")
