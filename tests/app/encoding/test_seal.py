"""The seal lists every file of a bundle, and whatever is not as it says is named."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from app.encoding.seal import SEAL_NAME, SIGNATURE_NAME, check_files, read_seal, write_seal
from app.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small files, sealed."""
    made = tmp_path / "small"
    made.mkdir()
    (made / "b.bin").write_bytes(b"\x00\xff\n")
    (made / "a.txt").write_text("a\n")
    write_seal(made)
    return made


def check(folder: Path) -> None:
    check_files(folder, read_seal(folder))


def test_seal_is_a_digest_of_the_list_and_then_each_file_by_name(folder: Path) -> None:
    first, second = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("a.txt", "b.bin"))
    listed = f"{first}  a.txt\n{second}  b.bin\n"
    head = f"# SHA-256 of the lines below: {hashlib.sha256(listed.encode()).hexdigest()}\n"
    assert (folder / SEAL_NAME).read_text() == head + listed
    assert read_seal(folder).digests == {"a.txt": first, "b.bin": second}
    check(folder)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not here")
def test_coreutils_check_a_seal(folder: Path) -> None:
    command = ("sha256sum", "--check", "--strict", SEAL_NAME)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "a.txt: OK\nb.bin: OK\n"
    (folder / "a.txt").write_text("b\n")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a.txt: FAILED" in done.stdout


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_of_the_seal_is_said_to_be_the_seals(folder: Path, bit: int) -> None:
    sound = (folder / SEAL_NAME).read_bytes()
    for place in range(len(sound)):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << bit
        (folder / SEAL_NAME).write_bytes(damaged)
        with pytest.raises(BundleError, match=r"^small/SHA256SUMS is altered: "):
            check(folder)


@pytest.mark.parametrize("length", [0, 1, 93, 94, 100])
def test_seal_cut_short_is_said_to_be_the_seals(folder: Path, length: int) -> None:
    (folder / SEAL_NAME).write_bytes((folder / SEAL_NAME).read_bytes()[:length])
    with pytest.raises(BundleError, match=r"^small/SHA256SUMS"):
        check(folder)


def test_missing_seal_says_how_to_make_one(folder: Path) -> None:
    (folder / SEAL_NAME).unlink()
    with pytest.raises(
        BundleError, match=r"^small/SHA256SUMS is missing: .*'python -m training\.refresh_bundle"
    ):
        check(folder)


@pytest.mark.parametrize(
    "line", ["", "a.txt", f"{'0' * 64} a.txt", f"{'0' * 64}  ../a.txt", f"{'0' * 64}  SHA256SUMS", "twice"]
)
def test_line_that_names_no_file_of_the_bundle_is_refused(folder: Path, line: str) -> None:
    listed = (folder / SEAL_NAME).read_text().partition("\n")[2]
    listed += (listed.partition("\n")[0] if line == "twice" else line) + "\n"
    head = f"# SHA-256 of the lines below: {hashlib.sha256(listed.encode()).hexdigest()}\n"
    (folder / SEAL_NAME).write_text(head + listed)
    with pytest.raises(BundleError, match=r"^small/SHA256SUMS: no such line is wanted"):
        check(folder)


@pytest.mark.parametrize("name", ["notes.txt", ".DS_Store", "a.txt~"])
def test_file_that_is_not_listed_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text("mine")
    with pytest.raises(BundleError, match=rf"^small/{name} is not listed in SHA256SUMS: remove it"):
        check(folder)


def test_folder_that_is_not_listed_is_named(folder: Path) -> None:
    (folder / "old").mkdir()
    with pytest.raises(BundleError, match=r"^small/old is not listed"):
        check(folder)


@pytest.mark.parametrize("name", [".hidden", "two\nlines", "back\\slash"])
def test_file_that_cannot_be_listed_is_refused_when_sealing(folder: Path, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(BundleError, match=r"(?s)^small/.* cannot be part of a bundle .*remove it"):
        write_seal(folder)


def test_folder_within_is_refused_when_sealing(folder: Path) -> None:
    (folder / "plots").mkdir()
    with pytest.raises(BundleError, match=r"^small/plots cannot be part of a bundle"):
        write_seal(folder)


def test_new_seal_removes_the_signature_of_the_old_one(folder: Path) -> None:
    (folder / SIGNATURE_NAME).write_text("of the old one")
    write_seal(folder)
    assert (folder / SIGNATURE_NAME).exists(), "the same seal keeps its signature"
    (folder / "a.txt").write_text("b\n")
    write_seal(folder)
    assert not (folder / SIGNATURE_NAME).exists()
    check(folder)
