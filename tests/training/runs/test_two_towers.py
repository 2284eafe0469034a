"""A run with two encoders: one space, both exported, the same after a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from app.matching.distances import distances
from training.config import RecipeError, RunConfig, load_recipe
from training.data.text_samplers import balanced_cross_pairs
from training.data.two_kinds import load_two_kinds
from training.pictures.style import percent
from training.runs.two_towers import run_two_towers
from training.train import RunStoppedError

SHORT: dict[str, Any] = {
    "encoder": {"kind": "mlp", "widths": [64, 32], "unit_length": True, "last_linear": True},
    "right_encoder": {"kind": "lstm-mean", "embedding": 16, "units": 32},
    "optimiser.learning_rate": 0.005,
    "loop": {"steps": 150, "epoch": 50},
}


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load_recipe("two-tower", smoke=True, changes=SHORT)


@pytest.fixture(scope="module")
def folder(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two-tower")
    run_two_towers(config, Path("nowhere"), out)
    return out


def results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))


def embedded(folder: Path, name: str, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(folder / f"{name}_encoder.onnx", providers=["CPUExecutionProvider"])
    found = session.run(["embeddings"], {session.get_inputs()[0].name: samples})[0]
    assert isinstance(found, np.ndarray)
    return found


def test_pictures_and_names_meet_far_better_than_by_chance(folder: Path) -> None:
    values = results(folder)
    assert values["pairs"]["accuracy_lower95"] > 0.75
    assert values["pairs"]["eer"] < 0.2
    assert values["naming_accuracy"] > 0.7


def test_both_files_together_give_the_accuracy_of_the_results(config: RunConfig, folder: Path) -> None:
    data = load_two_kinds(config.data, Path("nowhere"), config.seed)  # type: ignore[arg-type]
    images, names = embedded(folder, "image", data.test.images), embedded(folder, "text", data.tokens)
    pairs = balanced_cross_pairs(data.test.labels, data.meaning, 2000, 20_000)
    apart = distances(images[pairs.left], names[pairs.right], "euclidean")
    values = results(folder)["pairs"]
    assert np.mean((apart <= values["threshold"]) == pairs.same) == values["accuracy"]
    assert (values["mated"], values["nonmated"]) == (1000, 1000)
    nearest = np.argmin(np.linalg.norm(images[:, None] - names[None], axis=2), axis=1)
    assert np.mean(data.meaning[nearest] == data.test.labels) == results(folder)["naming_accuracy"]


def test_both_encoders_agree_with_keras(folder: Path) -> None:
    parity = results(folder)["parity"]
    assert set(parity) == {"images", "names"}
    assert max(parity.values()) <= 1e-4


def test_encoders_take_different_inputs(folder: Path) -> None:
    shapes = {}
    for name in ("image", "text"):
        session = ort.InferenceSession(folder / f"{name}_encoder.onnx", providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        shapes[name] = (given.name, given.type, given.shape[1:])
    assert shapes == {
        "image": ("images", "tensor(uint8)", [28, 28, 1]),
        "text": ("tokens", "tensor(int32)", [12]),
    }


def test_page_states_the_figures(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert percent(results(folder)["pairs"]["accuracy"]) in page
    assert percent(results(folder)["naming_accuracy"]) in page
    assert page.count("<figure") == 6


def test_stopped_run_goes_on_to_the_results_of_an_unbroken_one(
    config: RunConfig, folder: Path, tmp_path: Path
) -> None:
    told = 0

    def stop(steps: int) -> None:
        nonlocal told
        told += steps
        if told >= 70:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStoppedError):
        run_two_towers(config, Path("nowhere"), tmp_path, progress=stop)
    run_two_towers(config, Path("nowhere"), tmp_path)
    for name in ("image_encoder.onnx", "text_encoder.onnx"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert results(tmp_path)["pairs"] == results(folder)["pairs"]


def test_encoders_of_different_sizes_are_refused(tmp_path: Path) -> None:
    changes = {**SHORT, "encoder": {**SHORT["encoder"], "widths": [64, 16]}}
    config = load_recipe("two-tower", smoke=True, changes=changes)
    with pytest.raises(RecipeError, match="16 and 32 numbers"):
        run_two_towers(config, Path("nowhere"), tmp_path)
