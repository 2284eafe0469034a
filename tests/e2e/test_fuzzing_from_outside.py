"""The command that docs and ``schemathesis.toml`` give an outside person, against a running service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import ROOT, running


def test_plain_run_of_schemathesis_finds_nothing(tmp_path: Path, angle_models: Path) -> None:
    with running(tmp_path, angle_models, "angles,other") as server:
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
    assert "Selected: 18/18" in done.stdout
