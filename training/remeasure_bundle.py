"""Measure the thresholds of a trained bundle anew, without training it again.

    python -m training.remeasure_bundle --data FOLDER models/digits [models/...]

The manifest has the recipe that the bundle was trained by, and so which images are its calibration part; the
exported graph is measured on them as at the end of a run (``training.runs.images``). Evidence, operating
points, golden decisions, the card's part between the markers and the seal are written; the graph, the results
of the test part and the rest of the card stay.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from app.encoding.bundle import load_bundle, read_manifest
from app.encoding.manifest import Manifest
from app.encoding.onnx_session import Graph
from app.errors import BundleError, VisavisError
from training.calibration import write_measured
from training.config import RunConfig
from training.data.parts import load_image_parts
from training.embedding import embed_images
from training.runs.images import OF_EVIDENCE, measure_parts_evidence


def remeasure_bundle(folder: Path, data_dir: Path, prepared: Path) -> Manifest:
    """Measure a bundle on the calibration part of its own recipe, and write what follows.

    Args:
        folder: The bundle.
        data_dir: Where public sets lie.
        prepared: Folder for images that take long to prepare.

    Raises:
        BundleError: The manifest names no recipe for images, or the bundle is not sound.
        DataError: The data are missing or damaged.
    """
    manifest = read_manifest(folder)
    try:
        config = RunConfig.model_validate(manifest.recipe["config"])
    except (KeyError, ValueError) as error:
        raise BundleError(f"{folder.name} was trained by no recipe of this version: {error}") from error
    parts = load_image_parts(config, data_dir, prepared)
    graph = Graph(folder / "encoder.onnx", "cpu")

    def embed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return embed_images(graph, images)

    measurement = measure_parts_evidence(config, parts, embed)
    changed = write_measured(
        folder,
        manifest,
        measurement,
        plots=OF_EVIDENCE,
        unit="images" if parts.closed else "subjects",
        how="with the exported graph",
    )
    load_bundle(folder, "cpu")
    return changed


@click.command(help=__doc__)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    envvar="VISAVIS_DATA",
    required=True,
    help="where public sets lie  [env: VISAVIS_DATA]",
)
@click.argument(
    "bundles",
    nargs=-1,
    required=True,
    metavar="PATH...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
def main(data: Path, bundles: tuple[Path, ...]) -> None:
    """Run the command."""
    for path in bundles:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                manifest = remeasure_bundle(path.resolve(), data, Path(scratch))
        except (VisavisError, ValueError, OSError) as error:
            raise click.ClickException(f"{path}: {error}") from error
        click.echo(f"{path}: {manifest.evidence.source}, digest {manifest.digest}")


if __name__ == "__main__":
    main()
