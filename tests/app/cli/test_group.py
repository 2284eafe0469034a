"""The command as a whole: help, lazy loading, errors and exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from tests.support.cli import visavis


def modules_after(*args: str) -> set[str]:
    """Return which modules a fresh interpreter has loaded after a run of the command line."""
    code = (
        "import sys\nfrom app.cli import main\n"
        f"try:\n    main({list(args)!r})\n"
        "except SystemExit:\n    print('MODULES', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.partition("MODULES")[2].split())


def test_help_loads_neither_the_runtime_nor_the_store_nor_numpy() -> None:
    loaded = modules_after("--help")
    assert "click" in loaded
    assert not loaded & {"onnxruntime", "sqlalchemy", "numpy", "PIL", "pydantic", "fastapi", "training"}


def test_evaluating_loads_neither_the_store_nor_tensorflow() -> None:
    loaded = modules_after("evaluate", "verification", "--help")
    assert "training.cli" in loaded
    assert not loaded & {"sqlalchemy", "fastapi", "tensorflow", "keras", "onnx"}


def test_help_lists_every_command_in_one_line_each() -> None:
    text = visavis("--help").stdout
    for name in ("serve", "enroll", "verify", "identify", "embed", "detect", "models", "keys", "evaluate"):
        assert f"\n  {name} " in text


def test_version_is_the_packages() -> None:
    assert visavis("--version").stdout == f"visavis, version {__version__}\n"


def test_unknown_command_is_wrong_usage() -> None:
    result = visavis("enrol")
    assert result.exit_code == 2
    assert "No such command 'enrol'" in result.stderr


def test_refusal_ends_with_code_and_reason_on_standard_error_and_exit_code_1() -> None:
    result = visavis("verify", "absent.png", "at0.png")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "visavis: image_unreadable: image: absent.png: No such file or directory\n"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (("verify", "bad.png", "at0.png"), "image"),
        (("verify", "at0.png", "bad.png"), "other_image"),
        (("enroll", "ada", "bad.png"), "image"),
    ],
)
def test_refusal_of_an_image_names_its_argument(folder: Path, command: tuple[str, ...], field: str) -> None:
    (folder / "bad.png").write_bytes(b"no image")
    assert visavis(*command).stderr.startswith(f"visavis: image_unreadable: {field}: the bytes are no image")


def test_misspelt_setting_is_refused_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_MODEL", "angles")
    result = visavis("models", "list")
    assert result.exit_code == 1
    assert "unknown setting VISAVIS_MODEL; did you mean VISAVIS_MODELS?" in result.stderr


def test_numpy_of_a_service_works_on_one_thread() -> None:
    code = (
        "from app.cli import main, serve\n"
        "def show(*_):\n"
        "    import numpy, threadpoolctl\n"
        "    print(max(pool['num_threads'] for pool in threadpoolctl.threadpool_info()))\n"
        "serve._serve_here = show\n"
        "main(['serve'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "1\n"
