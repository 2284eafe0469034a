"""Faces of public sets that are cut out already: CelebA's small aligned crops and the ORL faces."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from app.encoding.manifest import InputSpec, WholeImage
from app.encoding.preprocess import prepare_whole
from app.errors import ImageError
from training.data.errors import DataError, MissingDataError
from training.data.labelled import LabelledImages
from training.data.preparing import on_all_cores, prepare_bytes


def read_celeba_small(
    data_dir: Path, spec: InputSpec, how: WholeImage, *, least_images: int = 2
) -> LabelledImages:
    """Read the small aligned crops of CelebA, 89 x 109, whose subjects are numbers.

    Args:
        data_dir: Folder of data sets; the files are ``images.zip`` and ``identity.txt`` in
            ``faces/celeba_small/``.
        spec: Size and channels.
        how: How a crop is brought to that size.
        least_images: Subjects with fewer are left out.

    Returns:
        Images in the order of their names. Two subjects can be one person, and some labels are wrong.

    Raises:
        MissingDataError: A file is not there.
        DataError: A file is damaged, or they do not fit together.

    Source: Liu, Luo, Wang, Tang (2015), "Deep Learning Face Attributes in the Wild".
    """
    folder = data_dir / "faces" / "celeba_small"
    identities, archive = folder / "identity.txt", folder / "images.zip"
    try:
        rows = [line.split() for line in identities.read_text(encoding="ascii").splitlines() if line.strip()]
        with zipfile.ZipFile(archive) as opened:
            files = {name: opened.read(name) for name in opened.namelist() if name.endswith(".jpg")}
    except FileNotFoundError as error:
        raise MissingDataError.of(Path(error.filename), "celeba_small") from error
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{folder} is damaged: {error}; run: visavis data fetch celeba_small") from error
    for line, row in enumerate(rows, 1):
        if len(row) != 2 or row[0] not in files:
            raise DataError(
                f"{identities}: line {line} is not the name of an image in {archive} and a number"
            )
    counts = Counter(identity for _, identity in rows)
    subjects = sorted(identity for identity, count in counts.items() if count >= least_images)
    number = {identity: index for index, identity in enumerate(subjects)}
    chosen = sorted((name, number[identity]) for name, identity in rows if identity in number)
    if not chosen:
        raise DataError(f"{identities} names no subject with {least_images} images")
    try:
        images = on_all_cores(lambda row: prepare_bytes(files[row[0]], spec, how), chosen)
    except ImageError as error:
        raise DataError(f"{archive}: {error}") from error
    return LabelledImages(
        np.stack(images), np.array([label for _, label in chosen], np.int32), tuple(subjects)
    )


def read_orl(data_dir: Path, spec: InputSpec, how: WholeImage) -> LabelledImages:
    """Read the ORL faces: 40 people, 10 grey portraits each, 92 x 112.

    They are PGM files, which the service does not take; from the pixels on, they are prepared alike.

    Args:
        data_dir: Folder of data sets; the files are ``faces/orl/s1/1.pgm`` and so on.
        spec: Size and channels.
        how: How a portrait is brought to that size.

    Raises:
        MissingDataError: They are not there.
        DataError: A file is damaged.

    Source: Samaria, Harter (1994), "Parameterisation of a stochastic model for human face identification".
    """
    folder = data_dir / "faces" / "orl"
    files = [
        (f"s{person}", folder / f"s{person}" / f"{number}.pgm")
        for person in range(1, 41)
        for number in range(1, 11)
    ]
    images = []
    for _, path in files:
        try:
            with Image.open(io.BytesIO(path.read_bytes()), formats=["PPM"]) as image:
                images.append(prepare_whole(image.convert("RGB"), how, spec).pixels)
        except FileNotFoundError as error:
            raise MissingDataError.of(path, "orl") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from error
    subjects = tuple(dict.fromkeys(name for name, _ in files))
    labels = np.repeat(np.arange(len(subjects), dtype=np.int32), 10)
    return LabelledImages(np.stack(images), labels, subjects)
