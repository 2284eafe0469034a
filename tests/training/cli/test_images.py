"""``visavis train images --data FOLDER``: what it refuses and chooses, and that its bundle is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.encoding.manifest import Manifest
from tests.support.cli import visavis
from tests.support.folders import written
from tests.support.service import serving, settings_for
from training.cli.train import configured
from training.data.smoke import drawn_characters

QUICK = (
    "loop.steps=240",
    "loop.epoch=120",
    "encoder.stem=8",
    "encoder.widths=[16,32,48]",
    "encoder.blocks=[1,1,1]",
    "encoder.dimensions=32",
)


@pytest.fixture
def characters(tmp_path: Path) -> Path:
    """Thirty drawn characters, four images each."""
    return written(tmp_path / "characters", drawn_characters(30, 4, 28, seed=1))


def test_without_a_folder_the_recipe_says_what_it_needs() -> None:
    result = visavis("train", "images")
    assert result.exit_code == 1
    assert "recipe images needs your data: --data FOLDER" in result.stderr


def test_a_small_folder_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    folder = written(tmp_path / "few", drawn_characters(27, 2, 16, seed=1))
    result = visavis("train", "images", "--data", folder, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "has 27 subjects with two images or more; at least 28 are needed: 10 to train on" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_picture_under_two_subjects_is_refused_by_name(characters: Path, tmp_path: Path) -> None:
    homes = sorted(characters.iterdir())
    (homes[5] / "copy.png").write_bytes((homes[0] / "0000.png").read_bytes())
    result = visavis("train", "images", "--data", characters, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "the same picture is under two subjects, 1 times" in result.stderr
    assert f"{homes[0].name}/0000.png = {homes[5].name}/copy.png" in result.stderr


def test_too_many_unreadable_files_are_refused_and_listed(characters: Path, tmp_path: Path) -> None:
    for home in sorted(characters.iterdir())[:15]:
        (home / "broken.png").write_bytes(b"no image")
    result = visavis("train", "images", "--data", characters, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "15 of 135 files cannot be used" in result.stderr
    assert "drawn00-character000/broken.png" in result.stderr


def test_settings_follow_from_the_folder(characters: Path) -> None:
    config, _ = configured("images", data=characters)
    assert config.data.source == "folder"
    assert config.data.input.channels == 1
    assert (config.data.input.height, config.data.input.width) == (32, 32)
    assert config.encoder.kind == "residual"
    assert config.encoder.ink
    assert config.batches.kind == "pk"
    assert (config.batches.subjects, config.batches.samples) == (9, 7)


def test_an_option_wins_over_what_follows_from_the_folder(characters: Path) -> None:
    config, _ = configured("images", data=characters, changes=("loop.steps=7", "batches.samples=2"))
    assert config.loop.steps == 7
    assert config.batches.kind == "pk"
    assert (config.batches.subjects, config.batches.samples) == (9, 2)


def test_the_same_folder_gives_the_same_configuration(characters: Path) -> None:
    first, second = (configured("images", data=characters)[0] for _ in range(2))
    assert first.digest == second.digest


@pytest.mark.slow
def test_a_folder_becomes_a_bundle_that_the_service_identifies_with(tmp_path: Path) -> None:
    data = drawn_characters(60, 6, 28, seed=1)
    folder, out = written(tmp_path / "characters", data), tmp_path / "run"
    settings = [part for change in QUICK for part in ("--set", change)]
    result = visavis("train", "images", "--data", folder, "--name", "glyphs", "--out", out, *settings)
    assert result.exit_code == 0, result.output
    assert "input 32 x 32 grey, drawings; batches of 27 subjects x 2; 240 steps" in result.stderr
    split = json.loads((out / "split.json").read_text())
    manifest = Manifest.model_validate_json((out / "models" / "glyphs" / "manifest.json").read_text())
    assert [point.name for point in manifest.operating_points] == ["fmr-1e-1"]
    assert str(tmp_path) not in manifest.model_dump_json()
    right = 0
    with serving(settings_for(tmp_path, out / "models", ("glyphs",))) as client:
        for name in split["test"]:
            first = sorted((folder / name).iterdir())[0]
            answer = client.post("/enroll", data={"identity": name}, files={"image": first.read_bytes()})
            assert answer.status_code == 201, answer.text
        for name in split["test"]:
            last = sorted((folder / name).iterdir())[-1]
            answer = client.post("/identify", files={"image": last.read_bytes()})
            assert answer.status_code == 200, answer.text
            right += answer.json()["candidates"][0]["identity"] == name
    assert len(split["test"]) == 12
    assert right >= 6  # guessing gets one of twelve
