"""A run on texts: better than chance, exported as it was trained, the same after a stop."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from app.matching.distances import distances
from training.config import RunConfig, load_recipe
from training.data.smoke import paraphrases
from training.data.text import Vocabulary, connected
from training.data.text_parts import load_text_parts
from training.evaluation.clustered_pairs import evaluate_pairs
from training.pictures.style import percent
from training.runs.texts import run_texts
from training.train import RunStoppedError

SHORT: dict[str, Any] = {
    "data": {"length": 16, "tokens": "words", "vocabulary": 300},
    "loop": {"steps": 120, "epoch": 40},
    "optimiser.learning_rate": 0.005,
}
POOLED = {**SHORT, "encoder.embedding": 32}
LSTM = {**SHORT, "encoder": {"embedding": 16, "units": 16}, "batches.subjects": 32}


def configured(recipe: str, changes: dict[str, Any]) -> RunConfig:
    return load_recipe(recipe, smoke=True, changes=changes)


@dataclass(frozen=True)
class Run:
    config: RunConfig
    folder: Path
    headline: str

    @property
    def values(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "results.json").read_text(encoding="utf-8")))


def ran(config: RunConfig, folder: Path) -> Run:
    return Run(config, folder, run_texts(config, Path("nowhere"), folder).headline)


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return ran(configured("questions-contrastive", POOLED), tmp_path_factory.mktemp("contrastive"))


def test_contrastive_loss_learns_what_tfidf_cannot_see(contrastive: Run) -> None:
    values = contrastive.values
    assert values["encoder"]["eer"] < 0.25
    assert values["encoder"]["eer"] < values["baseline"]["eer"] - 0.1
    assert values["encoder"]["accuracy"] > values["baseline"]["accuracy"]
    assert values["eer_less_baseline_upper95"] < 0.0


@pytest.mark.parametrize(
    ("recipe", "changes", "eer"),
    [("questions-sigmoid", POOLED, 0.25), ("questions-lstm", LSTM, 0.35)],
)
def test_other_recipes_beat_chance(recipe: str, changes: dict[str, Any], eer: float, tmp_path: Path) -> None:
    values = ran(configured(recipe, changes), tmp_path).values
    assert values["encoder"]["eer_upper95"] < 0.5
    assert values["encoder"]["eer"] < eer


def test_onnx_file_gives_the_figures_of_the_results(contrastive: Run) -> None:
    spec = contrastive.config.data
    parts = load_text_parts(spec, Path("nowhere"), contrastive.config.seed)  # type: ignore[arg-type]
    vocabulary = Vocabulary.from_json((contrastive.folder / "vocabulary.json").read_text(encoding="utf-8"))
    session = ort.InferenceSession(contrastive.folder / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert [(item.name, item.type) for item in session.get_inputs()] == [("tokens", "tensor(int32)")]
    left, right = (
        session.run(["embeddings"], {"tokens": vocabulary.encode(side, 16)})[0]
        for side in (parts.test.left, parts.test.right)
    )
    values = contrastive.values["encoder"]
    again = evaluate_pairs(
        distances(left, right, "euclidean"), parts.test.same, connected(parts.test), values["threshold"]
    )
    assert again.accuracy == values["accuracy"]
    assert again.eer == pytest.approx(values["eer"])


def test_export_agrees_with_keras_and_says_so(contrastive: Run) -> None:
    parity = contrastive.values["parity"]
    assert parity["largest_difference"] <= 1e-4
    assert parity["inputs"] == 512


def test_page_states_the_figures_and_shows_pairs_as_texts(contrastive: Run) -> None:
    page = (contrastive.folder / "report.html").read_text(encoding="utf-8")
    for part in ("encoder", "baseline"):
        assert percent(contrastive.values[part]["accuracy"]) in page
        assert percent(contrastive.values[part]["eer"]) in page
    assert page.count("<figure") == 4
    texts = {*paraphrases(400, contrastive.config.seed + 2).left}
    assert sum(text in page for text in texts) > 20


def test_head_of_the_sigmoid_is_kept_beside_the_encoder(tmp_path: Path) -> None:
    run = ran(configured("questions-sigmoid", {**POOLED, "loop": {"steps": 20, "epoch": 20}}), tmp_path)
    with np.load(run.folder / "head.npz") as head:
        assert sorted(name.rpartition("/")[2] for name in head.files) == ["log_scale", "offset"]


def test_pair_feature_head_is_measured_beside_the_distance(tmp_path: Path) -> None:
    changes = {
        **POOLED,
        "objective": {"kind": "pair-features", "units": 32},
        "batches": {"kind": "pairs", "size": 64},
    }
    values = ran(configured("questions-contrastive", changes), tmp_path).values
    assert values["head"]["eer"] < 0.35
    assert 0.0 < values["head"]["threshold"] < 1.0


def test_stopped_run_goes_on_to_the_results_of_an_unbroken_one(contrastive: Run, tmp_path: Path) -> None:
    told = 0

    def stop(steps: int) -> None:
        nonlocal told
        told += steps
        if told >= 50:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(RunStoppedError):
        run_texts(contrastive.config, Path("nowhere"), tmp_path, progress=stop)
    run_texts(contrastive.config, Path("nowhere"), tmp_path)
    assert (tmp_path / "encoder.onnx").read_bytes() == (contrastive.folder / "encoder.onnx").read_bytes()
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert again["encoder"] == contrastive.values["encoder"]
