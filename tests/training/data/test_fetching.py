"""Data sets from a copy and from a server: only right bytes arrive, whole, and once."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.data import data_set
from tests.support.file_server import FileServer, file_server
from training.data.errors import DataError, MissingDataError
from training.data.fetching import digest_of_folder, fetch, present, states
from training.data.sources import SETS, DataSet, PinnedFile, PinnedFolder, find_set

CONTENTS = bytes(range(256)) * 40


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def one_file(*urls: str, contents: bytes = CONTENTS, unpack: str | None = None) -> DataSet:
    """Return a set of the file ``kind/set.bin``."""
    return DataSet(
        name="made",
        title="made up",
        licence="none",
        use="tests",
        home="",
        origin="",
        files=(PinnedFile("kind/set.bin", ("0" * 64, sha256(contents)), urls, unpack=unpack),),
        by_hand="Ask its authors.",
    )


def one_folder(*urls: str, archive: str | None = None) -> DataSet:
    """Return a set of the folder ``kind/people`` with ``a/1.txt`` and ``b/1.txt``, each its letter."""
    lines = f"{sha256(b'a')}  a/1.txt\n{sha256(b'b')}  b/1.txt\n"
    folder = PinnedFolder("kind/people", r"\w/\d\.txt", 2, sha256(lines.encode()), archive, urls)
    return DataSet("made", "made up", "none", "tests", "", "", folders=(folder,), by_hand="Ask.")


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as served:
        yield served


# --- from a copy -------------------------------------------------------------------------------------------


def test_file_is_found_by_name_at_any_depth_of_the_source(data_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "deep" / "down" / "set.bin"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(CONTENTS)
    assert fetch(one_file(), data_dir, source=tmp_path / "copy") == {"kind/set.bin": "copied"}
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}


def test_source_may_be_the_file_itself(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "set.bin").write_bytes(CONTENTS)
    assert fetch(one_file(), data_dir, source=tmp_path / "set.bin") == {"kind/set.bin": "copied"}


def test_file_of_another_digest_is_refused_with_its_name_and_both_digests(
    data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "set.bin").write_bytes(b"other")
    with pytest.raises(DataError) as refused:
        fetch(one_file(), data_dir, source=tmp_path)
    message = str(refused.value)
    assert str(tmp_path / "set.bin") in message
    assert sha256(b"other") in message
    assert sha256(CONTENTS) in message
    assert not data_dir.exists()


def test_the_right_one_of_two_files_of_a_name_is_taken(data_dir: Path, tmp_path: Path) -> None:
    for name, contents in (("a", b"other"), ("b", CONTENTS)):
        (tmp_path / "copy" / name).mkdir(parents=True)
        (tmp_path / "copy" / name / "set.bin").write_bytes(contents)
    fetch(one_file(), data_dir, source=tmp_path / "copy")
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}


def test_source_without_the_file_is_refused_by_name(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"has no file set\.bin"):
        fetch(one_file(), data_dir, source=tmp_path)
    with pytest.raises(MissingDataError, match="absent is not there"):
        fetch(one_file(), data_dir, source=tmp_path / "absent")


def test_what_is_there_and_right_is_left_alone(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "kind").mkdir(parents=True)
    (data_dir / "kind" / "set.bin").write_bytes(CONTENTS)
    for folder in (data_dir / "kind", data_dir):
        folder.chmod(0o555)
    before = (data_dir / "kind" / "set.bin").stat().st_mtime_ns
    assert fetch(one_file(), data_dir, source=tmp_path) == {"kind/set.bin": "present"}
    assert fetch(one_file("http://127.0.0.1:9/never"), data_dir) == {"kind/set.bin": "present"}
    assert (data_dir / "kind" / "set.bin").stat().st_mtime_ns == before
    (data_dir / "kind").chmod(0o755)
    data_dir.chmod(0o755)


def test_damaged_file_is_replaced(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "kind").mkdir(parents=True)
    (data_dir / "kind" / "set.bin").write_bytes(b"cut o")
    (tmp_path / "set.bin").write_bytes(CONTENTS)
    assert states(one_file(), data_dir) == {"kind/set.bin": "different"}
    assert fetch(one_file(), data_dir, source=tmp_path / "set.bin") == {"kind/set.bin": "copied"}
    assert states(one_file(), data_dir) == {"kind/set.bin": "present"}


def test_folder_is_copied_without_files_that_do_not_belong(data_dir: Path, tmp_path: Path) -> None:
    for name, text in (("a/1.txt", "a"), ("b/1.txt", "b"), ("README", "c"), ("a/note.md", "d")):
        path = tmp_path / "copy" / "people" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert fetch(one_folder(), data_dir, source=tmp_path / "copy") == {"kind/people": "copied"}
    assert tree(data_dir) == {"kind/people/a/1.txt": b"a", "kind/people/b/1.txt": b"b"}
    assert present(one_folder(), data_dir)
    assert digest_of_folder(data_dir / "kind" / "people", r".*")[0] == 2


@pytest.mark.parametrize(
    ("text", "reason"), [("x", "SHA-256 .* is wanted"), (None, "has 1 files .* and 2 are wanted")]
)
def test_folder_of_other_contents_is_refused(
    data_dir: Path, tmp_path: Path, text: str | None, reason: str
) -> None:
    for name, letter in (("a", "a"), ("b", text)):
        (tmp_path / "people" / name).mkdir(parents=True)
        if letter is not None:
            (tmp_path / "people" / name / "1.txt").write_text(letter)
    with pytest.raises(DataError, match=reason):
        fetch(one_folder(), data_dir, source=tmp_path)
    assert tree(data_dir) == {}


def test_folder_in_the_way_is_not_replaced(data_dir: Path, tmp_path: Path) -> None:
    (data_dir / "kind" / "people" / "c").mkdir(parents=True)
    (data_dir / "kind" / "people" / "c" / "1.txt").write_text("mine")
    with pytest.raises(DataError, match="is there with other contents; move it away"):
        fetch(one_folder(), data_dir, source=tmp_path)
    assert tree(data_dir) == {"kind/people/c/1.txt": b"mine"}


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_folder_is_taken_out_of_its_archive_too(data_dir: Path, tmp_path: Path) -> None:
    members = {"top/a/1.txt": "a", "top/b/1.txt": "b", "top/README": "c"}
    (tmp_path / "people.zip").write_bytes(zipped(members))
    known = one_folder(archive="people.zip")
    assert fetch(known, data_dir, source=tmp_path) == {"kind/people": "copied"}
    assert tree(data_dir) == {"kind/people/a/1.txt": b"a", "kind/people/b/1.txt": b"b"}


def test_archive_is_unpacked_beside_itself_and_again_if_the_folder_went(
    data_dir: Path, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("photos/Ada/Ada_0001.jpg")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"jpg"))
    (tmp_path / "set.bin").write_bytes(buffer.getvalue())
    known = one_file(contents=buffer.getvalue(), unpack="photos")
    done = fetch(known, data_dir, source=tmp_path / "set.bin")
    assert done == {"kind/set.bin": "copied", "kind/photos": "unpacked"}
    photo = data_dir / "kind" / "photos" / "Ada" / "Ada_0001.jpg"
    assert photo.read_bytes() == b"jpg"
    photo.unlink()
    photo.parent.rmdir()
    photo.parent.parent.rmdir()
    assert not present(known, data_dir)
    assert fetch(known, data_dir) == {"kind/set.bin": "present", "kind/photos": "unpacked"}
    assert present(known, data_dir)
    assert set(tree(data_dir)) == {"kind/set.bin", "kind/photos/Ada/Ada_0001.jpg"}


def test_archive_that_would_write_outside_is_refused(data_dir: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../outside.txt"))
    (tmp_path / "set.bin").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="cannot be unpacked"):
        fetch(one_file(contents=buffer.getvalue(), unpack="photos"), data_dir, source=tmp_path / "set.bin")
    assert not (data_dir / "outside.txt").exists()
    assert set(tree(data_dir)) == {"kind/set.bin"}


# --- downloads ---------------------------------------------------------------------------------------------


def test_file_is_downloaded_once(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    known = one_file(f"{server.address}/set.bin")
    assert fetch(known, data_dir) == {"kind/set.bin": "downloaded"}
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}
    assert fetch(known, data_dir) == {"kind/set.bin": "present"}
    assert server.requests == [("/set.bin", "")]


def test_next_address_is_tried_when_one_fails(data_dir: Path, server: FileServer) -> None:
    server.files.update({"/wrong": b"rubbish", "/right": CONTENTS})
    addresses = [f"{server.address}/{name}" for name in ("gone", "wrong", "right")]
    assert fetch(one_file(*addresses), data_dir) == {"kind/set.bin": "downloaded"}
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}


def test_failed_download_names_every_address_and_leaves_nothing(data_dir: Path, server: FileServer) -> None:
    server.files["/wrong"] = b"rubbish"
    addresses = [f"{server.address}/{name}" for name in ("gone", "wrong")]
    with pytest.raises(DataError) as refused:
        fetch(one_file(*addresses), data_dir)
    message = str(refused.value)
    assert f"{addresses[0]}: HTTP Error 404" in message
    assert f"{addresses[1]} has SHA-256 {sha256(b'rubbish')}" in message
    assert "visavis data fetch made --from FOLDER" in message
    assert tree(data_dir) == {}


def test_server_that_is_not_there_is_an_error_and_makes_no_folder(data_dir: Path, server: FileServer) -> None:
    address = server.address
    with file_server() as gone:
        address = gone.address
    with pytest.raises(DataError, match="Connection refused"):
        fetch(one_file(f"{address}/set.bin"), data_dir)
    assert not data_dir.exists()


def test_download_that_broke_off_goes_on_where_it_was(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    server.break_after = 1000
    known = one_file(f"{server.address}/set.bin")
    with pytest.raises(DataError, match="IncompleteRead"):
        fetch(known, data_dir)
    assert tree(data_dir) == {"kind/.set.bin.part": CONTENTS[:1000]}
    server.break_after = None
    assert fetch(known, data_dir) == {"kind/set.bin": "downloaded"}
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}
    assert server.requests == [("/set.bin", ""), ("/set.bin", "bytes=1000-")]


def test_server_without_ranges_sends_it_all_again(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    server.ranges = False
    (data_dir / "kind").mkdir(parents=True)
    (data_dir / "kind" / ".set.bin.part").write_bytes(b"something else")
    fetch(one_file(f"{server.address}/set.bin"), data_dir)
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}


def test_complete_part_needs_no_more_bytes(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    (data_dir / "kind").mkdir(parents=True)
    (data_dir / "kind" / ".set.bin.part").write_bytes(CONTENTS)
    assert fetch(one_file(f"{server.address}/set.bin"), data_dir) == {"kind/set.bin": "downloaded"}
    assert tree(data_dir) == {"kind/set.bin": CONTENTS}


def test_part_of_another_file_is_thrown_away(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    (data_dir / "kind").mkdir(parents=True)
    (data_dir / "kind" / ".set.bin.part").write_bytes(b"something else")
    known = one_file(f"{server.address}/set.bin")
    with pytest.raises(DataError, match="is wanted"):
        fetch(known, data_dir)
    assert tree(data_dir) == {}
    assert fetch(known, data_dir) == {"kind/set.bin": "downloaded"}


def test_progress_counts_every_byte(data_dir: Path, server: FileServer) -> None:
    server.files["/set.bin"] = CONTENTS
    begun: list[tuple[int, str]] = []
    counted: list[int] = []

    @contextmanager
    def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
        begun.append((total, label))
        yield counted.append

    fetch(one_file(f"{server.address}/set.bin"), data_dir, progress=progress)
    assert begun == [(len(CONTENTS), "set.bin")]
    assert sum(counted) == len(CONTENTS)


def test_folder_is_downloaded_as_an_archive_that_does_not_stay(data_dir: Path, server: FileServer) -> None:
    server.files["/people.zip"] = zipped({"a/1.txt": "a", "b/1.txt": "b"})
    known = one_folder(f"{server.address}/people.zip", archive="people.zip")
    assert fetch(known, data_dir) == {"kind/people": "downloaded"}
    assert tree(data_dir) == {"kind/people/a/1.txt": b"a", "kind/people/b/1.txt": b"b"}


def test_archive_that_is_none_is_refused(data_dir: Path, server: FileServer) -> None:
    server.files["/people.zip"] = b"an error page"
    with pytest.raises(DataError, match="is no zip file"):
        fetch(one_folder(f"{server.address}/people.zip", archive="people.zip"), data_dir)
    assert tree(data_dir) == {}


def test_set_without_a_download_says_what_to_do(data_dir: Path) -> None:
    with pytest.raises(MissingDataError, match=r"set\.bin has no download. Ask its authors\."):
        fetch(one_file(), data_dir)
    with pytest.raises(MissingDataError, match=r"people has no download. Ask\."):
        fetch(one_folder(), data_dir)


# --- the table ---------------------------------------------------------------------------------------------


def test_every_set_is_pinned_and_can_be_got() -> None:
    for name, known in SETS.items():
        assert known.name == name
        assert known.files or known.folders
        assert known.licence
        assert known.use
        items: list[PinnedFile | PinnedFolder] = [*known.files, *known.folders]
        for item in items:
            assert item.urls or f"visavis data fetch {name} --from" in known.by_hand
            assert all(url.startswith("https://") for url in item.urls)
        digests = [digest for file in known.files for digest in file.sha256]
        digests += [folder.sha256 for folder in known.folders]
        assert len(set(digests)) == len(digests)
        assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)


def test_misspelt_set_is_refused_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="no data set 'omnigloth'; did you mean omniglot"):
        find_set("omnigloth")


@pytest.mark.parametrize("name", [name for name in SETS if name != "lfw"])
def test_real_files_have_the_pinned_digests(name: str) -> None:
    known = SETS[name]
    items: list[PinnedFile | PinnedFolder] = [*known.files, *known.folders]
    paths = [item.path for item in items]
    folder = data_set(paths[0])
    assert states(known, folder) == dict.fromkeys(paths, "present")
