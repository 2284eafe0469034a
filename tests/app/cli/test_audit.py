"""visavis audit: a store, folders, labelled probes; text, JSON, a page; broken off and gone on with."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.encoding.bulk import Embedded, embed_files
from app.services import audit as auditing
from tests.support.cli import visavis, visavis_json
from tests.support.images import angle_png


def enrolled(**degrees: int) -> None:
    """Enrol identities at angles in the default collection."""
    for name, at in degrees.items():
        Path("photo.png").write_bytes(angle_png(at))
        assert visavis("enroll", name, "photo.png").exit_code == 0


def photos(folder: str, **degrees: list[int]) -> Path:
    """Write ``<folder>/<identity>/<number>.png`` at angles."""
    for name, several in degrees.items():
        home = Path(folder) / name
        home.mkdir(parents=True, exist_ok=True)
        for number, at in enumerate(several):
            (home / f"{number}.png").write_bytes(angle_png(at))
    return Path(folder)


PEOPLE = {"ada": [0, 1, 2, 1], "bob": [44, 45, 46, 45], "cy": [88, 89, 90, 89]}


# a collection


def test_person_enrolled_twice_is_found(folder: Path) -> None:
    enrolled(ada=0, bob=45, carol=90, ada_again=1)
    answer = visavis_json("audit")
    likely = [pair for pair in answer["duplicates"] if pair["likely"]]
    assert [pair["identities"] for pair in likely] == [["ada", "ada_again"]]
    assert likely[0]["expected"] == pytest.approx(likely[0]["fmr"] * 6)
    assert answer["groups"] == [["ada", "ada_again"]]
    assert (answer["identities"], answer["identity_pairs"], answer["revision"]) == (4, 6, 4)
    assert answer["collection"] == "default"


def test_text_says_that_one_photo_each_shows_no_mislabel(folder: Path) -> None:
    enrolled(ada=0, bob=45, ada_again=1)
    result = visavis("audit")
    assert result.exit_code == 0
    assert "likely duplicates: 1\n  ada = ada_again  distance 0.01" in result.stdout
    assert "mislabels cannot be found: every identity has one image" in result.stdout


def test_distinct_people_are_left_alone(folder: Path) -> None:
    enrolled(ada=0, bob=45, carol=90)
    result = visavis("audit")
    assert result.exit_code == 0
    assert "likely duplicates: none" in result.stdout


def test_empty_collection_is_audited(folder: Path) -> None:
    visavis("db", "upgrade")
    visavis("collections", "create", "staff")
    answer = visavis_json("audit", "--collection", "staff")
    assert (answer["identities"], answer["comparisons"], answer["duplicates"]) == (0, 0, [])
    assert answer["mislabels"]["note"].startswith("mislabels cannot be found")


def test_probe_under_a_wrong_name_is_found_beside_the_collection(folder: Path) -> None:
    enrolled(ada=0, bob=45, cy=90)
    probes = photos("probes", **{**PEOPLE, "ada": [1, 2, 89]})
    answer = visavis_json("audit", "--probes", probes)
    swapped = answer["mislabels"]["swapped"]
    assert [(Path(one["image"]).as_posix(), one["identity"], one["nearest"]) for one in swapped] == [
        ("probes/ada/2.png", "ada", "cy")
    ]
    assert answer["mislabels"]["note"] is None


def test_wrong_reference_is_told_by_its_probes(folder: Path) -> None:
    enrolled(ada=89, bob=45, cy=90)
    answer = visavis_json("audit", "--probes", photos("probes", **PEOPLE))
    assert [(one["image"], one["identity"], one["nearest"]) for one in answer["mislabels"]["swapped"]] == [
        (None, "ada", "cy")
    ]
    assert "the reference of ada is probably cy" in visavis("audit", "--probes", "probes").stdout


def test_probes_of_somebody_not_enrolled_are_refused(folder: Path) -> None:
    enrolled(ada=0, bob=45)
    result = visavis("audit", "--probes", photos("probes", eve=[10]))
    assert result.exit_code == 1
    assert "probes: 1 folders are named after nobody in the collection, such as 'eve'" in result.stderr


def test_unknown_collection_is_refused(folder: Path) -> None:
    enrolled(ada=0)
    result = visavis("audit", "--collection", "staff")
    assert result.exit_code == 1
    assert "collection_not_found" in result.stderr


# a folder


def test_folder_needs_no_store(folder: Path) -> None:
    answer = visavis_json("audit", "--data", photos("people", **PEOPLE, ada2=[0, 2, 1]))
    assert answer["groups"] == [["ada", "ada2"]]
    assert answer["images"] == 15
    assert not (folder / "visavis.db").exists()


def test_unusable_photo_is_named_and_left_out(folder: Path) -> None:
    people = photos("people", **PEOPLE)
    (people / "bob" / "broken.png").write_bytes(b"no image")
    answer = visavis_json("audit", "--data", people)
    assert answer["images"] == 12
    assert [Path(path).name for path in answer["unusable"]] == ["broken.png"]


def test_page_shows_the_photos_and_needs_nothing_else(folder: Path) -> None:
    people = photos("people", **{**PEOPLE, "<b>eve": [0, 1, 2]})
    result = visavis("audit", "--data", people, "--html", "page.html")
    assert result.exit_code == 0, result.output
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Groups: &lt;b&gt;eve = ada." in page
    assert "<b>eve" not in page
    assert page.count("data:image/jpeg;base64,") >= 6
    addresses = re.findall(r"""(?:src|href)=["']?([^"'>\s]+)""", page)
    assert all(address.startswith(("data:", "#")) for address in addresses)


def test_page_of_a_collection_has_names_only(folder: Path) -> None:
    enrolled(ada=0, bob=45, ada_again=1)
    assert visavis("audit", "--html", "page.html").exit_code == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "ada and ada_again" in page
    assert "data:image" not in page
    assert "Cannot be found here" in page


# state


def test_audit_that_is_broken_off_goes_on_to_the_same_result(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = photos("people", **PEOPLE, ada2=[0, 2, 1])
    unbroken = visavis_json("audit", "--data", people)
    real = embed_files
    made: list[Path] = []

    def few_then_stop(encoder: Any, paths: list[Path], choice: Any, **options: Any) -> Embedded:
        if made:
            raise KeyboardInterrupt
        made.extend(paths)
        return real(encoder, paths, choice, **options)

    monkeypatch.setattr(auditing, "_EMBED_AT_ONCE", 7)
    monkeypatch.setattr(auditing, "embed_files", few_then_stop)
    stopped = visavis("audit", "--data", people, "--state", "state")
    assert stopped.exit_code == 1
    assert "the same command goes on from state" in stopped.stderr
    assert stat.S_IMODE(Path("state").stat().st_mode) == 0o600

    def the_rest(encoder: Any, paths: list[Path], choice: Any, **options: Any) -> Embedded:
        assert not set(paths) & set(made)
        return real(encoder, paths, choice, **options)

    monkeypatch.setattr(auditing, "embed_files", the_rest)
    assert visavis_json("audit", "--data", people, "--state", "state") == unbroken
    # Now nothing is left to do, and the answer is the same again.
    monkeypatch.setattr(auditing, "embed_files", None)
    monkeypatch.setattr("app.matching.pair_scan.PairScan.step", None)
    assert visavis_json("audit", "--data", people, "--state", "state") == unbroken


def test_photo_that_changed_is_embedded_anew(folder: Path) -> None:
    people = photos("people", **PEOPLE)
    assert visavis_json("audit", "--data", people, "--state", "state")["groups"] == []
    shutil.rmtree(people / "cy")
    photos("people", cy=[0, 1, 1, 2])
    result = visavis("audit", "--data", people, "--state", "state")
    assert "comparing anew" in result.stderr
    assert "ada = cy" in result.stdout


def test_collection_that_changed_is_compared_anew(folder: Path) -> None:
    enrolled(ada=0, bob=45)
    assert visavis_json("audit", "--state", "state")["identities"] == 2
    with np.load("state") as arrays:
        assert "embedded_rows" not in arrays.files  # templates of the collection stay in the store
    enrolled(carol=90)
    assert visavis_json("audit", "--state", "state")["identities"] == 3


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04 cut off"])
def test_file_that_is_no_state_is_refused_and_kept(folder: Path, content: bytes) -> None:
    enrolled(ada=0, bob=45)
    Path("state").write_bytes(content)
    result = visavis("audit", "--state", "state")
    assert result.exit_code == 1
    assert "state: state cannot be read as the state of an audit" in result.stderr
    assert Path("state").read_bytes() == content


def test_npz_of_something_else_is_refused_and_kept(folder: Path) -> None:
    enrolled(ada=0, bob=45)
    np.savez("other.npz", embeddings=np.zeros(3))
    before = Path("other.npz").read_bytes()
    result = visavis("audit", "--state", "other.npz")
    assert result.exit_code == 1
    assert "state: other.npz is not the state of an audit" in result.stderr
    assert Path("other.npz").read_bytes() == before


# wrong usage


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--data", "people", "--collection", "x"), "without a collection"),
        (("--data", "people", "--probes", "people"), "without a collection"),
        (("--model", "angles"), "--model goes with --data"),
        (("--data", "nowhere"), "does not exist"),
    ],
    ids=["both", "probes", "model", "missing"],
)
def test_options_that_contradict_are_wrong_usage(
    folder: Path, options: tuple[str, ...], problem: str
) -> None:
    photos("people", **PEOPLE)
    result = visavis("audit", *options)
    assert result.exit_code == 2
    assert problem in result.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--html", "no/page.html"), "html: there is no folder no"),
        (("--state", "no/state"), "state: there is no folder no"),
        (("--data", "empty"), "data: empty holds no images as <identity>/<image>"),
    ],
    ids=["html", "state", "empty"],
)
def test_refusal_names_the_option(folder: Path, options: tuple[str, ...], problem: str) -> None:
    Path("empty").mkdir()
    enrolled(ada=0)
    result = visavis("audit", *options)
    assert result.exit_code == 1
    assert problem in result.stderr
