"""What a run ran on, for its report: versions and cores, no names of machines or people."""

from __future__ import annotations

import platform
from importlib.metadata import version

from app.encoding.cores import available_cores

PACKAGES = ("visavis", "tensorflow", "keras", "onnxruntime-gpu", "onnxruntime", "numpy")


def environment() -> dict[str, str]:
    """Return versions of what computes, and the number of cores."""
    known = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            known[package] = version(package)
        except ModuleNotFoundError:
            continue
    return {**known, "cores": str(available_cores())}
