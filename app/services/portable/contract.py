"""What a file of embeddings says of itself, and its rows by columns."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.encoding.manifest import Sha256
from app.errors import InvalidRequestError
from app.matching.distances import Metric

CONTRACT_KEY: Final = "visavis_export"
"""Where a JSON line or a Parquet schema has the contract."""
TEXT_COLUMNS: Final = ("identity", "metadata", "quality", "face", "created_at", "reference_id")
"""Columns beside ``embedding``; all but the first may be missing, and the last is not read back."""
JSON_COLUMNS: Final = ("metadata", "quality", "face")
"""Columns whose text is a JSON object."""


class Contract(BaseModel):
    """Which embeddings a file holds, and where they come from. Fields that are not known are passed over."""

    model_config = ConfigDict(frozen=True)

    visavis_export: Literal[1]
    model_id: str
    model_digest: Sha256
    dimensions: Annotated[int, Field(ge=1)]
    metric: Metric
    collection: str | None = None
    revision: int | None = None
    created_at: datetime | None = None
    """When the file was made."""


@dataclass(frozen=True)
class Rows:
    """Rows of a source that follow one another.

    Attributes:
        start: How many rows come before.
        identities: The caller's names as they stand there; anything but text is refused later.
        embeddings: float32[N, D]; zero where there is a problem.
        problems: Why a row cannot be used, by its number among these.
        columns: Further columns by name; values are objects, JSON text, or None.
    """

    start: int
    identities: Sequence[object]
    embeddings: NDArray[np.float32]
    problems: dict[int, str] = field(default_factory=dict)
    columns: dict[str, Sequence[object]] = field(default_factory=dict)


class Source(Protocol):
    """A file of embeddings, open."""

    contract: Contract | None
    rows: int

    def read(self, start: int, size: int, dimensions: int) -> Iterator[Rows]:
        """Yield the rows from a position on, at most ``size`` at a time.

        Raises:
            InvalidRequestError: The file is damaged, or its embeddings have another dimension throughout.
        """

    def close(self) -> None:
        """Close the file."""


def parse_contract(text: str | bytes) -> Contract:
    """Return the contract from its JSON.

    Raises:
        InvalidRequestError: It is not one, or of a version that is not known here.
    """
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "contract"
        refuse_source(f"its contract is not one that this version reads ({name}: {first['msg']})")


def refuse_source(problem: str) -> NoReturn:
    """Refuse a file.

    Raises:
        InvalidRequestError: Always.
    """
    raise InvalidRequestError([{"field": "source", "problem": problem}])


def json_object(text: object) -> dict[str, Any] | None:
    """Return a column's value as an object; None, and an empty text, are None.

    Raises:
        ValueError: It is something else.
    """
    if text is None or text == "":
        return None
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
    if text is None or isinstance(text, dict):
        return text
    raise ValueError("a JSON object is wanted")


def embedding_of(value: object, dimensions: int) -> NDArray[np.float32]:
    """Return float32[D] from a list of numbers, or from base64 of little-endian float32.

    Raises:
        ValueError: It is neither, or has another dimension.
    """
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the embedding is neither a list of numbers nor base64") from None
        if len(data) % 4:
            raise ValueError(f"the embedding has {len(data)} bytes, which are no float32 numbers")
        row = np.frombuffer(data, "<f4").astype(np.float32)
    elif isinstance(value, list) and all(type(number) in {int, float} for number in value):
        try:
            with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as that
                row = np.array(value, np.float64).astype(np.float32)
        except OverflowError:
            raise ValueError("the embedding is not finite") from None
    else:
        raise ValueError("the embedding is neither a list of numbers nor base64")
    if row.size != dimensions:
        raise ValueError(f"the embedding has {row.size} dimensions; {dimensions} are wanted")
    return row
