"""Bring a public data set to the folder of data sets: from its home or from a copy, by pinned digests.

Nothing is used before its digest is right, and nothing half done is ever found under a final name: files and
folders are made under a temporary name beside it and renamed. A download that broke off goes on where it was.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Final, Literal

from app import __version__
from training.data.errors import DataError, MissingDataError
from training.data.sources import DataSet, PinnedFile, PinnedFolder

TIMEOUT_S: Final = 30.0
"""Longest silence of a server."""
_PIECE: Final = 2**20
"""Bytes read at once."""

State = Literal["present", "absent", "different"]
Progress = Callable[[int, str], AbstractContextManager[Callable[[int], None]]]
"""Begins a bar: total bytes and label to a function that takes how many more are done."""


@contextmanager
def no_progress(_total: int, _label: str) -> Iterator[Callable[[int], None]]:
    """Show nothing."""
    yield lambda _: None


def present(known: DataSet, data_dir: Path) -> bool:
    """Return whether every file and folder of a set is there, without reading any."""
    return all(
        (data_dir / file.path).is_file() and (file.unpack is None or _unpacked(file, data_dir).is_dir())
        for file in known.files
    ) and all((data_dir / folder.path).is_dir() for folder in known.folders)


def states(known: DataSet, data_dir: Path) -> dict[str, State]:
    """Return for every file and folder of a set whether it is there with the right digest."""
    found: dict[str, State] = {}
    for file in known.files:
        path = data_dir / file.path
        found[file.path] = (
            "absent" if not path.is_file() else "present" if sha256_of(path) in file.sha256 else "different"
        )
        if file.unpack is not None:
            there = _unpacked(file, data_dir).is_dir()
            found[_unpacked(file, data_dir).relative_to(data_dir).as_posix()] = (
                "present" if there else "absent"
            )
    for folder in known.folders:
        path = data_dir / folder.path
        right = path.is_dir() and digest_of_folder(path, folder.pattern) == (folder.files, folder.sha256)
        found[folder.path] = "present" if right else "different" if path.is_dir() else "absent"
    return found


def fetch(
    known: DataSet, data_dir: Path, *, source: Path | None = None, progress: Progress = no_progress
) -> dict[str, str]:
    """Bring every file and folder of a set to the folder of data sets, unless it is there and right.

    A file that is there and different is replaced; a folder is not.

    Args:
        known: The set.
        data_dir: Folder of data sets; made if need be, not written to when all is there.
        source: A file, or a folder that holds the files by name at any depth; None downloads.
        progress: Begins a bar for each file.

    Returns:
        Path below the folder of data sets, and what was done: ``present``, ``copied``, ``downloaded`` or
        ``unpacked``.

    Raises:
        MissingDataError: The source has no such file, or there is nowhere to download from.
        DataError: A digest is not the pinned one, a download failed, or nothing can be written.
    """
    done: dict[str, str] = {}
    state = states(known, data_dir)
    try:
        for file in known.files:
            done[file.path] = "present"
            if state[file.path] != "present":
                done[file.path] = _fetch_file(known, file, data_dir, source, progress)
            if file.unpack is not None:
                target = _unpacked(file, data_dir)
                there = target.is_dir()
                if not there:
                    _unpack(data_dir / file.path, target)
                done[target.relative_to(data_dir).as_posix()] = "present" if there else "unpacked"
        for folder in known.folders:
            done[folder.path] = "present"
            if state[folder.path] != "present":
                done[folder.path] = _fetch_folder(known, folder, data_dir, source, progress)
    except OSError as error:
        raise DataError(f"{error.filename or data_dir}: {error.strerror or error}") from error
    return done


def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_folder(folder: Path, pattern: str) -> tuple[int, str]:
    """Return how many files below a folder match, and the digest that ``PinnedFolder`` describes."""
    matching = re.compile(pattern)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in names if matching.fullmatch(name)]
    return len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()


# --- files -------------------------------------------------------------------------------------------------


def _fetch_file(
    known: DataSet, file: PinnedFile, data_dir: Path, source: Path | None, progress: Progress
) -> str:
    target = data_dir / file.path
    if source is not None:
        copy = _find_file(source, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target) as temporary:
            shutil.copyfile(copy, temporary)
            _check(temporary, file.sha256, str(copy))  # what was copied, not what was looked at
            temporary.replace(target)
        return "copied"
    if not file.urls:
        raise MissingDataError(f"{file.name} has no download. {known.by_hand}")
    _download(file.urls, target, file.sha256, known.name, progress)
    return "downloaded"


def _find_file(source: Path, file: PinnedFile) -> Path:
    """Return the file of that name in the source whose digest is right.

    Raises:
        MissingDataError: There is no file of that name.
        DataError: All of them have other digests.
    """
    found = _named(source, file.name, Path.is_file)
    if not found:
        raise MissingDataError(f"{source} has no file {file.name}")
    for path in found:
        if sha256_of(path) in file.sha256:
            return path
    raise DataError(_mismatch(str(found[0]), sha256_of(found[0]), file.sha256))


def _named(source: Path, name: str, kind: Callable[[Path], bool]) -> list[Path]:
    """Return what has that name: the source itself, or anything below it."""
    if not source.exists():
        raise MissingDataError(f"{source} is not there")
    if source.name == name and kind(source):
        return [source]
    return sorted(path for path in source.rglob(name) if kind(path)) if source.is_dir() else []


def _check(path: Path, accepted: tuple[str, ...], origin: str) -> None:
    found = sha256_of(path)
    if found not in accepted:
        raise DataError(_mismatch(origin, found, accepted))


def _mismatch(origin: str, found: str, accepted: tuple[str, ...]) -> str:
    return f"{origin} has SHA-256 {found}, and {' or '.join(accepted)} is wanted; it was not used"


# --- folders -----------------------------------------------------------------------------------------------


def _fetch_folder(
    known: DataSet, folder: PinnedFolder, data_dir: Path, source: Path | None, progress: Progress
) -> str:
    target = data_dir / folder.path
    if target.exists():
        raise DataError(f"{target} is there with other contents; move it away to fetch {known.name}")
    if source is not None:
        found = _named(source, folder.name, Path.is_dir)
        archives = _named(source, folder.archive, Path.is_file) if folder.archive else []
        if not found and not archives:
            also = f" and no file {folder.archive}" if folder.archive else ""
            raise MissingDataError(f"{source} has no folder {folder.name}{also}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _beside(target, folder=True) as temporary:
            if found:
                _copy_folder(found[0], temporary, folder.pattern)
            else:
                _extract(archives[0], temporary, folder.pattern)
            _settle(folder, temporary, target, str((found or archives)[0]))
        return "copied"
    if not folder.urls:
        raise MissingDataError(f"{folder.name} has no download. {known.by_hand}")
    packed = target.parent / f".{folder.archive}"
    _download(folder.urls, packed, None, known.name, progress)
    try:
        with _beside(target, folder=True) as temporary:
            _extract(packed, temporary, folder.pattern)
            _settle(folder, temporary, target, folder.urls[0])
    finally:
        packed.unlink()
    return "downloaded"


def _copy_folder(source: Path, target: Path, pattern: str) -> None:
    matching = re.compile(pattern)
    for path in source.rglob("*"):
        name = path.relative_to(source)
        if path.is_file() and matching.fullmatch(name.as_posix()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


def _extract(archive: Path, target: Path, pattern: str) -> None:
    """Write the members of a zip file that match, at any depth of it."""
    matching = re.compile(rf"(?:.*/)?({pattern})")
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                if match := matching.fullmatch(member):
                    path = target / match[1]
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(opened.read(member))
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive} is no zip file, or damaged: {error}") from error


def _settle(folder: PinnedFolder, temporary: Path, target: Path, origin: str) -> None:
    files, found = digest_of_folder(temporary, folder.pattern)
    if files != folder.files:
        raise DataError(f"{origin} has {files} files like {folder.pattern} and {folder.files} are wanted")
    if found != folder.sha256:
        raise DataError(_mismatch(f"the whole of {origin}", found, (folder.sha256,)))
    temporary.rename(target)


def _unpacked(file: PinnedFile, data_dir: Path) -> Path:
    return (data_dir / file.path).parent / str(file.unpack)


def _unpack(archive: Path, target: Path) -> None:
    """Unpack the folder of the target's name from a tar archive."""
    with _beside(target, folder=True) as temporary:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(temporary, filter="data")
        except tarfile.TarError as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from error
        if not (temporary / target.name).is_dir():
            raise DataError(f"{archive} has no folder {target.name}")
        (temporary / target.name).rename(target)


@contextmanager
def _beside(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a new temporary file or folder next to the target; it is gone afterwards unless renamed."""
    parent, prefix = target.parent, f".{target.name}-"
    if folder:
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        temporary.chmod(0o755)
    else:
        handle, name = tempfile.mkstemp(dir=parent, prefix=prefix)
        os.close(handle)
        temporary = Path(name)
        temporary.chmod(0o644)
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


# --- downloads ---------------------------------------------------------------------------------------------


def _download(
    urls: tuple[str, ...], target: Path, accepted: tuple[str, ...] | None, name: str, progress: Progress
) -> None:
    """Download from the first address that works, and go on with what an earlier try left.

    Args:
        urls: Addresses of the same file.
        target: Where it goes; what is there already under ``.part`` is continued.
        accepted: Digests; None leaves the check to the caller.
        name: The set, for messages.
        progress: Begins a bar.

    Raises:
        DataError: No address gave the file; the message has each with its reason.
    """
    part = target.with_name(f".{target.name.lstrip('.')}.part")
    problems = []
    for url in urls:
        try:
            _receive(url, part, target.name, progress)
            if accepted is not None:
                _check(part, accepted, url)
            part.replace(target)
        except (OSError, http.client.HTTPException) as error:
            problems.append(f"{url}: {str(error) or type(error).__name__}")
        except DataError as error:
            part.unlink()
            problems.append(str(error))
        else:
            return
    raise DataError(
        f"{target.name} could not be downloaded: {'; '.join(problems)}. With a copy: "
        f"visavis data fetch {name} --from FOLDER"
    )


def _receive(url: str, part: Path, label: str, progress: Progress) -> None:
    """Append the rest of a file to what is there of it, or write it anew if the server sends all of it."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": f"visavis/{__version__}"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - addresses come from the table of sets
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to send; the digest decides
        raise
    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        stated = response.headers.get("Content-Length", "")
        length = int(stated) if stated.isdecimal() else 0
        have = have if goes_on else 0
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab" if goes_on else "wb") as file, progress(have + length, label) as update:
            update(have)
            _copy(response, file, update)
            if length and file.tell() < have + length:
                raise http.client.IncompleteRead(b"", have + length - file.tell())


def _copy(response: IO[bytes], file: IO[bytes], update: Callable[[int], None]) -> None:
    while piece := response.read(_PIECE):
        file.write(piece)
        update(len(piece))
