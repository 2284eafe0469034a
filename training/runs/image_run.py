"""A finished run on images: what its pictures and its report show, in memory or read from its folder.

The folder and the data hold all of it, so that ``visavis plot`` draws the report anew without training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from app.encoding.bundle import read_manifest
from app.errors import VisavisError
from app.matching.decision import OperatingPoint
from training.config import FolderData, RunConfig
from training.data.parts import ImageParts, load_image_parts
from training.pictures.progress import read_log
from training.runs.finished import Finished
from training.runs.image_results import Measured, compare_test, headline

CONFIG = "config.json"
SPLIT = "split.json"
RESULTS = "results.json"
EMBEDDINGS = "embeddings.npz"
LOG = "log.csv"
REPORT = "report.html"
PREPARED = "prepared"
"""Folder for images that take long to prepare: a run that is gone on with finds them there."""


class RunFolderError(VisavisError):
    """A folder does not hold what a report is made of."""

    code = "invalid_run_folder"


@dataclass(frozen=True, eq=False)
class ImageRun:
    """A finished run.

    Attributes:
        config: What was asked for.
        parts: The data.
        log: Columns of ``log.csv``, float64[epochs] each.
        best_step: Step of the weights that were kept.
        measured: On the test part, with the exported graph.
        shown: intp[S], rows of the test part in the pictures of embeddings.
        before: float32[S, D], their embeddings before training.
        bundle: Folder of the bundle.
        points: Operating points of the bundle.
        default: The one it decides with when asked for none.
        thresholds_from: The trials behind the points, in words.
        parity: Largest difference between Keras and ONNX Runtime, and on how many inputs.
        environment: Versions of what trained it.
    """

    config: RunConfig
    parts: ImageParts
    log: Mapping[str, NDArray[np.float64]]
    best_step: int
    measured: Measured
    shown: NDArray[np.intp]
    before: NDArray[np.float32]
    bundle: Path
    points: tuple[OperatingPoint, ...]
    default: OperatingPoint
    thresholds_from: str
    parity: Mapping[str, Any]
    environment: Mapping[str, str]

    def finished(self, out: Path) -> Finished:
        """Return what the command line says of the run."""
        return Finished(out / REPORT, self.bundle, headline(self.measured.values))


def write_embeddings(
    out: Path, measured: Measured, shown: NDArray[np.intp], before: NDArray[np.float32]
) -> None:
    """Keep what only a trained and an untrained encoder can tell."""
    np.savez_compressed(out / EMBEDDINGS, test=measured.embeddings, shown=shown, before=before)


def read_run(out: Path, data_dir: Path) -> ImageRun:
    """Read a finished run.

    Args:
        out: Folder of the run.
        data_dir: Where public sets lie.

    Raises:
        RunFolderError: The run is not finished, or the data are not those that it was trained on.
        DataError: The data are missing or damaged.
        BundleError: The bundle's manifest is missing or invalid.
    """
    config = read_config(out)
    for name in (LOG, RESULTS, EMBEDDINGS):
        if not (out / name).is_file():
            raise RunFolderError(f"{out} has no {name}: no run on images was finished there")
    manifest = read_manifest(out / "models" / config.name)
    parts = load_image_parts(config, data_dir, out / PREPARED)
    with np.load(out / EMBEDDINGS, allow_pickle=False) as saved:
        embeddings, shown, before = saved["test"], saved["shown"], saved["before"]
    split = None if parts.split is None else parts.split.as_json()
    known = (out / SPLIT).read_text(encoding="utf-8") if (out / SPLIT).is_file() else None
    if split != known or len(embeddings) != len(parts.test.images):
        raise RunFolderError(f"the data have changed since {out} was trained; only training again tells more")
    pairs, trials = compare_test(config, embeddings, parts.test)
    values = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    default = manifest.operating_point(manifest.default_operating_point)
    assert default is not None  # noqa: S101 - the manifest is valid
    return ImageRun(
        config=config,
        parts=parts,
        log=read_log(out / LOG),
        best_step=_whole(manifest.recipe.get("best_step")),
        measured=Measured(values, trials, pairs, embeddings),
        shown=shown,
        before=before,
        bundle=out / "models" / config.name,
        points=manifest.operating_points,
        default=default,
        thresholds_from=manifest.evidence.source,
        parity=manifest.parity,
        environment=_texts(manifest.recipe.get("environment")),
    )


def read_config(out: Path) -> RunConfig:
    """Return the configuration of a run of any kind.

    Raises:
        RunFolderError: The folder holds no run.
    """
    path = out / CONFIG
    if not path.is_file():
        raise RunFolderError(f"{out} is no folder of a run: it has no {CONFIG}")
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"{path} is not of this version of Visavis: {error}") from error


def published(config: RunConfig) -> dict[str, JsonValue]:
    """Return the configuration as a bundle carries it: of a folder its name, not where it lies."""
    values: dict[str, Any] = config.model_dump(mode="json")
    if isinstance(config.data, FolderData) and config.data.path is not None:
        path = Path(config.data.path)
        values["data"]["path"] = path.name if path.is_absolute() else config.data.path
    return values


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: object) -> dict[str, str]:
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}
