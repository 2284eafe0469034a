"""Official runs: what is read from a folder or an archive, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.errors import InvalidRequestError
from tests.support.images import angle_png
from training.evaluation.oneshot import is_error, one_shot, trial_distances
from training.evaluation.pixels import PIXEL_METRIC, pixel_vectors
from training.evaluation.runs import opened_runs, read_runs


def problem_of(folder: Path) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        read_runs(folder)
    return str(caught.value)


def test_each_line_is_a_trial_with_its_class_first(runs: Path) -> None:
    found = read_runs(runs)
    assert found.names == ("run01", "run02")
    shown = [
        (found.files[probe], [found.files[c].partition("class")[2][:2] for c in row])
        for probe, row in zip(found.trials.probe, found.trials.candidates.tolist(), strict=True)
    ]
    assert shown[:2] == [
        ("run01/test/item01.png", ["03", "01", "02"]),
        ("run01/test/item02.png", ["01", "02", "03"]),
    ]
    assert found.trials.cluster.tolist() == [0, 0, 0, 1, 1, 1]


def test_candidates_are_of_the_same_run(runs: Path) -> None:
    found = read_runs(runs)
    for probe, row in zip(found.trials.probe, found.trials.candidates, strict=True):
        assert {found.files[image].partition("/")[0] for image in row} == {
            found.files[probe].partition("/")[0]
        }


def test_archive_reads_as_its_folder(runs: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "all_runs"), "zip", runs))
    with opened_runs(archive) as found:
        assert found.files == read_runs(runs).files
        assert all(path.is_file() for path in found.paths)
    assert not any(path.exists() for path in found.paths)


def test_folder_all_runs_inside_is_found(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "omniglot").mkdir()
    runs.rename(tmp_path / "omniglot" / "all_runs")
    assert read_runs(tmp_path / "omniglot").names == ("run01", "run02")


def test_folder_without_runs_is_refused(tmp_path: Path) -> None:
    assert "holds no <run>/class_labels.txt" in problem_of(tmp_path)


def test_line_that_names_no_image_is_refused_with_its_number(runs: Path) -> None:
    (runs / "run02" / "training" / "class02.png").unlink()
    (runs / "run02" / "training" / "class04.png").write_bytes(angle_png(0))
    assert "run02/class_labels.txt, line 2: run02/training/class02.png is not among the 3" in problem_of(runs)


def test_line_of_one_field_is_refused(runs: Path) -> None:
    (runs / "run01" / "class_labels.txt").write_text("run01/test/item01.png\n")
    assert "run01/class_labels.txt, line 1: 'run01/test/item01.png' is no" in problem_of(runs)


def test_item_without_a_line_is_refused(runs: Path) -> None:
    labels = runs / "run01" / "class_labels.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:2]))
    assert "run01/class_labels.txt: 2 lines for 3 images in test" in problem_of(runs)


def test_item_with_two_lines_is_refused(runs: Path) -> None:
    labels = runs / "run01" / "class_labels.txt"
    labels.write_text(labels.read_text() + labels.read_text())
    assert "line 4: run01/test/item01.png has two lines" in problem_of(runs)


def test_runs_of_different_ways_are_refused(runs: Path) -> None:
    (runs / "run02" / "training" / "class04.png").write_bytes(angle_png(0))
    assert "run02 has 4 classes and run01 3" in problem_of(runs)


def test_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all_runs.zip").write_bytes(b"not a zip")
    with (
        pytest.raises(InvalidRequestError, match="neither a folder nor a zip archive"),
        opened_runs(tmp_path / "all_runs.zip"),
    ):
        pass


def test_pixels_that_cannot_be_read_fail(runs: Path) -> None:
    found = read_runs(runs)
    found.paths[0].write_bytes(b"not an image")
    counted: list[int] = []
    vectors, ok = pixel_vectors(found.paths, progress=counted.append)
    assert ok.tolist() == [False] + [True] * 11
    assert not vectors[0].any()
    assert sum(counted) == 12


def test_pixels_are_grey_values_of_105_by_105(runs: Path) -> None:
    vectors, _ = pixel_vectors([runs / "run01" / "training" / "class01.png"])
    image = vectors.reshape(105, 105)
    assert (image[:, 0] == 255).all()
    assert (image[:, -1] == 0).all()


def test_omniglots_runs_are_20_of_20_ways_and_pixels_err_in_81_percent(data_dir: Path) -> None:
    archive = data_dir / "omniglot" / "all_runs.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is missing")
    with opened_runs(archive) as found:
        vectors, ok = pixel_vectors(found.paths)
    distance = trial_distances(found.trials, vectors, PIXEL_METRIC, ok)
    rate = one_shot(found.trials, distance)
    assert (len(found.names), rate.ways, rate.trials, rate.failures) == (20, 20, 400, 0)
    assert rate.error_rate == 0.81
    # The same by a plain search of each run's images.
    errors = 0
    for probe, row in zip(found.trials.probe, found.trials.candidates, strict=True):
        squares = np.square(vectors[row].astype(np.int64) - vectors[probe].astype(np.int64)).sum(axis=1)
        errors += int((squares[1:] <= squares[0]).any())
    assert errors == is_error(distance).sum() == 324
