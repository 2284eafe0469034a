"""The ``faces`` bundle on a real photograph: where the face is, however the photo is stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from app.encoding.detection import Face
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model, open_model
from app.encoding.quality import Quality
from app.errors import MultipleFacesError, NoFaceError
from app.matching.decision import is_match
from app.matching.distances import distance
from tests.support.image_files import exif_of, stored_as
from tests.support.images import astronaut, encoded, no_face, two_faces

pytestmark = pytest.mark.model

HEAD = (165, 40, 285, 200)
"""Left, top, right, bottom of the astronaut's head without the hair, read off the photo."""


@pytest.fixture(scope="module")
def faces() -> Model:
    return open_model(Path(__file__).parents[3] / "models" / "faces", provider="cpu")


def found_in(model: Model, data: bytes) -> list[tuple[Face, Quality]]:
    return model.images.detect(ImageInput(data), Timings())[0]


def only_face(model: Model, data: bytes) -> tuple[Face, Quality]:
    (found,) = found_in(model, data)
    return found


def embedding(model: Model, data: bytes) -> NDArray[np.float32]:
    timings = Timings()
    prepared = model.images.prepare(ImageInput(data), "only", timings)
    return np.asarray(model.images.encode([prepared], timings)[0])


def test_box_lies_on_the_face(faces: Model) -> None:
    face, _ = only_face(faces, encoded(astronaut()))
    x, y, width, height = face.box
    left, top, right, bottom = HEAD
    assert left < x < x + width < right
    assert top < y < y + height < bottom
    assert width > 0.6 * (right - left)
    assert height > 0.6 * (bottom - top)
    assert face.score > 0.9


def test_landmarks_are_named_from_the_subjects_side(faces: Model) -> None:
    # Her right eye is on the left of the photo. Eyes and mouth corners, read off the photo.
    face, _ = only_face(faces, encoded(astronaut()))
    expected = np.array([[200, 102], [247, 103], [221, 125], [199, 143], [240, 144]])
    assert np.abs(face.landmarks - expected).max() < 6


def test_portrait_is_frontal_sharp_and_well_lit(faces: Model) -> None:
    _, quality = only_face(faces, encoded(astronaut()))
    assert quality.yaw is not None
    assert quality.pitch is not None
    assert quality.roll is not None
    assert abs(quality.yaw) < 0.3
    assert abs(quality.pitch) < 0.15
    assert abs(quality.roll) < 8
    assert 10 < quality.sharpness < 60
    assert 0.3 < quality.brightness < 0.7


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_stored_turned_gives_the_same_box(faces: Model, orientation: int) -> None:
    upright, _ = only_face(faces, encoded(astronaut()))
    turned = encoded(stored_as(astronaut(), orientation), "PNG", exif=exif_of(orientation))
    face, _ = only_face(faces, turned)
    assert face.box == upright.box
    assert np.array_equal(face.landmarks, upright.landmarks)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 90}), ("WEBP", {"quality": 90}), ("TIFF", {}), ("BMP", {})]
)
def test_photo_in_another_format_gives_the_same_embedding(
    faces: Model, kind: str, options: dict[str, object]
) -> None:
    plain = embedding(faces, encoded(astronaut()))
    assert distance(plain, embedding(faces, encoded(astronaut(), kind, **options)), "euclidean") < 0.15


def test_face_in_a_photo_of_12_megapixels_is_found_where_it_is(faces: Model) -> None:
    photo = Image.new("RGB", (4000, 3000), (90, 120, 150))
    photo.paste(astronaut().resize((1024, 1024), Image.Resampling.BICUBIC), (1800, 900))
    face, _ = only_face(faces, encoded(photo, "JPEG", quality=95))
    # Twice as large, shifted by the place it was pasted at.
    assert np.abs(face.landmarks[0] - (1800 + 2 * 200, 900 + 2 * 102)).max() < 20
    assert face.box[2] == pytest.approx(2 * 90, rel=0.25)


@pytest.mark.parametrize("side", [2048, 1024, 256, 128])
def test_larger_or_smaller_copy_is_a_match(faces: Model, side: int) -> None:
    scaled = astronaut().resize((side, side), Image.Resampling.LANCZOS)
    found = distance(embedding(faces, encoded(astronaut())), embedding(faces, encoded(scaled)), "euclidean")
    assert is_match(found, faces.manifest.default_point.threshold)


def test_face_that_fills_the_picture_is_found(faces: Model) -> None:
    close = astronaut().crop((175, 62, 275, 182)).resize((1500, 1800), Image.Resampling.BICUBIC)
    face, _ = only_face(faces, encoded(close, "JPEG"))
    assert face.box[2] > 1000


def test_photo_without_a_face_has_none(faces: Model) -> None:
    assert found_in(faces, encoded(no_face())) == []
    with pytest.raises(NoFaceError):
        embedding(faces, encoded(no_face()))


def test_both_of_two_faces_are_found_side_by_side(faces: Model) -> None:
    found = sorted(found_in(faces, encoded(two_faces())), key=lambda item: item[0].box[0])
    assert len(found) == 2
    (left, _), (right, _) = found
    assert right.box[0] - left.box[0] == pytest.approx(512, abs=3)
    with pytest.raises(MultipleFacesError) as caught:
        embedding(faces, encoded(two_faces()))
    assert len(caught.value.boxes) == 2


def test_embedding_is_of_unit_length_and_the_same_every_time(faces: Model) -> None:
    first, second = (embedding(faces, encoded(astronaut())) for _ in range(2))
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-6)
    assert np.array_equal(first, second)


def test_embedding_hardly_depends_on_the_batch(faces: Model) -> None:
    timings = Timings()
    photos = [ImageEnhance.Brightness(astronaut()).enhance(factor) for factor in (0.7, 1.0, 1.3)]
    prepared = [faces.images.prepare(ImageInput(encoded(photo)), "only", timings) for photo in photos]
    together = faces.images.encode(prepared, timings)
    for row, item in zip(together, prepared, strict=True):
        assert np.abs(faces.images.encode([item], timings)[0] - row).max() < 1e-5


def test_threads_encode_what_one_thread_does(faces: Model) -> None:
    photos = [encoded(astronaut().rotate(degrees)) for degrees in (-10, -5, 0, 5, 10)]
    alone = [embedding(faces, photo) for photo in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda photo: embedding(faces, photo), photos * 2))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 2, together, strict=True))


def tilted(photo: Image.Image, degrees: float) -> bytes:
    # Pillow turns counter-clockwise; roll is clockwise.
    turned = photo.rotate(-degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128))
    return encoded(turned)


def badge() -> Image.Image:
    with Image.open(Path(__file__).parents[3] / "docs" / "examples" / "badge.jpg") as image:
        return image.convert("RGB")


@pytest.mark.parametrize("photo", [astronaut(), badge()], ids=["512 pixels", "240 pixels"])
@pytest.mark.parametrize("degrees", [-45, -30, -15, 15, 30, 45])
def test_tilted_head_is_hardly_further_away(faces: Model, photo: Image.Image, degrees: int) -> None:
    upright = embedding(faces, encoded(photo))
    assert distance(upright, embedding(faces, tilted(photo, degrees)), "euclidean") < 0.45


@pytest.mark.parametrize("photo", [astronaut(), badge()], ids=["512 pixels", "240 pixels"])
@pytest.mark.parametrize("degrees", [-45, -30, -15, 15, 30, 45])
def test_roll_follows_the_tilt(faces: Model, photo: Image.Image, degrees: int) -> None:
    upright, turned = (only_face(faces, tilted(photo, tilt))[1].roll for tilt in (0, degrees))
    assert upright is not None
    assert turned is not None
    assert turned - upright == pytest.approx(degrees, abs=4)


@pytest.mark.parametrize("degrees", [0, 30])
def test_detecting_and_encoding_see_the_same_landmarks(faces: Model, degrees: int) -> None:
    photo = tilted(astronaut(), degrees)
    face, quality = only_face(faces, photo)
    prepared = faces.images.prepare(ImageInput(photo), "only", Timings())
    assert prepared.face is not None
    assert np.array_equal(prepared.face.landmarks, face.landmarks)
    assert prepared.quality == quality
