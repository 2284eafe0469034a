"""``visavis serve``. The service itself is imported when it starts, so that its help comes at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from app.errors import StartupError
from app.settings import PREFIX, Settings, load_settings


def _settings_table() -> str:
    lines = ["\b", "Settings, as VISAVIS_<NAME> variables or in .env:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, Path) and default.is_absolute():
            default = "packaged"
        if default is None:
            default = "none"
        lines.append(f"  {PREFIX}{name.upper()}  {field.description}  [{default}]")
    return "\n".join(lines)


@click.command(epilog=_settings_table())
@click.option("--host", help="Address to bind; any but loopback needs API keys or --insecure.")
@click.option("--port", type=int, help="TCP port.")
@click.option("--workers", type=int, help="Processes.")
@click.option("--database-url", metavar="URL", help="SQLAlchemy URL of the store.")
@click.option("--models-dir", type=click.Path(), help="Folder of bundles.")
@click.option("--models", help="Comma-separated ids of bundles; the first is the default.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), help="Where models run.")
@click.option("--insecure", is_flag=True, default=None, help="Ask for no API key, whatever the address.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Least level logged."
)
def serve(**flags: Any) -> None:  # noqa: ANN401 - settings by name
    """Start the HTTP service.

    A SQLite store is created and upgraded by itself; for PostgreSQL run 'visavis db upgrade' first. Every
    flag is also a setting, read from the environment or from .env; the flag wins.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    settings = load_settings(**given)
    # Read when numpy is imported, which is later. Its threads wait for one another in a busy loop: with all
    # cores at work a search of a hundred thousand templates took ten times as long.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Worker processes read the environment, not this command line.
    for name, value in given.items():
        os.environ[PREFIX + name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    common: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": settings.shutdown_timeout_s,
    }
    if settings.workers == 1:
        _serve_here(settings, common)
    else:
        _serve_with_workers(settings, common)


def _serve_with_workers(settings: Settings, common: dict[str, Any]) -> None:
    import uvicorn  # noqa: PLC0415

    # Tried first in a process of its own, so that a bad bundle or database ends with its reason here and
    # not in workers that are started again and again, and this supervisor holds no model in memory.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as trial:
        trial.submit(_try_start).result()
    with tempfile.TemporaryDirectory(prefix="visavis-metrics-") as folder:
        # Where the workers share their counters; read by prometheus_client when a worker imports it.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        from app.api.observability import configure_logging  # noqa: PLC0415

        configure_logging(settings.log_level)
        uvicorn.run("app.main:app_from_environment", factory=True, workers=settings.workers, **common)


def _serve_here(settings: Settings, common: dict[str, Any]) -> None:
    import uvicorn  # noqa: PLC0415

    from app.api.observability import configure_logging  # noqa: PLC0415
    from app.context import open_context  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415

    configure_logging(settings.log_level)
    # uvicorn raises the signal again once it has answered what was in flight; leave in order then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with open_context(settings) as context:
        server = uvicorn.Server(uvicorn.Config(create_app(settings, context), **common))
        with closing(_listen(settings)) as listener:
            server.run(sockets=[listener])


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (while ")[0]  # create_server repeats the address there
        raise StartupError(
            f"{settings.host}:{settings.port} cannot be listened on ({reason}); "
            "choose another with --host and --port"
        ) from error


def _try_start() -> None:
    from app.context import open_context  # noqa: PLC0415

    settings = load_settings()
    _listen(settings).close()
    with open_context(settings):
        pass
