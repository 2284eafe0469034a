"""The report of a run on images: right figures, plots in the bundle, and the same page without training."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.encoding.bundle import load_bundle
from app.errors import VisavisError
from tests.support.cli import visavis
from training.config import RunConfig, load_recipe
from training.pictures.style import percent
from training.remeasure_bundle import remeasure_bundle
from training.runs import images
from training.runs.image_pictures import surplus, worst_trials
from training.runs.image_run import ImageRun, RunFolderError, read_run

LOOP = {"loop.steps": 60, "loop.epoch": 20}
PICTURES = {
    "pairs-surest",
    "pairs-closest",
    "pairs-worst",
    "distances",
    "det",
    "roc",
    "pca",
    "tsne",
    "matrix",
    "loss",
}
IN_BUNDLE = {"det.png", "distances.png", "pca.png", "reliability.png"}


@dataclass(frozen=True)
class Trained:
    run: ImageRun
    folder: Path

    @property
    def page(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    @property
    def values(self) -> dict[str, Any]:
        values = json.loads((self.folder / "results.json").read_text(encoding="utf-8"))
        assert isinstance(values, dict)
        return values

    def row(self, measure: str) -> str:
        """Return a row of the table of results."""
        found = re.search(rf'<tr><th scope="row">{re.escape(measure)}</th>.*?</tr>', self.page)
        assert found is not None, measure
        return found[0]


def trained(config: RunConfig, folder: Path) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        # t-SNE of a few samples takes a moment, that of hundreds takes seconds.
        patch.setattr(images, "SHOWN", 60)
        return Trained(images.run_images(config, folder, folder / "run"), folder / "run")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Sixty steps of triplets on scikit-learn's digits: a closed set."""
    config = load_recipe("digits-triplet", smoke=True, changes={**LOOP, "data.test_pairs": 1000})
    return trained(config, tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Sixty steps on drawn characters in alphabets: an open set with N-way trials."""
    small: dict[str, Any] = {
        "data.input": {"height": 20, "width": 20, "channels": 1},
        "encoder": {"kind": "mlp", "widths": [32, 16]},
        "augmentation": None,
        "export.shifts": [],
        **LOOP,
    }
    config = load_recipe("omniglot", smoke=True, changes=small)
    return trained(config, tmp_path_factory.mktemp("characters"))


@pytest.fixture
def copied(digits: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits.folder, tmp_path / "copy"))


@pytest.fixture(params=["digits", "characters"])
def either(request: pytest.FixtureRequest) -> Trained:
    run: Trained = request.getfixturevalue(request.param)
    return run


def test_page_states_the_eer_and_its_interval_as_measured(either: Trained) -> None:
    rates, row = either.values["verification"], either.row("EER")
    assert f">{percent(rates['eer'])}<" in row
    assert f">{percent(rates['eer_lower95'])} to {percent(rates['eer_upper95'])}<" in row


def test_page_states_each_operating_point_of_the_manifest_and_marks_the_default(either: Trained) -> None:
    manifest = load_bundle(either.run.bundle, "cpu").manifest
    for point in manifest.operating_points:
        row = re.search(rf'<tr><th scope="row">{point.name}(<span.*?</span>)?</th>.*?</tr>', either.page)
        assert row is not None
        assert f">{point.threshold:.4f}<" in row[0]
        assert ("default" in row[0]) == (point.name == manifest.default_operating_point)


def test_page_of_digits_states_pair_and_knn_accuracy(digits: Trained) -> None:
    values = digits.values
    pairs = values["pairs"]
    assert f">{percent(pairs['accuracy'])}<" in digits.row(
        f"Pair accuracy at {pairs['threshold_of_held_out']:.3g}"
    )
    assert f">{percent(values['knn']['accuracy_k5'])}<" in digits.row("kNN accuracy, k = 5")


def test_page_of_digits_claims_no_split_by_subject(digits: Trained) -> None:
    assert "Split by image, for the subjects are all there are (seed 1)" in digits.page
    assert "calibration and test" in digits.page
    assert "each is in one part only" not in digits.page


def test_page_of_characters_has_the_n_way_errors_of_model_and_pixels(characters: Trained) -> None:
    curves = characters.values["oneshot"]
    for place in ("within alphabets", "across all"):
        model, pixels = (curves[f"{who}, {place}"][-1] for who in ("model", "pixels"))
        assert model["ways"] == 20
        row = next(
            row
            for row in re.findall(r"<tr><td>20</td>.*?</tr>", characters.page)
            if f"<td>{percent(model['error_rate'])}</td>" in row
        )
        assert f"<td>{percent(pixels['error_rate'])}</td>" in row
        assert "<td>95.00 %</td>" in row
        assert f">{percent(model['error_rate'])}<" in characters.row(f"20-way one-shot error, {place}")


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("digits", {"triplets"}),
        ("characters", {"oneshot-within-alphabets", "oneshot-across-all"}),
    ],
)
def test_each_picture_is_on_the_page_and_a_file(
    name: str, more: set[str], request: pytest.FixtureRequest
) -> None:
    run: Trained = request.getfixturevalue(name)
    assert {path.stem for path in (run.folder / "plots").glob("*.png")} == PICTURES | more
    assert run.page.count("<figure") == len(PICTURES | more)


def test_picture_of_the_det_says_the_rates_of_the_test_trials_at_each_threshold(either: Trained) -> None:
    trials = either.run.measured.trials
    for point in either.run.points:
        match = [bool(distance <= point.threshold) for distance in trials.distance]
        of_mated = [m for m, mated in zip(match, trials.mated, strict=True) if mated]
        of_others = [m for m, mated in zip(match, trials.mated, strict=True) if not mated]
        fmr, fnmr = sum(of_others) / len(of_others), 1.0 - sum(of_mated) / len(of_mated)
        assert f"{point.name}: FMR {percent(fmr)}, FNMR {percent(round(fnmr, 12))}." in either.page


def test_bundle_loads_and_its_manifest_lists_small_plots(either: Trained) -> None:
    bundle = load_bundle(either.run.bundle, "cpu")
    assert set(bundle.manifest.files) >= IN_BUNDLE
    for name in IN_BUNDLE:
        data = (either.run.bundle / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) < 150_000


def test_card_shows_the_plots_that_the_bundle_has(digits: Trained) -> None:
    card = (digits.run.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.png)\)", card)) == IN_BUNDLE


def test_measured_anew_the_bundle_comes_out_byte_for_byte(copied: Path, tmp_path: Path) -> None:
    bundle = next((copied / "models").iterdir())
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    (bundle / "evidence.npz").write_bytes(b"lost")
    remeasure_bundle(bundle, tmp_path, tmp_path / "prepared")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_card_says_how_far_probabilities_hold(either: Trained) -> None:
    manifest = load_bundle(either.run.bundle, "cpu").manifest
    evidence: Any = manifest.results["evidence"]
    card = (either.run.bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"expected calibration error {evidence['probability']['ece']:.4f} (" in card
    # The digits are all there are, and letters look alike by nature: no labels are doubted.
    assert "label_errors" not in evidence


def test_worst_trials_are_those_farthest_beyond_the_threshold_and_show_no_image_twice(
    digits: Trained,
) -> None:
    run = digits.run
    worst, off = worst_trials(run, 8), surplus(run)
    mated, pairs = run.measured.trials.mated, run.measured.pairs
    assert mated[worst].tolist() == [True] * 4 + [False] * 4
    threshold, distance = run.default.threshold, run.measured.trials.distance
    assert off[worst[0]] == max(distance[mated]) - threshold
    assert off[worst[4]] == threshold - min(distance[~mated])
    for half in (worst[:4], worst[4:]):
        assert np.unique([pairs.left[half], pairs.right[half]]).size == 8
        assert (np.diff(off[half]) <= 0).all()


def test_page_names_no_place_of_this_machine(either: Trained) -> None:
    assert str(either.folder.parent) not in either.page


def without_maps(page: str) -> str:
    """Take the pictures out: t-SNE amplifies the last bits in which two runs of a threaded sum differ."""
    return re.sub(r"data:image/[^\"]+", "", page)


def test_plot_makes_the_page_again_and_all_plots_but_the_maps_byte_for_byte(
    either: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(either.folder, folder)
    (folder / "report.html").unlink()
    shutil.rmtree(folder / "plots")
    monkeypatch.chdir(folder)
    result = visavis("plot", ".")
    assert result.exit_code == 0, result.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert without_maps(page) == without_maps(either.page)
    names = sorted(path.name for path in (either.folder / "plots").iterdir())
    assert sorted(path.name for path in (folder / "plots").iterdir()) == names
    for name in names:
        if "sne" not in name and "pca" not in name:
            assert (folder / "plots" / name).read_bytes() == (either.folder / "plots" / name).read_bytes()


def test_plot_refuses_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    result = visavis("plot", tmp_path)
    assert result.exit_code == 1
    assert "invalid_run_folder" in result.output
    assert "it has no config.json" in result.output


@pytest.mark.parametrize("name", ["log.csv", "results.json", "embeddings.npz"])
def test_unfinished_run_is_refused_and_says_what_is_missing(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(RunFolderError, match=name):
        read_run(copied, copied)


def test_run_whose_data_have_changed_is_refused(characters: Trained, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(characters.folder, tmp_path / "copy"))
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    split["test"] = split["test"][1:]
    (folder / "split.json").write_text(json.dumps(split), encoding="utf-8")
    with pytest.raises(VisavisError, match="data have changed"):
        read_run(folder, folder)


def test_plot_says_that_a_run_on_texts_cannot_be_drawn_again(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["data"] = {"source": "smoke-paraphrases"}
    config["encoder"] = {"kind": "lstm-mean"}
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    result = visavis("plot", copied)
    assert result.exit_code == 1
    assert "is no run on images" in result.output
