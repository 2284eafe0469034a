"""The one place that knows ONNX Runtime: open a graph on a provider and say which one is in use."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.errors import BundleError, StartupError

# ONNX Runtime's builds report their use to Microsoft over HTTPS and keep a device identifier, on Linux too,
# unless this is set before it is loaded (its Privacy.md). A service for biometric data calls nobody.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

Provider = Literal["auto", "cpu", "cuda"]

ort.set_default_logger_severity(3)
logger = logging.getLogger("visavis.models")


class Graph:
    """A loaded ONNX graph with one input ``images`` and named outputs. Safe to call from many threads."""

    def __init__(self, source: Path, provider: Provider) -> None:
        options = ort.SessionOptions()
        # One thread per run and as many runs at once as cores: two-thread runs wait on each other at
        # every operator and collapse when a core is busy.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        # A remembered memory plan for every input shape seen only costs memory here: no run is faster for it.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(source, options, providers=_wanted(provider))
        except Exception as error:  # onnxruntime raises its own classes for every kind of damage
            raise BundleError(f"{source.name} cannot be loaded: {error}") from error
        self.provider = _in_use(self._session)
        if provider == "cuda" and self.provider != "cuda":
            raise StartupError(
                "provider cuda was asked for, but onnxruntime fell back to the CPU: check the driver, "
                "install visavis[cuda], or set VISAVIS_PROVIDER=auto"
            )
        if provider == "auto" and self.provider == "cpu" and _cuda_device_present():
            logger.warning("a GPU is there but %s runs on the CPU: install visavis[cuda]", source.name)
        self.inputs = {item.name: (item.type, list(item.shape)) for item in self._session.get_inputs()}
        self.outputs = {item.name: (item.type, list(item.shape)) for item in self._session.get_outputs()}
        self._names = list(self.outputs)

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on uint8[N, H, W, C] and return its outputs by name."""
        values = self._session.run(self._names, {"images": images})
        return dict(zip(self._names, values, strict=True))


def _wanted(provider: Provider) -> list[str | tuple[str, dict[str, str]]]:
    if provider == "cpu" or (provider == "auto" and not _cuda_device_present()):
        return ["CPUExecutionProvider"]
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    # TF32 keeps ten bits of a fraction: embeddings would differ from the golden ones by more than allowed.
    return [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]


def _cuda_device_present() -> bool:
    # get_available_providers() lists what the build could use, GPU or not, so ask the system.
    return "CUDAExecutionProvider" in ort.get_available_providers() and (
        Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() or os.name == "nt"
    )


def _in_use(session: ort.InferenceSession) -> Literal["cpu", "cuda"]:
    # Only the session knows what it really runs on: a failed CUDA start is but a log line.
    return "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
