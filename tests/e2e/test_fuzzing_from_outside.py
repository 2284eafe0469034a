"""The command that docs and ``schemathesis.toml`` give an outside person, against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from tests.support.server import ROOT, running


def test_plain_run_of_schemathesis_finds_nothing(tmp_path: Path, angle_models: Path) -> None:
    with running(tmp_path, angle_models, "angles,other") as server:
        paths = json.loads(urlopen(f"{server.url}/openapi.json", timeout=10).read())["paths"]
        operations = sum(len(methods) for methods in paths.values())
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json"),
            *("--checks", "all", "--continue-on-failure", "--max-examples", "10", "--seed", "5"),
            *("--generation-database", "none", "--report-dir", str(tmp_path)),
        ]
        environment = {name: v for name, v in os.environ.items() if not name.startswith("SCHEMATHESIS_")}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Selected: {operations}/{operations}" in done.stdout
