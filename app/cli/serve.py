"""``visavis serve``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import click
import uvicorn

from app.settings import PREFIX, Settings, load_settings


def _settings_table() -> str:
    lines = ["\b", "Settings, as VISAVIS_<NAME> variables or in .env:"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, Path) and default.is_absolute():
            default = "packaged"
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
    # Worker processes read the environment, not this command line.
    for name, value in given.items():
        os.environ[PREFIX + name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    if settings.workers > 1:
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="visavis-metrics-"))

    # After the variable above, which prometheus_client reads when imported.
    from app.api.observability import configure_logging  # noqa: PLC0415
    from app.context import open_context  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415

    configure_logging(settings.log_level)
    common: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": settings.shutdown_timeout_s,
    }
    # Opened here first, so that a bad bundle or database ends with its reason and not in a worker's log.
    with open_context(settings) as context:
        _announce(settings, context.models.default.images.provider)
        if settings.workers == 1:
            uvicorn.run(create_app(settings, context), **common)
            return
    uvicorn.run("app.main:app_from_environment", factory=True, workers=settings.workers, **common)


def _announce(settings: Settings, provider: str) -> None:
    import logging  # noqa: PLC0415 - the logger belongs to the configuration made above

    logger = logging.getLogger("visavis.serve")
    logger.info("models %s run on %s", ", ".join(settings.models), provider)
    if settings.insecure:
        logger.warning("no API key is asked for on %s:%s (insecure)", settings.host, settings.port)
    elif not settings.loopback:
        logger.info("requests need an API key; make one with: visavis keys create NAME")
