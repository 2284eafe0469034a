"""The built wheel is complete and works away from the checkout."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from app import __version__

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def files_of(folder: str) -> set[str]:
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution as a package index would get both."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    assert (folder / f"visavis-{__version__}.tar.gz").is_file()
    return folder / f"visavis-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel alone."""
    site = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel)
    return site


@pytest.fixture
def environment(installed: Path) -> dict[str, str]:
    """Variables with which Python finds the installed wheel before the checkout, and no setting of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VISAVIS_")}
    return {**kept, "PYTHONPATH": str(installed)}


def test_wheel_has_code_bundles_migrations_and_licences_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    info = f"visavis-{__version__}.dist-info"
    resources = files_of("models") | files_of("migrations")
    expected = files_of("app") | files_of("training") | {f"app/_resources/{name}" for name in resources}
    assert {name for name in names if not name.startswith(info)} == expected
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= names


def test_installed_wheel_checks_its_own_bundle(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    def visavis(*args: str | Path) -> str:
        return run(sys.executable, installed / "bin" / "visavis", *args, cwd=tmp_path, env=environment)

    assert visavis("--version").strip().endswith(__version__)
    listed = [line.split()[0] for line in visavis("models", "list").splitlines()]
    assert {"faces", "digits"} <= set(listed)
    bundle = installed / "app" / "_resources" / "models" / "faces"
    assert visavis("models", "verify", bundle).startswith("faces is sound")


def test_installed_wheel_serves_from_an_empty_folder(
    installed: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    log = tmp_path / "log"
    with log.open("wb") as output:
        service = subprocess.Popen(
            [sys.executable, installed / "bin" / "visavis", "serve", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while not ready(port):
            assert service.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
    finally:
        service.send_signal(signal.SIGTERM)
        code = service.wait(60)
    assert code == 0, log.read_text(encoding="utf-8")
    assert (tmp_path / "visavis.db").is_file()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
