"""A few thousand candidates for the nearest of many unit vectors, and a proof that no other row is nearer.

Each component is kept in four bits. For a row x with quantised form y and a unit probe q,

    q.x <= q.y + |x - y|          (Cauchy-Schwarz)

and ``|x - y|`` is known when the row is stored. FAISS estimates ``q.y`` of every row in one pass over a
sixteenth of the bytes; whoever knows a row at cosine c need look only at rows whose estimate is within the
sum of both errors of c. So the candidates are complete, whatever the data; only their number depends on it.

Rows are turned by a random rotation first, which makes the components alike and the error nearly the same for
every row. Rows with an unusually large error are left out and named in ``outliers``: they are to be measured
always.

Source: FAISS's "fast scan" (Andre, Kermarrec, Le Scouarnec 2015, "Cache locality is not enough", PVLDB 9(4)).
FAISS puts each term of the sum into 8 bits, which adds the error bounded in ``Quantised.estimate_error``;
that the engine keeps to it is checked when rows are quantised.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = 16
REACH: Final = 3.4
"""Standard deviations of a component that the levels span to either side; what lies beyond is cut off."""
BEND: Final = 2.0
"""How much closer the levels lie in the midst than at the ends. This and the reach give unit vectors of
random directions the smallest error that all but the outliers keep to."""
STEPS: Final = 64
"""Steps in a standard deviation to which a component is rounded to find its level."""
OUTLIERS: Final = 0.005
"""Share of rows with the largest errors that are outliers, so that they do not loosen the bound of all."""
ROUNDING: Final = 1e-5
"""Room for float32 arithmetic in rotations and dot products of unit vectors of up to 4,096 components."""


class EngineError(RuntimeError):
    """The engine's estimates are not within the bound that they are trusted for."""


@dataclass(frozen=True)
class Estimates:
    """What one pass over quantised rows found.

    Attributes:
        rows: int64[Q, R], for each probe the rows with the largest estimates, largest first.
        cosines: float32[Q, R], the estimates; above 1 where the row's is not known.
        complete: Whether these are all rows.
    """

    rows: NDArray[np.int64]
    cosines: NDArray[np.float32]
    complete: bool


class Quantised:
    """Quantised copies of rows 0..n-1, which stay as they were when this was made."""

    def __init__(
        self,
        index: Any,  # noqa: ANN401 - faiss has no types
        levels: NDArray[np.float32],
        errors: NDArray[np.float32],
    ) -> None:
        self._index = index
        self._spread = levels.max(axis=1) - levels.min(axis=1)
        self.levels = levels
        self.errors = errors
        """float32[n], the ``|x - y|`` of each row."""
        self.error = float(np.quantile(errors, 1.0 - OUTLIERS, method="inverted_cdf"))
        """The largest of a row that is no outlier."""
        self.outliers = np.flatnonzero(errors > self.error)
        """int64, the rows with a larger one."""

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        """Bytes of the quantised rows."""
        return len(self) * int(self._index.code_size)

    def estimate(self, probes: NDArray[np.float32], count: int) -> Estimates:
        """Return the rows with the largest estimated cosines.

        Args:
            probes: float32[Q, D], unit vectors, turned by ``rotation``.
            count: How many rows to return for each.
        """
        cosines, rows = self._index.search(probes, min(count, len(self)))
        if (rows < 0).any():
            # The engine leaves out rows whose sum comes to its least, as it does where all rows are alike.
            every = np.broadcast_to(np.arange(len(self)), (len(probes), len(self)))
            return Estimates(every, np.full(every.shape, 1.0 + self.error, np.float32), complete=True)
        return Estimates(rows, cosines, complete=count >= len(self))

    def slack(self, probes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how far the true cosine of a row that is no outlier can lie above its estimate.

        Args:
            probes: float32[Q, D], unit vectors, turned by ``rotation``.

        Returns:
            float64[Q].
        """
        return self.error + self.estimate_error(probes)

    def estimate_error(self, probes: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return how far an estimate can lie from the cosine with the quantised row, float64[Q].

        The engine stores ``q_d * level`` of each component as a multiple of one step, 0 to 255, and adds up
        in 16 bits; each of D terms is rounded by half a step.
        """
        spans = np.abs(probes.astype(np.float64)) * self._spread
        step = np.maximum(spans.max(axis=1) / 255.0, spans.sum(axis=1) / 65535.0)
        return np.asarray(0.5 * step * probes.shape[1] + ROUNDING)

    def forget(self, row: int) -> None:
        """Overwrite what is kept of a row, so that a deleted template does not linger."""
        faiss = engine()
        packer = self._index.get_CodePacker()
        block, place = divmod(row, packer.nvec)
        codes = self._index.codes
        held = faiss.rev_swig_ptr(codes.get(), codes.size())[block * packer.block_size :]
        packer.pack_1(np.zeros(packer.code_size, np.uint8), place, held[None, : packer.block_size])

    def to_bytes(self) -> NDArray[np.uint8]:
        """Return uint8[...], from which ``from_bytes`` makes the same again."""
        written: NDArray[np.uint8] = engine().serialize_index(self._index)
        return written

    @classmethod
    def from_bytes(
        cls, data: NDArray[np.uint8], levels: NDArray[np.float32], errors: NDArray[np.float32]
    ) -> Quantised:
        """Return what ``to_bytes`` was called on.

        Raises:
            EngineError: The engine does not keep to its bound with them.
        """
        made = cls(engine().deserialize_index(data), levels, errors)
        made.require_bound()
        return made

    def require_bound(self, probes: int = 16, rows: int = 256) -> None:
        """Compare the engine's estimates with its bound, on random probes and the rows nearest to them.

        Raises:
            EngineError: One lies outside.
        """
        dimensions = len(self.levels)
        drawn = np.random.default_rng(0).standard_normal((probes, dimensions))
        drawn = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        estimates, places = self._index.search(drawn, min(rows, len(self)))
        for probe, own, at, bound in zip(drawn, estimates, places, self.estimate_error(drawn), strict=True):
            for row, estimate in zip(at[:8].tolist(), own[:8].tolist(), strict=True):
                if row >= 0 and abs(float(self._index.reconstruct(row) @ probe) - estimate) > bound:
                    raise EngineError("the search engine's estimates are outside of their bound")


@cache
def rotation(dimensions: int) -> NDArray[np.float32]:
    """Return float32[D, D], one orthogonal matrix for each D, the same in every process."""
    drawn = np.random.default_rng(dimensions).standard_normal((dimensions, dimensions))
    turned, upper = np.linalg.qr(drawn)
    return np.ascontiguousarray(turned * np.sign(np.diag(upper)), np.float32)


def quantise(rows: NDArray[np.float32]) -> Quantised:
    """Quantise unit vectors float32[n, D]; they are not turned yet.

    Raises:
        EngineError: The engine does not keep to its bound with them.
    """
    faiss = engine()
    count, dimensions = rows.shape
    turned = rows @ rotation(dimensions)
    centre, deviation = turned.mean(axis=0), np.maximum(turned.std(axis=0), 1e-6)
    bent = REACH * np.sinh(BEND * np.linspace(-1, 1, LEVELS)) / np.sinh(BEND)
    levels = (centre[:, None] + deviation[:, None] * bent).astype(np.float32)
    ends = int(REACH * STEPS)
    nearest = np.abs(np.arange(-ends, ends + 1)[:, None] / STEPS - bent).argmin(axis=1).astype(np.uint8)
    steps = np.rint((turned - centre) * (STEPS / deviation)).clip(-ends, ends).astype(np.int16)
    codes = nearest[steps + ends]
    errors = np.linalg.norm(turned - np.take_along_axis(levels.T, codes, axis=0), axis=1)
    flat = faiss.IndexPQ(dimensions, dimensions, 4, faiss.METRIC_INNER_PRODUCT)
    faiss.copy_array_to_vector(levels.ravel(), flat.pq.centroids)
    flat.is_trained, flat.ntotal = True, count
    if dimensions % 2:
        codes = np.concatenate([codes, np.zeros((count, 1), np.uint8)], axis=1)
    faiss.copy_array_to_vector((codes[:, 0::2] | codes[:, 1::2] << 4).ravel(), flat.codes)
    made = Quantised(faiss.IndexPQFastScan(flat), levels, (errors + ROUNDING).astype(np.float32))
    made.require_bound()
    return made


@cache
def engine() -> Any:  # noqa: ANN401 - faiss has no types
    """Return the faiss module; imported only where a gallery is large enough to need it.

    Raises:
        ImportError: It is not installed.
    """
    import faiss  # noqa: PLC0415

    # Each search runs on the thread that asks for it; the gallery spreads its parts over threads of its own.
    faiss.omp_set_num_threads(1)
    return faiss
