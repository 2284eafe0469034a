"""Request ids, JSON log lines and Prometheus metrics. None of them ever holds an image, template or key."""

from __future__ import annotations

import logging
import os
import sys
from contextvars import ContextVar
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from pythonjsonlogger.json import JsonFormatter

_request_id: ContextVar[str] = ContextVar("request_id", default="-")

REQUESTS: Final = Counter("visavis_requests_total", "Answers sent", ["method", "route", "status"])
DURATION: Final = Histogram(
    "visavis_request_seconds",
    "Seconds from the first byte of a request to the last of its answer",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
STAGES: Final = Histogram(
    "visavis_stage_seconds",
    "Seconds a request spent in a stage",
    ["stage"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
DECISIONS: Final = Counter("visavis_decisions_total", "Decisions made", ["route", "model", "match"])
REFUSALS: Final = Counter("visavis_problems_total", "Problems answered, by code", ["code"])
WAITING: Final = Gauge(
    "visavis_images_in_progress", "Images being worked on or waiting", multiprocess_mode="livesum"
)
UPLOADS: Final = Gauge(
    "visavis_upload_bytes", "Bytes of request bodies reserved at this moment", multiprocess_mode="livesum"
)


def current_request_id() -> str:
    """Return the id of the request being answered, or '-'."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    """Bind an id to the current task and what it awaits."""
    _request_id.set(value)


def render_metrics() -> tuple[bytes, str]:
    """Return all metrics of all workers in Prometheus' text format, and its media type."""
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _RequestIdFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id()
        record.__dict__.pop("color_message", None)  # uvicorn's copy of the message for terminals
        return True


def configure_logging(level: str) -> None:
    """Send every log line of this process to standard error as one JSON object."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    handler.addFilter(_RequestIdFilter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name != "uvicorn.access"
    # Alembic and python-multipart report their every step.
    for name in ("alembic", "python_multipart"):
        logging.getLogger(name).setLevel("WARNING")
