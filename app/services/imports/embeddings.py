"""The rows of a file of embeddings, checked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.encoding.model import Model
from app.errors import InvalidRequestError, ModelMismatchError
from app.services.imports.batch import Batch, Item, Reject, Sample
from app.services.names import identity_name, metadata_object
from app.services.portable.contract import Rows, Source, json_object, refuse_source
from app.storage.bulk import BulkReference
from app.storage.records import Collection, to_bytes

ROWS_OF_A_BATCH: Final = 5_000
"""Rows of one transaction; other writers wait some tenths of a second for it."""
ROWS_OF_AN_IDENTITY: Final = 1_000
"""Rows that are kept together; of an identity with more, the others count as rows of an enrolled one."""
NORM_TOLERANCE: Final = 1e-3
"""By how much the norm of an embedding may be off 1 where the model makes unit vectors."""


class Embeddings:
    """A file on its way into a collection of the model that made it."""

    def __init__(self, source: Source, model: Model, run: str) -> None:
        self._source = source
        self._model = model
        self._run = run
        self.models: tuple[str, ...] = (model.digest,)

    def read(self, start: int) -> Iterator[Batch]:
        """Yield the rows from a position on, in batches that end between identities."""
        batch = Batch(start, start)
        chunks = self._source.read(start, ROWS_OF_A_BATCH, self._model.manifest.dimensions)
        for row, item, reject in itertools.chain.from_iterable(map(self._checked, chunks)):
            last = batch.items[-1] if batch.items else None
            together = (
                last is not None
                and item is not None
                and last.name == item.name
                and row - last.samples[0].row < ROWS_OF_AN_IDENTITY
            )
            # A reject may stand between two rows of an identity.
            if row - batch.start >= ROWS_OF_A_BATCH and item is not None and not together:
                yield batch
                batch = Batch(row, row)
            batch.stop = row + 1
            if reject is not None:
                batch.rejects.append(reject)
            elif item is not None and last is not None and together:
                last.samples += item.samples
                last.metadata = item.metadata if last.metadata is None else last.metadata
            elif item is not None:
                batch.items.append(item)
        if batch.stop > batch.start:
            yield batch

    def image_of(self, row: int) -> str | None:
        """Return None: the rows are no photos."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _checked(self, rows: Rows) -> Iterator[tuple[int, Item | None, Reject | None]]:
        """Yield each row as an identity with one sample, or as a reject."""
        problems = {**unusable(rows.embeddings, unit_length=self._model.unit_length), **rows.problems}
        nothing: Sequence[object] = [None] * len(rows.identities)
        metadata, quality, face, made = (
            rows.columns.get(name, nothing) for name in ("metadata", "quality", "face", "created_at")
        )
        width = 4 * rows.embeddings.shape[1]
        data = to_bytes(rows.embeddings)
        now = datetime.now(UTC)
        for number, given in enumerate(rows.identities):
            row = rows.start + number
            name = given if isinstance(given, str) else None
            try:
                if name is None:
                    raise ValueError("there is no identity, or it is no text")
                name = identity_name(name)
                if number in problems:
                    raise ValueError(problems[number])
                reference = BulkReference(
                    # Ascending, so that the index of a million of them grows at its end.
                    f"{self._run}-{row:012x}",
                    self._model.digest,
                    data[number * width : (number + 1) * width],
                    _object("face", face[number]),
                    _object("quality", quality[number]) or {},
                    _moment(made[number]) or now,
                )
                item = Item(name, _object("metadata", metadata[number]), [Sample(row, (reference,))])
            except InvalidRequestError as error:
                yield row, None, Reject(row, name, error.code, str(error))
            except ValueError as error:
                yield row, None, Reject(row, name, "invalid_request", str(error))
            else:
                yield row, item, None


def check_contract(source: Source, vouched: str | None, collection: Collection, model: Model) -> None:
    """Refuse embeddings that are not those of the collection's model.

    Args:
        source: The file.
        vouched: Digest of the model that made them, as the caller says it.
        collection: Where to.
        model: The collection's.

    Raises:
        InvalidRequestError: The file does not say whose they are, and nobody vouches for it.
        ModelMismatchError: They are another model's.
    """
    contract, manifest = source.contract, model.manifest
    wanted = (model.digest, manifest.dimensions, manifest.metric)
    if contract is None and vouched is None:
        refuse_source(
            "the file does not say which model made its embeddings; if you know, vouch for it with "
            "--model-digest ('visavis models show MODEL' prints the digest)"
        )
    if contract is None:
        stated, name = (vouched, *wanted[1:]), f"a model of digest {str(vouched)[:12]}"
    else:
        stated = (contract.model_digest, contract.dimensions, contract.metric)
        name = f"{contract.model_id} ({contract.model_digest[:12]})"
        if vouched is not None and vouched != contract.model_digest:
            problem = f"the file says that its embeddings are of {name}; leave --model-digest out"
            raise InvalidRequestError([{"field": "model_digest", "problem": problem}])
    if stated != wanted:
        raise ModelMismatchError(
            collection=collection.name,
            bound=f"{collection.model_id} ({collection.model_digest[:12]})",
            other=f"embeddings of {name}",
            remedy="import them into a collection of their own model, or import the photos",
        )


def unusable(embeddings: NDArray[np.float32], *, unit_length: bool) -> dict[int, str]:
    """Return why embeddings float32[N, D] cannot be compared, by row.

    >>> unusable(np.array([[1, 0], [2, 0], [np.nan, 0]], np.float32), unit_length=True)
    {2: 'the embedding is not finite', 1: 'the embedding has norm 2; those of the model have norm 1'}
    """
    finite = np.isfinite(embeddings).all(axis=1)
    problems = {int(row): "the embedding is not finite" for row in np.flatnonzero(~finite)}
    with np.errstate(invalid="ignore"):
        norms = np.sqrt(np.square(embeddings, dtype=np.float64).sum(axis=1))
        off = np.abs(norms - 1.0) > NORM_TOLERANCE if unit_length else norms == 0.0
    for row in np.flatnonzero(finite & off):
        said = "; those of the model have norm 1" if unit_length else ", and no direction to compare"
        problems[int(row)] = f"the embedding has norm {norms[row]:.6g}{said}"
    return problems


def _object(name: str, value: object) -> dict[str, Any] | None:
    """Return metadata, face or quality of a row.

    Raises:
        ValueError, InvalidRequestError: It is no object, or one that would not be kept.
    """
    try:
        found = json_object(value)
    except ValueError:
        raise ValueError(f"{name} is no JSON object") from None
    return None if found is None else metadata_object(found, field=name)


def _moment(value: object) -> datetime | None:
    """Return a moment in UTC.

    Raises:
        ValueError: It is no moment, or has no zone.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"created_at is {value!r}; a moment as in ISO 8601 is wanted") from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("created_at is no moment with a zone")
    return value.astimezone(UTC)
