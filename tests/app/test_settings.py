"""Settings: names, values, their sources, and what contradicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import StartupError
from app.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No ``VISAVIS_`` variable and no ``.env`` but the test's own."""
    import os

    for name in list(os.environ):
        if name.startswith("VISAVIS_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_a_loopback_service_of_the_faces_model() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.models, settings.database_url) == (
        "127.0.0.1",
        8000,
        ("faces",),
        "sqlite:///visavis.db",
    )
    assert settings.loopback


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("VISAVIS_PROT", "VISAVIS_PORT"),
        ("VISAVIS_MODEL", "VISAVIS_MODELS"),
        ("VISAVIS_DATABASEURL", "VISAVIS_DATABASE_URL"),
        ("visavis_hots", "VISAVIS_HOST"),
    ],
)
def test_unknown_variable_is_refused_with_the_one_it_resembles(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(StartupError, match=rf"unknown setting {name}; did you mean {meant}\?"):
        load_settings()


def test_unknown_variable_like_no_other_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_XYZZY", "1")
    with pytest.raises(StartupError, match="unknown setting VISAVIS_XYZZY"):
        load_settings()


@pytest.mark.parametrize("line", ["VISAVIS_PROT=1", "export VISAVIS_PROT=1", " VISAVIS_PROT = 1"])
def test_unknown_name_in_env_file_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# a comment\n\nOTHER=1\n{line}\n")
    with pytest.raises(StartupError, match=r"VISAVIS_PROT.*VISAVIS_PORT"):
        load_settings()


def test_env_file_is_read_and_a_variable_wins_over_it_and_an_argument_over_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("VISAVIS_PORT=1\nVISAVIS_WORKERS=2\nexport VISAVIS_MODELS='a, b'\n")
    assert (load_settings().port, load_settings().workers, load_settings().models) == (1, 2, ("a", "b"))
    monkeypatch.setenv("VISAVIS_PORT", "3")
    assert (load_settings().port, load_settings().workers) == (3, 2)
    assert load_settings(port=4).port == 4


def test_env_file_that_is_not_text_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"VISAVIS_PORT=1\n\xff\xfe")
    with pytest.raises(StartupError, match=r"\.env"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("PORT", ""),
        ("WORKERS", "0"),
        ("PROVIDER", "tpu"),
        ("SEARCH", "fuzzy"),
        ("LOG_LEVEL", "loud"),
        ("INSECURE", "perhaps"),
        ("DATABASE_TIMEOUT_S", "0"),
        ("DATABASE_TIMEOUT_S", "nan"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_IDLE_TIMEOUT_S", "0"),
        ("MAX_IMAGE_BYTES", "0"),
        ("UPLOAD_TIMEOUT_S", "0"),
        ("ENCODER_THREADS", "-1"),
        ("MIN_BRIGHTNESS", "2"),
    ],
)
def test_bad_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VISAVIS_{name}", value)
    with pytest.raises(StartupError, match=f"VISAVIS_{name}: "):
        load_settings()


def test_every_bad_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAVIS_PORT", "x")
    monkeypatch.setenv("VISAVIS_WORKERS", "x")
    with pytest.raises(StartupError, match=r"VISAVIS_PORT.*VISAVIS_WORKERS"):
        load_settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"search_database_url": "sqlite:///replica.db"}, "search_database_url must begin with postgresql"),
        ({"search_database_url": "postgresql+psycopg://h/d"}, "database_url a SQLite store"),
        ({"models": ""}, "name at least one bundle"),
        ({"models": " , "}, "name at least one bundle"),
        ({"models": "a,b,a"}, "named twice"),
        ({"min_brightness": 0.9, "max_brightness": 0.5}, "must be below max_brightness"),
        ({"max_image_bytes": 2**20, "upload_memory_bytes": 2**20}, "at least one request of two images"),
    ],
)
def test_settings_that_contradict_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(StartupError, match=message) as caught:
        load_settings(**values)
    assert "Value error" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a.db", "sqlite:////a/b.db", "postgresql+psycopg://u:p@h/d"])
def test_store_addresses_of_both_kinds_are_accepted(url: str) -> None:
    assert load_settings(database_url=url).database_url == url


@pytest.mark.parametrize(
    "url",
    ["", "visavis.db", "postgres://u:hunter2@h/d", "postgresql://u:hunter2@h/d", "mysql://u:hunter2@h/d"],
)
def test_other_store_addresses_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StartupError, match=r"sqlite:// or postgresql\+psycopg://") as caught:
        load_settings(database_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
        ("localhost.example.org", False),
    ],
)
def test_only_loopback_counts_as_loopback(host: str, loopback: bool) -> None:
    assert load_settings(host=host).loopback is loopback


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_trusted_keys_are_none_unless_a_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().trusted_keys is None
    monkeypatch.setenv("VISAVIS_TRUSTED_KEYS", "keys/team.txt")
    assert load_settings().trusted_keys == Path("keys/team.txt")
