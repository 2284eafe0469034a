"""ONNX Runtime is loaded as the service wants it."""

import subprocess
import sys


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
