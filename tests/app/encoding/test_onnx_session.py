"""ONNX Runtime is loaded as the service wants it."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.encoding import onnx_session
from app.encoding.onnx_session import Graph
from app.errors import BundleError, StartupError
from tests.support.bundles import angle_encoder


def test_telemetry_is_off_before_onnx_runtime_is_loaded() -> None:
    program = (
        "import os, sys, builtins\n"
        "real = builtins.__import__\n"
        "def spy(name, *rest):\n"
        "    if name == 'onnxruntime' and name not in sys.modules:\n"
        "        print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = spy\n"
        "import app.context\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph of the ``angles`` model: two grey pixels to a unit vector."""
    path = tmp_path_factory.mktemp("graph") / "encoder.onnx"
    path.write_bytes(angle_encoder())
    return path


def test_outputs_come_by_name(encoder_file: Path) -> None:
    graph = Graph(encoder_file, "cpu")
    images = np.array([[[[3], [4]]], [[[0], [9]]]], np.uint8)
    assert graph(images)["embeddings"] == pytest.approx(np.array([[0.6, 0.8], [0.0, 1.0]]))


def test_inputs_and_outputs_are_described(encoder_file: Path) -> None:
    graph = Graph(encoder_file, "cpu")
    assert graph.provider == "cpu"
    assert graph.inputs == {"images": ("tensor(uint8)", ["N", 1, 2, 1])}
    assert graph.outputs == {"embeddings": ("tensor(float)", ["N", 2])}


def test_threads_share_one_graph(encoder_file: Path) -> None:
    graph = Graph(encoder_file, "cpu")
    images = np.random.default_rng(0).integers(1, 256, (64, 1, 2, 1), np.uint8)
    together = graph(images)["embeddings"]
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda image: graph(image[None])["embeddings"][0], images))
    assert np.array_equal(np.stack(alone), together)


@pytest.mark.parametrize("data", [b"", b"not a graph", angle_encoder()[:-40]])
def test_damaged_graph_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "encoder.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"^encoder\.onnx cannot be loaded: "):
        Graph(tmp_path / "encoder.onnx", "cpu")


@pytest.mark.skipif(onnx_session._cuda_device_present(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused_not_run_on_the_cpu(encoder_file: Path) -> None:
    with pytest.raises(StartupError, match="asked for, but onnxruntime fell back to the CPU"):
        Graph(encoder_file, "cuda")


@pytest.mark.skipif(onnx_session._cuda_device_present(), reason="this machine has a GPU")
def test_auto_without_a_gpu_runs_on_the_cpu(encoder_file: Path) -> None:
    assert Graph(encoder_file, "auto").provider == "cpu"
