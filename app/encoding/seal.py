"""Seal a bundle: ``SHA256SUMS`` lists the digest of every file in the folder, the manifest's included.

The format is that of coreutils' ``sha256sum``, so ``sha256sum -c SHA256SUMS`` checks a bundle without
Visavis. The first line, a comment to that command, holds the digest of all lines after it. So a damaged list
is told from a damaged file, and the one that is named is the one to restore.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from app.errors import BundleError

SEAL_NAME = "SHA256SUMS"
SIGNATURE_NAME = "SHA256SUMS.sig"
UNSEALED = frozenset({SEAL_NAME, SIGNATURE_NAME})
"""Files that the seal does not list: itself, and the signature over it."""

RESEAL = "python -m training.refresh_bundle PATH"
"""Command that writes golden pairs, manifest and seal of a bundle anew."""

_HEAD = "# SHA-256 of the lines below: "
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\x00-\x1f]+)")


@dataclass(frozen=True)
class Seal:
    """What ``SHA256SUMS`` says.

    Attributes:
        content: The file's bytes, which a signature is over.
        digests: Hex SHA-256 by file name.
    """

    content: bytes
    digests: dict[str, str]


def write_seal(folder: Path) -> None:
    """Write ``SHA256SUMS`` over the files of a bundle as they are now; the last step of whoever writes one.

    A signature over other bytes is removed: it would be refused.

    Raises:
        BundleError: Something in the folder cannot be part of a bundle; the message names it.
    """
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name in UNSEALED:
            continue
        if not path.is_file() or path.name.startswith(".") or not _LINE.fullmatch(f"{'0' * 64}  {path.name}"):
            raise BundleError(
                f"{folder.name}/{path.name} cannot be part of a bundle (plain visible files only): remove it"
            )
        lines.append(f"{_sha256(path)}  {path.name}\n")
    content = _with_head("".join(lines))
    seal = folder / SEAL_NAME
    if not seal.is_file() or seal.read_bytes() != content:
        seal.write_bytes(content)
        (folder / SIGNATURE_NAME).unlink(missing_ok=True)


def read_seal(folder: Path) -> Seal:
    """Read ``SHA256SUMS``; the files it lists are not looked at.

    Raises:
        BundleError: It is missing, or not as it was written; the message names it.
    """
    name = f"{folder.name}/{SEAL_NAME}"
    path = folder / SEAL_NAME
    if not path.is_file():
        raise BundleError(
            f"{name} is missing: the bundle is not sealed. Fetch it again or, if it is yours and sound, "
            f"seal it with '{RESEAL}'"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from error
    _, _, listed = content.partition(b"\n")
    if content != _with_head(listed.decode("utf-8", "replace")):
        raise BundleError(f"{name} is altered: its first line is not the digest of the lines below it")
    digests = {}
    for line in listed.decode("utf-8").removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in digests or match[2] in UNSEALED:
            raise BundleError(f"{name}: no such line is wanted: {line!r}")
        digests[match[2]] = match[1]
    return Seal(content, digests)


def check_files(folder: Path, seal: Seal) -> None:
    """Compare every file of the folder with the seal, and the seal with what is there.

    Raises:
        BundleError: A file is missing, altered, or not listed; the message names it.
    """
    for name, sealed in sorted(seal.digests.items()):
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder.name}/{name} is missing")
        try:
            digest = _sha256(path)
        except OSError as error:
            raise BundleError(f"{folder.name}/{name} cannot be read: {error.strerror}") from error
        if digest != sealed:
            raise BundleError(f"{folder.name}/{name} is altered: sha256 {digest}, {SEAL_NAME} says {sealed}")
    extra = sorted({path.name for path in folder.iterdir()} - set(seal.digests) - UNSEALED)
    if extra:
        raise BundleError(
            f"{folder.name}/{extra[0]} is not listed in {SEAL_NAME}: remove it, or seal the bundle anew with "
            f"'{RESEAL}'"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _with_head(lines: str) -> bytes:
    listed = lines.encode()
    return f"{_HEAD}{hashlib.sha256(listed).hexdigest()}\n".encode() + listed
