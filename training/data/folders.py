"""Anyone's images in folders, ``<subject>/<image>``, checked before anything is trained on them.

A folder that holds images is a subject. Folders one level deeper, ``<group>/<subject>/<image>``, make groups,
which a split keeps whole. What cannot be used is left out and reported; what would spoil a training quietly
is refused: a picture under two subjects, too few subjects, too many unreadable files.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.intake import IMAGE_SUFFIXES, SUPPORTED
from training.data.errors import DataError, MissingDataError
from training.data.labelled import LabelledImages
from training.data.preparing import Preparation, prepare_files

LEAST_SUBJECTS: Final = 10
"""Six to train on, two to calibrate, two to test: enough to run, not to trust."""
MOST_UNUSABLE: Final = 0.1
"""Share of the files that may be left out as unreadable or without a face."""
_SHOWN: Final = 5
"""Files that a message names; more are counted."""
_CACHE_VERSION: Final = 1


@dataclass(frozen=True)
class FolderReport:
    """What a folder holds and what was left out of it.

    Attributes:
        files: Image files found.
        images: Images kept.
        subjects: Subjects kept.
        unusable: Path below the folder and reason of each file that could not be prepared.
        repeated: Paths of images that another image of the same subject equals.
        single: Subjects left out, because one image makes no mated pair.
        other_files: Files that are no images by their names.
    """

    files: int
    images: int
    subjects: int
    unusable: tuple[tuple[str, str], ...]
    repeated: tuple[str, ...]
    single: tuple[str, ...]
    other_files: int

    def as_json(self) -> dict[str, object]:
        """Return the report for a run's records."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the report in a few lines of English."""
        text = [f"{self.images} images of {self.subjects} subjects"]
        if self.unusable:
            text.append(f"{len(self.unusable)} files left out: {_by_reason(self.unusable)}")
        if self.repeated:
            text.append(
                f"{len(self.repeated)} images left out that equal another of their subject: "
                f"{_few(self.repeated)}"
            )
        if self.single:
            text.append(f"{len(self.single)} subjects left out with a single image: {_few(self.single)}")
        if self.other_files:
            text.append(f"{self.other_files} files passed over that are no images by their names")
        return text


def read_folder(
    folder: Path,
    preparation: Preparation,
    *,
    least_subjects: int = LEAST_SUBJECTS,
    because: str = "",
    most_unusable: float = MOST_UNUSABLE,
    leave_out: Collection[str] = (),
    cache: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[LabelledImages, FolderReport]:
    """Read and check the images of a folder.

    Args:
        folder: Holds ``<subject>/<image>`` or ``<group>/<subject>/<image>``.
        preparation: From the bytes of a file to the encoder's input.
        least_subjects: Subjects with two images or more that there must be.
        because: Why so many, for the message that says there are fewer.
        most_unusable: Share of the files that may be left out because they cannot be prepared.
        leave_out: Subjects to pass over, such as one whose pictures are known to be of several people.
        cache: Folder to keep the prepared images in, for the next run on the same files.
        progress: Called with how many more files are done, ``count_images`` in all.

    Returns:
        The images, sorted by path, and what was left out.

    Raises:
        MissingDataError: The folder is not there.
        DataError: The data are too few, mixed up, unreadable or laid out otherwise. The message names files.
    """
    files, others = _image_files(folder)
    unknown = sorted(set(leave_out) - {_home(name) for name in files})
    if unknown:
        raise DataError(f"{folder} has no subject {_few(unknown)} to leave out")
    found = len(files)
    files = [name for name in files if _home(name) not in leave_out]
    progress(found - len(files))
    kept_at = None if cache is None else cache / f"{_fingerprint(folder, files, preparation)}.npz"
    prepared = None if kept_at is None else _load(kept_at)
    if prepared is None:
        prepared = prepare_files((folder / name for name in files), preparation, progress=progress)
        if kept_at is not None:
            _save(kept_at, *prepared)
    else:
        progress(len(files))
    images, reasons = prepared
    unusable = tuple((name, reason) for name, reason in zip(files, reasons, strict=True) if reason)
    if len(unusable) > most_unusable * len(files):
        raise DataError(
            f"{folder}: {len(unusable)} of {len(files)} files cannot be used: {_by_reason(unusable)}"
        )
    homes = [_home(name) for name in files]
    usable = [index for index, reason in enumerate(reasons) if not reason]
    repeated = _repeated(folder, files, homes, images, usable)
    usable = [index for index in usable if index not in repeated]
    counts = Counter(homes[index] for index in usable)
    single = sorted(home for home, count in counts.items() if count == 1)
    subjects = sorted(home for home, count in counts.items() if count > 1)
    if len(subjects) < least_subjects:
        raise DataError(
            f"{folder} has {len(subjects)} subjects with two usable images or more; at least "
            f"{least_subjects} are needed{f', {because}' if because else ''}"
            f"{f'; with a single image: {_few(single)}' if single else ''}"
        )
    number = {home: index for index, home in enumerate(subjects)}
    chosen = [index for index in usable if homes[index] in number]
    groups = tuple(home.partition("/")[0] for home in subjects) if "/" in subjects[0] else None
    labels = np.array([number[homes[index]] for index in chosen], np.int32)
    kept = images if len(chosen) == len(files) else images[chosen]
    report = FolderReport(
        files=len(files),
        images=len(chosen),
        subjects=len(subjects),
        unusable=unusable,
        repeated=tuple(files[index] for index in sorted(repeated)),
        single=tuple(single),
        other_files=others,
    )
    return LabelledImages(kept, labels, tuple(subjects), groups), report


def count_images(folder: Path) -> int:
    """Return how many image files ``read_folder`` would read.

    Raises:
        MissingDataError: The folder is not there.
        DataError: It has none, or they are laid out otherwise.
    """
    return len(_image_files(folder)[0])


def files_by_subject(folder: Path) -> dict[str, list[str]]:
    """Return the paths of the image files of each subject, below the folder and sorted; nothing is opened.

    Raises:
        MissingDataError: The folder is not there.
        DataError: It has no images, or they are laid out otherwise.
    """
    found: dict[str, list[str]] = {}
    for name in _image_files(folder)[0]:
        found.setdefault(_home(name), []).append(name)
    return found


def _image_files(folder: Path) -> tuple[list[str], int]:
    """Return the paths of the image files below the folder, sorted, and how many other files there are."""
    if not folder.is_dir():
        raise MissingDataError(f"there is no folder {folder}; it should hold <subject>/<image>")
    found = [
        path.relative_to(folder)
        for path in folder.rglob("*")
        if not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    files = sorted(path.as_posix() for path in found if path.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"{folder} has no images; it should hold <subject>/<image> in {SUPPORTED}")
    depths = {name.count("/") for name in files}
    if 0 in depths:
        loose = [name for name in files if "/" not in name]
        raise DataError(f"{folder}: put the images of each subject in a folder of its own: {_few(loose)}")
    if len(depths) > 1 or max(depths) > 2:
        deepest = max(files, key=lambda name: name.count("/"))
        shallowest = min(files, key=lambda name: name.count("/"))
        raise DataError(
            f"{folder}: all images should be <subject>/<image>, or all <group>/<subject>/<image>, "
            f"not {shallowest} and {deepest}"
        )
    return files, len(found) - len(files)


def _home(name: str) -> str:
    return name.rpartition("/")[0]


def _repeated(
    folder: Path, files: list[str], homes: list[str], images: NDArray[np.uint8], usable: list[int]
) -> set[int]:
    """Return the images that equal an earlier one of their subject.

    Compared is the encoder's input: two files that give the same input are one picture to any encoder.

    Raises:
        DataError: Two subjects have the same picture.
    """
    first: dict[bytes, int] = {}
    again: set[int] = set()
    mixed: list[str] = []
    for index in usable:
        earlier = first.setdefault(hashlib.sha256(images[index].tobytes()).digest(), index)
        if earlier == index:
            continue
        if homes[earlier] == homes[index]:
            again.add(index)
        else:
            mixed.append(f"{files[earlier]} = {files[index]}")
    if mixed:
        raise DataError(
            f"{folder}: the same picture is under two subjects, {len(mixed)} times: {_few(mixed)}; "
            "delete the wrong one, leave a subject out, or put the two together if they are one"
        )
    return again


def _fingerprint(folder: Path, files: list[str], preparation: Preparation) -> str:
    """Return a hex digest of the files' names, sizes and times of change, and of the preparation."""
    digest = hashlib.sha256(f"{_CACHE_VERSION}\n{preparation.key}\n{folder.resolve()}\n".encode())
    for name in files:
        status = (folder / name).stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns} {name}\n".encode())
    return digest.hexdigest()


def _save(path: Path, images: NDArray[np.uint8], reasons: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".npz", delete=False) as file:
        try:
            np.savez(file, images=images, reasons=np.frombuffer(json.dumps(reasons).encode(), np.uint8))
        except BaseException:
            Path(file.name).unlink()
            raise
    os.replace(file.name, path)  # noqa: PTH105 - the name is a string


def _load(path: Path) -> tuple[NDArray[np.uint8], tuple[str, ...]] | None:
    try:
        with path.open("rb") as file, np.load(file) as kept:
            return kept["images"], tuple(json.loads(kept["reasons"].tobytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # cut off or of another make: prepared again and written over


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest


def _by_reason(unusable: Iterable[tuple[str, str]]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in unusable:
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{reason}: {_few(having)}" for reason, having in names.items())
