"""``visavis data list | fetch | info``."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import visavis, visavis_json
from tests.support.data import data_set
from training.data.sources import SETS


def test_list_says_what_is_here(tmp_path: Path) -> None:
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / f"{name}-ubyte.gz").write_bytes(b"")
    lines = visavis("data", "list", "--data-dir", tmp_path).stdout.splitlines()
    assert lines[0].split()[:2] == ["mnist", "here"]
    assert lines[1].split()[:2] == ["omniglot", "-"]
    listed = visavis_json("data", "list", "--data-dir", tmp_path)
    assert [row["name"] for row in listed] == list(SETS)
    assert [row["name"] for row in listed if row["present"]] == ["mnist"]


def test_folder_is_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_DATA", str(tmp_path / "sets"))
    assert f"in {tmp_path / 'sets'};" in visavis("data", "list").stdout


def test_info_shows_terms_digests_and_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "all_runs.zip").write_bytes(b"damaged")
    text = visavis("data", "info", "omniglot", "--data-dir", tmp_path).stdout
    assert "licence  MIT" in text
    assert "different  omniglot/all_runs.zip" in text
    assert "absent     omniglot/images_background.zip" in text
    assert "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640" in text
    answer = visavis_json("data", "info", "omniglot", "--data-dir", tmp_path)
    assert answer["states"]["omniglot/all_runs.zip"] == "different"


def test_info_says_how_to_get_what_has_no_download(tmp_path: Path) -> None:
    text = visavis("data", "info", "celeba_wild", "--data-dir", tmp_path).stdout
    assert "visavis data fetch celeba_wild --from FOLDER" in text


def test_fetch_refuses_a_wrong_file_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"wrong")
    result = visavis("data", "fetch", "mnist", "--from", tmp_path, "--data-dir", tmp_path / "data")
    assert result.exit_code == 1
    assert "train-images-idx3-ubyte.gz has SHA-256" in result.stderr
    assert not (tmp_path / "data").exists()


def test_unknown_set_is_refused() -> None:
    result = visavis("data", "fetch", "mnits")
    assert result.exit_code == 1
    assert "did you mean mnist?" in result.stderr


def test_fetch_copies_a_real_set_and_says_its_terms(tmp_path: Path) -> None:
    source = data_set("text/question_pairs_ko")
    result = visavis("data", "fetch", "questions", "--from", source, "--data-dir", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.count("copied") == 2
    assert "licence: MIT" in result.stdout
    again = visavis("data", "fetch", "questions", "--data-dir", tmp_path)
    assert again.stdout.count("present") == 2


def test_data_needs_no_tensorflow() -> None:
    code = (
        "import sys\nfrom app.cli import main\n"
        "try:\n    main(['data', 'list'])\nexcept SystemExit:\n    print('MODULES', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.partition("MODULES")[2].split())
    assert "training.cli.data" in loaded
    assert not loaded & {"tensorflow", "keras", "onnx", "sklearn", "sqlalchemy", "fastapi"}


def test_readers_need_no_tensorflow() -> None:
    names = ("labelled", "splits", "samplers", "mnist", "omniglot", "folders", "text", "names", "smoke")
    code = "import sys\n" + "".join(f"import training.data.{name}\n" for name in names)
    code += "print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(run.stdout.split()) & {"tensorflow", "keras", "sklearn", "matplotlib"}
