"""A bundle measured on somebody's own photos: right figures, the same after a kill, nothing else touched."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.encoding import bulk
from app.encoding.bulk import embed_files
from app.encoding.bundle import load_bundle, read_manifest
from app.encoding.model import open_model
from app.errors import InvalidRequestError
from app.matching.distances import distance
from app.matching.evidence import read_evidence
from tests.support.vectors import people, write_people, write_vector_bundle
from training import embedding_cache
from training.calibration import (
    Calibrated,
    CalibrationRefusedError,
    MissingExtraError,
    calibrate_bundle,
    main_for_cli,
)
from training.data.errors import DataError
from training.measured_evidence import operating_points
from training.measurement import GALLERIES

REPOSITORY = Path(__file__).parents[2]
CARD = "# Model card\n\nBefore.\n\n<!-- evidence -->\nold figures\n<!-- /evidence -->\n\nAfter.\n"
SUBJECTS, IMAGES = 30, 5


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vector_bundle(tmp_path_factory.mktemp("models"), card=CARD)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty people, five photos each, one of which is no image."""
    folder = write_people(tmp_path_factory.mktemp("data") / "people", *people(SUBJECTS, IMAGES, spread=0.9))
    (folder / "s003" / "s003_0002.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def done(bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    home = tmp_path_factory.mktemp("calibrated")
    return calibrate_bundle(bundle, photos, out=home / "vectors", work=home / "work", provider="cpu")


def embeddings_of(bundle: Path, photos: Path) -> dict[str, Any]:
    """Return the embedding of every photo that is an image, by name."""
    files = sorted(photos.glob("*/*.png"))
    embedded = embed_files(open_model(bundle, provider="cpu").images, files, "central")
    return {
        path.relative_to(photos).as_posix(): embedding
        for path, embedding, ok in zip(files, embedded.embeddings, embedded.ok, strict=True)
        if ok
    }


def all_distances(vectors: dict[str, Any], subject_of: dict[str, str]) -> tuple[list[float], list[float]]:
    """Return distances of mated and of non-mated trials, in two plain loops."""
    mated: list[float] = []
    nonmated: list[float] = []
    names = sorted(vectors)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            same = subject_of[one] == subject_of[other]
            (mated if same else nonmated).append(distance(vectors[one], vectors[other], "euclidean"))
    return sorted(mated), sorted(nonmated)


def by_folder(vectors: dict[str, Any]) -> dict[str, str]:
    return {name: name.partition("/")[0] for name in vectors}


def results_of(done: Calibrated) -> dict[str, Any]:
    found: Any = done.manifest.results["evidence"]
    return dict(found)


def test_evidence_is_all_pairs_through_the_models_own_intake(
    done: Calibrated, bundle: Path, photos: Path
) -> None:
    vectors = embeddings_of(bundle, photos)
    mated, nonmated = all_distances(vectors, by_folder(vectors))
    evidence = read_evidence(done.folder / "evidence.npz")
    assert evidence.mated_distance.tolist() == mated
    assert evidence.nonmated_total == len(nonmated)
    assert evidence.nonmated_distance.tolist() == nonmated[: evidence.nonmated_distance.size]


def test_manifest_says_what_was_measured(done: Calibrated) -> None:
    summary = read_manifest(done.folder).evidence
    assert summary.source == "all pairs of 149 images in people"
    assert (summary.subjects, summary.images, summary.failures_to_acquire) == (30, 150, 1)
    assert results_of(done)["failures_to_acquire"] == {"image_unreadable": 1}
    failures = json.loads((done.work / "failures.json").read_text())
    assert list(failures) == ["s003/s003_0002.png"]


def test_bundle_that_comes_out_is_sound_and_decides_at_its_own_points(done: Calibrated, bundle: Path) -> None:
    loaded = load_bundle(done.folder, "cpu")
    assert loaded.manifest.operating_points == operating_points(loaded.evidence)
    assert loaded.manifest.default_operating_point == "fmr-1e-2"  # thirty subjects show no 1e-3
    # Templates stay comparable: what decides an embedding is as it was.
    assert loaded.manifest.digest == read_manifest(bundle).digest
    assert loaded.golden.decisions > 0


def test_bundle_that_was_measured_is_left_as_it_was(photos: Path, tmp_path: Path) -> None:
    bundle = write_vector_bundle(tmp_path / "models")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=tmp_path / "work", provider="cpu")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_bundle_is_changed_in_place_only_when_out_names_it(photos: Path, tmp_path: Path) -> None:
    bundle = write_vector_bundle(tmp_path / "models")
    done = calibrate_bundle(bundle, photos, out=bundle, work=tmp_path / "work", provider="cpu")
    assert done.folder == bundle.resolve()
    assert load_bundle(bundle, "cpu").manifest.evidence.subjects == SUBJECTS
    assert [path.name for path in bundle.parent.iterdir()] == ["vectors"]


def test_default_out_and_work_are_under_runs(
    bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = calibrate_bundle(bundle, photos, provider="cpu")
    assert done.folder == tmp_path / "runs" / "calibrate-vectors" / "models" / "vectors"
    assert (tmp_path / "runs" / "calibrate-vectors" / "work" / "label_errors.json").is_file()


def test_card_gets_new_figures_between_the_markers_and_keeps_the_rest(done: Calibrated) -> None:
    card = (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# Model card\n\nBefore.\n\n<!-- evidence -->\n")
    assert card.endswith("<!-- /evidence -->\n\nAfter.\n")
    assert "old figures" not in card
    (point,) = done.manifest.operating_points
    row = next(line for line in card.splitlines() if line.startswith("| `fmr-1e-2`"))
    lower, upper = point.fnmr_lower95, point.fnmr_upper95
    assert row == (
        f"| `fmr-1e-2` | {point.threshold:.4f} | {point.fmr:.2e} | {point.fmr_upper95:.2e} | "
        f"{point.fnmr:.4f} | [{lower:.4f}, {upper:.4f}] |"
    )
    assert "1 of 150 images (image_unreadable 1)" in card
    for name in re.findall(r"\]\((.+?\.png)\)", card):
        assert (done.folder / name).read_bytes().startswith(b"\x89PNG")
    assert card.count(".png)") == 3


def test_card_has_thresholds_by_size_of_gallery_or_says_they_are_not_supported(done: Calibrated) -> None:
    evidence = read_evidence(done.folder / "evidence.npz")
    galleries = results_of(done)["galleries"]
    point = evidence.point_for_fpir(0.1, 10)
    fpir = evidence.fpir(point.threshold, 10)
    assert fpir is not None
    assert galleries["0.1"]["10"] == {
        "supported": True,
        "threshold": point.threshold,
        "fpir": fpir[0],
        "fpir_upper95": fpir[1],
        "fnmr": point.fnmr,
    }
    assert not galleries["0.01"][str(GALLERIES[-1])]["supported"]
    card = (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `max_fpir` 0\.1 \|.*$", card, re.MULTILINE)
    assert f"| {point.threshold:.4f} ({fpir[1]:.3f}) |" in row
    (row,) = re.findall(r"^\| `max_fpir` 0\.01 \|.*$", card, re.MULTILINE)
    assert "not supported (smallest" in row


def test_card_states_the_calibration_error_that_the_manifest_has(done: Calibrated) -> None:
    error = results_of(done)["probability"]
    assert error["splits"] == 6
    assert 0.0 < error["ece"] < 0.2
    assert error["ece_range"][0] <= error["ece"] <= error["ece_range"][1]
    card = (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"expected calibration error {error['ece']:.4f} (" in card


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_photos_and_seed_give_the_same_bundle(
    done: Calibrated, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    again = calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=tmp_path / "work", provider="cpu")
    assert files_of(again.folder) == files_of(done.folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from contextlib import contextmanager
from training.calibration import calibrate_bundle

@contextmanager
def bar(total, label):
    seen = 0
    def progress(step):
        nonlocal seen
        seen += step
        if label == "embedding" and seen >= 100:
            os.kill(os.getpid(), signal.SIGKILL)
    yield progress

bundle, photos, home = map(Path, sys.argv[1:])
calibrate_bundle(bundle, photos, out=home / "vectors", work=home / "work", provider="cpu", bar=bar)
"""


def test_a_killed_run_goes_on_and_ends_with_the_same_bundle(
    done: Calibrated, bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(bundle), str(photos), str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "vectors").exists()
    left = embedded_by(monkeypatch)
    again = calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=tmp_path / "work", provider="cpu")
    assert len(left) == 150 - embedding_cache.BLOCK  # one whole block was kept
    assert files_of(again.folder) == files_of(done.folder)


def embedded_by(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note which files are really embedded from here on."""
    seen: list[Path] = []
    real = bulk.embed_files

    def noting(encoder: Any, paths: Sequence[Path], *rest: Any, **more: Any) -> Any:
        seen.extend(paths)
        return real(encoder, paths, *rest, **more)

    monkeypatch.setattr("training.embedding_cache.embed_files", noting)
    return seen


def test_photos_that_were_moved_or_touched_are_not_embedded_again(
    done: Calibrated, bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = Path(shutil.copytree(photos, tmp_path / "people"))
    for path in moved.glob("*/*"):
        os.utime(path, (1, 1))
    seen = embedded_by(monkeypatch)
    again = calibrate_bundle(bundle, moved, out=tmp_path / "vectors", work=done.work, provider="cpu")
    assert seen == []
    assert files_of(again.folder) == files_of(done.folder)


def test_photo_that_was_changed_is_embedded_again(
    done: Calibrated, bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Path(shutil.copytree(done.work, tmp_path / "work"))
    changed = Path(shutil.copytree(photos, tmp_path / "people"))
    write_people(tmp_path / "other", *people(1, 1, seed=9))
    shutil.copy2(tmp_path / "other" / "s000" / "s000_0001.png", changed / "s004" / "s004_0001.png")
    seen = embedded_by(monkeypatch)
    again = calibrate_bundle(bundle, changed, out=tmp_path / "vectors", work=work, provider="cpu")
    assert [path.name for path in seen] == ["s004_0001.png"]
    assert files_of(again.folder)["evidence.npz"] != files_of(done.folder)["evidence.npz"]


def test_damaged_block_is_made_anew(done: Calibrated, bundle: Path, photos: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(done.work, tmp_path / "work"))
    block = sorted((work / "embeddings").glob("block-*.npz"))[0]
    block.write_bytes(block.read_bytes()[:1000])
    again = calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=work, provider="cpu")
    assert files_of(again.folder) == files_of(done.folder)


def test_embeddings_of_another_model_are_not_taken(
    done: Calibrated, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_vector_bundle(tmp_path / "models")
    seen = embedded_by(monkeypatch)
    cache = embedding_cache.EmbeddingCache(done.work / "embeddings", "another model cpu")
    encoder = open_model(bundle, provider="cpu").images
    cache.embed(encoder, photos, sorted(photos.glob("s000/*.png")), "central")
    assert len(seen) == IMAGES


@pytest.fixture(scope="module")
def mislabelled(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibrated, Path]:
    """A hundred people; 7 is also 100, a photo of 3 lies in 4's folder, and a file of 10 in 60's too."""
    home = tmp_path_factory.mktemp("mislabelled")
    vectors, labels = people(100, 6, spread=0.8)
    labels[np.flatnonzero(labels == 7)[3:]] = 100
    stray = np.flatnonzero(labels == 3)[0]
    labels[stray] = 4
    folder = write_people(home / "people", vectors, labels)
    shutil.copyfile(folder / "s010" / "s010_0001.png", folder / "s060" / "s060_0001.png")
    return (
        calibrate_bundle(bundle, folder, out=home / "vectors", work=home / "work", provider="cpu"),
        folder,
    )


def test_planted_label_errors_are_named_in_the_work_folder(mislabelled: tuple[Calibrated, Path]) -> None:
    done, _ = mislabelled
    found = json.loads((done.work / "label_errors.json").read_text())
    assert [pair["subjects"] for pair in found["one_subject"]] == [["s007", "s100"]]
    assert found["left_out"] == ["s004/s004_0001.png", "s060/s060_0001.png"]
    looks_like = {one["image"]: one["looks_like"] for one in found["another_subject"]}
    assert looks_like["s004/s004_0001.png"] == "s003"
    assert [copy["images"] for copy in found["copies"]] == [["s010/s010_0001.png", "s060/s060_0001.png"]]
    assert found["copies"][0]["same_bytes"]


def test_no_name_of_a_photo_goes_into_the_bundle(mislabelled: tuple[Calibrated, Path]) -> None:
    done, _ = mislabelled
    for path in done.folder.iterdir():
        assert b"s004" not in path.read_bytes(), path.name


def test_figures_with_and_without_label_errors_are_those_of_a_plain_loop(
    mislabelled: tuple[Calibrated, Path], bundle: Path
) -> None:
    done, folder = mislabelled
    vectors = embeddings_of(bundle, folder)
    labels = by_folder(vectors)
    mated, nonmated = all_distances(vectors, labels)
    for gone in ("s004/s004_0001.png", "s060/s060_0001.png"):
        del vectors[gone], labels[gone]
    right = {name: subject.replace("s100", "s007") for name, subject in labels.items()}
    mated_without, nonmated_without = all_distances(vectors, right)
    results = results_of(done)
    assert results["label_errors"]["subjects_without"] == 100
    assert results["label_errors"]["images_left_out"] == 2
    for point in results["operating_points"]:
        at = point["threshold"]
        assert point["fmr"] == pytest.approx(np.mean(np.array(nonmated) <= at))
        assert point["fnmr"] == pytest.approx(np.mean(np.array(mated) > at))
        same = point["without_label_errors"]["same_threshold"]
        assert same["fmr"] == pytest.approx(np.mean(np.array(nonmated_without) <= at))
        assert same["fnmr"] == pytest.approx(np.mean(np.array(mated_without) > at))
        own = point["without_label_errors"]["threshold"]
        allowed = int(len(nonmated_without) * point["max_fmr"])
        assert own == np.nextafter(nonmated_without[allowed], -np.inf)
        assert own > at


def test_thresholds_come_from_the_labels_as_they_are(mislabelled: tuple[Calibrated, Path]) -> None:
    done, _ = mislabelled
    evidence = read_evidence(done.folder / "evidence.npz")
    assert evidence.subjects == 101
    assert evidence.nonmated_distance[0] == 0.0  # the file under two numbers
    assert done.manifest.operating_points == operating_points(evidence)


def test_card_has_both(mislabelled: tuple[Calibrated, Path]) -> None:
    done, _ = mislabelled
    card = (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Found: 2 subject names whose subject has another name as well" in card
    assert "Without them (2 images left out, 100 subjects)" in card
    point = results_of(done)["operating_points"][0]
    without = point["without_label_errors"]
    assert f"| {point['threshold']:.4f} |" in card
    assert f"| {without['threshold']:.4f} |" in card


PAIRS = "\n".join(
    [f"s{subject:03d} {first} {second}" for subject in range(20) for first, second in ((1, 2), (3, 5))]
    + [f"s{one:03d} 1 s{one + 1:03d} 4" for one in range(0, 20)]
    + [f"s{one:03d} 5 s{one + 5:03d} 2" for one in range(0, 20)]
)


def test_with_a_list_exactly_its_trials_are_run(bundle: Path, photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "pairs.txt"
    listed.write_text(PAIRS)
    done = calibrate_bundle(
        bundle, photos, pairs=listed, out=tmp_path / "vectors", work=tmp_path / "work", provider="cpu"
    )
    vectors = embeddings_of(bundle, photos)

    def apart(one: str, first: int, other: str, second: int) -> float | None:
        names = [f"{name}/{name}_{number:04d}.png" for name, number in ((one, first), (other, second))]
        if not vectors.keys() >= set(names):
            return None
        return distance(vectors[names[0]], vectors[names[1]], "euclidean")

    mated = [apart(f"s{s:03d}", a, f"s{s:03d}", b) for s in range(20) for a, b in ((1, 2), (3, 5))]
    nonmated = [apart(f"s{s:03d}", 1, f"s{s + 1:03d}", 4) for s in range(20)]
    nonmated += [apart(f"s{s:03d}", 5, f"s{s + 5:03d}", 2) for s in range(20)]
    # s003_0002 is no image, and only this one is missing: one mated trial is lost, and none of the others.
    kept = sorted(value for value in mated if value is not None)
    assert len(kept) == 39
    evidence = read_evidence(done.folder / "evidence.npz")
    assert evidence.mated_distance.tolist() == kept
    assert evidence.nonmated_distance.tolist() == sorted(v for v in nonmated if v is not None)
    assert evidence.nonmated_total == 40
    assert evidence.subjects == 25
    summary = done.manifest.evidence
    # Images that no trial names are not looked at.
    assert summary.source == f"the trials of pairs.txt on {summary.images - 1} images in people"
    assert summary.failures_to_acquire == 1
    assert load_bundle(done.folder, "cpu").manifest.operating_points[0].name == "fmr-1e-1"


def test_list_that_names_a_missing_image_is_refused(bundle: Path, photos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "pairs.txt"
    listed.write_text("s000 1 99\n")
    with pytest.raises(InvalidRequestError, match=r"line 1: .* holds no image s000_0099"):
        calibrate_bundle(bundle, photos, pairs=listed, out=tmp_path / "vectors", work=tmp_path / "work")


def test_rates_by_cohort_are_of_the_subjects_named(bundle: Path, photos: Path, tmp_path: Path) -> None:
    cohorts = tmp_path / "cohorts.csv"
    cohorts.write_text("subject,cohort\n" + "".join(f"s{number:03d},north\n" for number in range(30)))
    done = calibrate_bundle(
        bundle, photos, cohorts=cohorts, out=tmp_path / "vectors", work=tmp_path / "work", provider="cpu"
    )
    (north,) = results_of(done)["cohorts"]["cohorts"]
    point = done.manifest.default_point
    assert (north["cohort"], north["subjects"]) == ("north", 30)
    assert north["fnmr"]["rate"] == pytest.approx(point.fnmr)
    assert north["fmr_within"]["rate"] == pytest.approx(point.fmr)
    assert "| north | 30 |" in (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_cohorts_of_strangers_are_refused(bundle: Path, photos: Path, tmp_path: Path) -> None:
    cohorts = tmp_path / "cohorts.csv"
    cohorts.write_text("ada,north\n")
    with pytest.raises(InvalidRequestError, match="none of its 1 subjects"):
        calibrate_bundle(bundle, photos, cohorts=cohorts, out=tmp_path / "vectors", work=tmp_path / "work")


@pytest.mark.parametrize("package", ["matplotlib", "onnx"])
def test_without_the_extra_nothing_is_begun(
    bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install 'visavis\[train\]'"):
        calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=tmp_path / "work")
    assert not list(tmp_path.iterdir())


def test_out_of_another_name_is_refused(bundle: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationRefusedError, match=r"named like its model; give .*/mine/vectors"):
        calibrate_bundle(bundle, photos, out=tmp_path / "mine", work=tmp_path / "work")


def test_folder_that_is_no_bundle_is_not_overwritten(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(CalibrationRefusedError, match="holds something that is no bundle"):
        calibrate_bundle(bundle, photos, out=out, work=tmp_path / "work")
    assert (out / "holiday.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("subjects", "message"), [(1, "does not hold images of two subjects"), (5, "measure more subjects")]
)
def test_too_few_subjects_are_refused(bundle: Path, tmp_path: Path, subjects: int, message: str) -> None:
    folder = write_people(tmp_path / "few", *people(subjects, 3))
    with pytest.raises(DataError, match=message):
        calibrate_bundle(bundle, folder, out=tmp_path / "vectors", work=tmp_path / "work")


def test_photos_of_which_too_few_can_be_embedded_are_refused(bundle: Path, tmp_path: Path) -> None:
    folder = write_people(tmp_path / "people", *people(2, 2))
    for path in (folder / "s001").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"only 2 images of 1 subjects .*failures\.json"):
        calibrate_bundle(bundle, folder, out=tmp_path / "vectors", work=tmp_path / "work")


def test_card_with_half_a_marker_is_refused(photos: Path, tmp_path: Path) -> None:
    bundle = write_vector_bundle(tmp_path / "models", card="# Card\n\n<!-- evidence -->\n")
    with pytest.raises(DataError, match=r"must have both <!-- evidence --> and <!-- /evidence -->"):
        calibrate_bundle(bundle, photos, out=tmp_path / "vectors", work=tmp_path / "work")
    assert not (tmp_path / "vectors").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_command_says_what_came_out(
    bundle: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    main_for_cli(
        model_folder=bundle,
        data=photos,
        pairs=None,
        out=tmp_path / "vectors",
        seed=0,
        work=tmp_path / "work",
        cohorts=None,
        as_json=as_json,
    )
    said = capsys.readouterr()
    point = read_manifest(tmp_path / "vectors").default_point
    assert "not acquired: 1 images, image_unreadable" in said.err
    if as_json:
        answer = json.loads(said.out)
        assert answer["default_operating_point"] == "fmr-1e-2"
        assert answer["evidence"]["images"] == 150
        assert answer["bundle"] == str(tmp_path / "vectors")
    else:
        assert f"fmr-1e-2    {point.threshold:<11.4f}{point.fmr:<10.2e}" in said.out
        assert f"written   {tmp_path / 'vectors'}" in said.out
