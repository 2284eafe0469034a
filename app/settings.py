"""Every tunable of the service, with unit and default, read from ``VISAVIS_*`` variables and ``.env``.

``visavis serve --help`` prints this table. An unknown ``VISAVIS_`` variable is an error: a misspelt limit
must not silently fall back to its default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.errors import StartupError
from app.resources import resource_dir

PREFIX = "VISAVIS_"


class Settings(BaseSettings):
    """Settings of one process. Field names are the variables' names without the prefix, in lower case."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: str = Field(
        "sqlite:///visavis.db", description="SQLAlchemy URL: sqlite or postgresql+psycopg"
    )
    search_database_url: str = Field(
        "",
        description="URL of a read-only PostgreSQL replica for identify, verify and lists (empty: the store)",
    )
    database_timeout_s: float = Field(
        5.0, gt=0, le=600, description="seconds to wait for a connection, a lock or a statement"
    )
    database_idle_timeout_s: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="seconds that PostgreSQL lets a transaction wait for this process before it ends it",
    )
    database_pool_size: int = Field(
        10, ge=1, le=1000, description="most connections that this process opens, to each database"
    )
    models_dir: Path = Field(
        default_factory=lambda: resource_dir("models"),
        description="folder of bundles (default: the packaged ones)",
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        ("faces",), description="comma-separated ids to load; the first is the default model"
    )
    trusted_keys: Path | None = Field(
        None,
        description="file of Ed25519 public keys, PEM or one base64 a line; one must have signed each bundle",
    )
    provider: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where models run; cuda refuses to start without a working GPU"
    )
    encoder_threads: int = Field(0, ge=0, le=1024, description="images worked on at once (0: one per core)")
    encoder_queue_limit: int = Field(
        64, ge=0, le=100_000, description="images that may wait; the next gets 503"
    )
    search: Literal["exact", "pgvector"] = Field(
        "exact",
        description="exact: in each worker's memory; pgvector: in PostgreSQL, approximate, for more",
    )
    pgvector_ef_search: int = Field(
        200, ge=1, le=1000, description="candidates that a pgvector search keeps in view; more find more"
    )
    snapshot_dir: Path | None = Field(
        None,
        description="folder of this host where large galleries are kept between starts; default: beside a "
        "SQLite store, none with PostgreSQL",
    )
    host: str = Field("127.0.0.1", description="address to bind; any but loopback needs API keys")
    port: int = Field(8000, ge=0, le=65535, description="TCP port")
    workers: int = Field(1, ge=1, le=256, description="processes, each with its own copy of the models")
    insecure: bool = Field(False, description="serve without API keys on an address other than loopback")
    max_image_bytes: int = Field(20 * 2**20, ge=1, le=2**30, description="bytes of one image as sent")
    max_image_pixels: int = Field(64_000_000, ge=1, le=2**30, description="width x height of one image")
    max_pixels_at_once: int = Field(
        128_000_000,
        ge=1,
        description="pixels of all images decoded at one time, about 15 bytes each; more wait",
    )
    decode_timeout_s: float = Field(5.0, gt=0, le=600, description="seconds to decode one image")
    upload_timeout_s: float = Field(30.0, gt=0, le=3600, description="seconds for a request body to arrive")
    upload_memory_bytes: int = Field(
        512 * 2**20, ge=1, description="bytes of request bodies held at once; past it 503"
    )
    idempotency_hours: float = Field(
        24.0, gt=0, le=8760, description="hours that a repeated Idempotency-Key gets the first answer"
    )
    revision_timeout_s: float = Field(
        1.0, ge=0, le=60, description="seconds that a read waits for the revision of its If-Revision"
    )
    shutdown_timeout_s: int = Field(
        30, ge=0, le=3600, description="seconds that requests in flight may finish in"
    )
    min_face_size: float = Field(
        24.0, ge=0, description="pixels: shorter side of the face box below which enrolment is refused"
    )
    min_sharpness: float = Field(0.0, ge=0, description="floor of quality.sharpness at enrolment (0: none)")
    min_brightness: float = Field(0.05, ge=0, le=1, description="floor of quality.brightness at enrolment")
    max_brightness: float = Field(0.98, ge=0, le=1, description="ceiling of quality.brightness at enrolment")
    max_yaw: float = Field(2.0, ge=0, description="ceiling of |quality.yaw| at enrolment (2: profile)")
    data: Path = Field(Path("data"), description="where public data sets are kept (training and tests)")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")

    @model_validator(mode="before")
    @classmethod
    def _split_models(cls, values: Any) -> Any:  # noqa: ANN401 - whatever pydantic collected
        if isinstance(values, dict) and isinstance(values.get("models"), str):
            names = [name.strip() for name in values["models"].split(",")]
            return {**values, "models": tuple(name for name in names if name)}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.models:
            raise ValueError("models: name at least one bundle")
        if len(set(self.models)) != len(self.models):
            raise ValueError("models: a bundle is named twice")
        if self.min_brightness >= self.max_brightness:
            raise ValueError("min_brightness must be below max_brightness")
        if self.max_pixels_at_once < self.max_image_pixels:
            raise ValueError("max_pixels_at_once must hold at least one image of max_image_pixels")
        if self.upload_memory_bytes < self.max_body_bytes:
            raise ValueError(
                "upload_memory_bytes must hold at least one request of two images "
                f"({self.max_body_bytes} bytes with this max_image_bytes)"
            )
        if not self.database_url.startswith(("sqlite://", "postgresql+psycopg://")):
            raise ValueError("database_url must begin with sqlite:// or postgresql+psycopg://")
        if self.search == "pgvector" and self.database_url.startswith("sqlite://"):
            raise ValueError(
                "search=pgvector needs PostgreSQL and database_url names a SQLite store; set "
                "VISAVIS_DATABASE_URL to postgresql+psycopg://..., or VISAVIS_SEARCH to exact"
            )
        if self.search_database_url:
            if not self.search_database_url.startswith("postgresql+psycopg://"):
                raise ValueError(
                    "search_database_url must begin with postgresql+psycopg://; other stores have none, "
                    "so leave it empty to search the store itself"
                )
            if self.database_url.startswith("sqlite://"):
                raise ValueError(
                    "search_database_url names a replica of PostgreSQL and database_url a SQLite store; set "
                    "both to one PostgreSQL's, or leave search_database_url empty"
                )
        return self

    @property
    def max_body_bytes(self) -> int:
        """Largest request body: two images in base64 and a little for the other fields."""
        return 2 * (self.max_image_bytes * 4 // 3 + 4) + 256 * 1024

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def load_settings(**overrides: object) -> Settings:
    """Read the settings; explicit arguments win over variables, variables over ``.env``.

    Raises:
        StartupError: A value is out of range, or a ``VISAVIS_`` variable is unknown.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(str(p) for p in e['loc']).upper()}: {e['msg']}"
            if e["loc"]
            else e["msg"].removeprefix("Value error, ")
            for e in error.errors()
        ]
        raise StartupError("; ".join(lines)) from error


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    names = set(environment)
    env_file = Path(".env")
    if env_file.is_file():
        try:
            lines = env_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"the file .env cannot be read: {error}") from error
        for line in lines:
            names.add(line.removeprefix("export ").split("=", 1)[0].strip())
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise StartupError(f"unknown setting {name}{hint} (visavis serve --help lists them all)")
