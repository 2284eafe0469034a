"""Make golden pairs: synthetic images whose distances lie just below and just above the thresholds.

A pair is a pattern of ``golden.npz`` and a blend of that pattern with a drawn shape. Blend 0 is the pattern
itself, at distance 0; towards the shape the distance grows, and bisection finds the blend where it crosses
the threshold. The blends join ``images``, so that their embeddings are golden too. All of it is integer
arithmetic and a float64 run of the graph, so the file comes out the same on every machine.

A threshold that no blend reaches (a weak encoder tells synthetic images apart less well than real ones)
gets the nearest pair that is reachable: the shape at full strength, below it, and none above. Where two
thresholds lie closer together than the margins, a pair that is too near to one of them is left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from app.encoding.golden import GOLDEN_NAME, GOLDEN_TOLERANCE, Golden
from app.encoding.onnx_session import Graph
from app.matching.decision import OperatingPoint
from app.matching.distances import Metric, distance, distances
from training.importers.onnx_graph import reference_outputs

Encode = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
"""uint8[N, H, W, C] to float[N, D]."""

MARGIN = 3 * GOLDEN_TOLERANCE
"""Least distance of a golden pair from every threshold, in the unit of the metric, times the threshold where
that is above 1 (``l1`` has no fixed scale). Far above what rounding does to a distance, and small enough that
an encoder a little off decides otherwise."""

STEPS = 1 << 14
"""Blends between a pattern and a shape."""

TRIES = 6
"""Paths tried for a threshold until one has both its pairs within two margins."""

UNSURE = 1e-5
"""Two runs of a graph in float32 differ by less. A comparison closer than this is left to the float64 run, so
that every machine bisects alike."""


def shapes(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Return uint8[10, H, W, C]: bars, a disc, a half and a diagonal, black on white and white on black."""
    row, column = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    y, x = 2 * row - (height - 1), 2 * column - (width - 1)
    masks = [
        np.abs(x) * 5 < width,
        np.abs(y) * 5 < height,
        100 * ((x * height) ** 2 + (y * width) ** 2) < 36 * (height * width) ** 2,
        x < 0,
        np.abs(x * height - y * width) * 6 < height * width,
    ]
    drawn = np.stack([ink for mask in masks for ink in (~mask, mask)]).astype(np.uint8) * 255
    return np.repeat(drawn[..., None], channels, axis=3)


def blend(pattern: NDArray[np.uint8], shape: NDArray[np.uint8], share: int) -> NDArray[np.uint8]:
    """Return ``share / STEPS`` of the shape and the rest of the pattern, dithered to whole grey levels.

    Each pixel rounds up from another fraction on, so that they change one after another and the distance
    grows in small steps.
    """
    mixed = pattern.astype(np.int64) * (STEPS - share) + shape.astype(np.int64) * share
    # Knuth's multiplicative hash, The Art of Computer Programming 3, 6.4: neighbours get far-off fractions.
    scattered = (np.arange(mixed.size).reshape(mixed.shape) * 2654435761) % 2**32 * STEPS // 2**32
    return ((mixed + scattered) // STEPS).astype(np.uint8)


def margin(threshold: float) -> float:
    """Return how far from a threshold a golden pair lies at least."""
    return MARGIN * max(1.0, threshold)


def with_pairs(
    images: NDArray[np.uint8],
    embeddings: NDArray[np.float32],
    *,
    thresholds: Sequence[float],
    metric: Metric,
    quick: Encode,
    exact: Encode,
) -> Golden:
    """Add up to two golden pairs for every threshold.

    Args:
        images: uint8[N, H, W, C], patterns.
        embeddings: float32[N, D] of these, the reference's.
        thresholds: Of the operating points.
        metric: Of the bundle.
        quick: The encoder on ONNX Runtime, for the search.
        exact: The encoder in float64, for what is stored and wherever ``quick`` is not sure.
    """
    paths = _Paths(images, embeddings, metric, quick, exact)
    blends: list[NDArray[np.uint8]] = []
    pairs: list[tuple[int, int]] = []
    seen: set[tuple[int, int, int]] = set()
    for number, threshold in enumerate(thresholds):
        pattern, shape, below, above = paths.around(threshold, number)
        for share in (below, above):
            if share is not None and (pattern, shape, share) not in seen:
                seen.add((pattern, shape, share))
                pairs.append((pattern, len(images) + len(blends)))
                blends.append(paths.image(pattern, shape, share))
    if not pairs:
        return Golden(images, embeddings, np.empty((0, 2), np.int32), np.empty(0))
    all_images = np.concatenate([images, np.stack(blends)])
    all_embeddings = np.concatenate([embeddings, exact(np.stack(blends)).astype(np.float32)])
    first, second = np.array(pairs).T
    apart = distances(all_embeddings[first], all_embeddings[second], metric)
    clear = np.array([all(abs(d - t) >= 0.99 * margin(t) for t in thresholds) for d in apart.tolist()])
    # What is too near to a threshold goes, and its image with it.
    kept = np.concatenate([np.ones(len(images), bool), clear])
    places = np.cumsum(kept) - 1
    return Golden(
        all_images[kept],
        all_embeddings[kept],
        np.stack([first[clear], places[second[clear]]], axis=1).astype(np.int32),
        apart[clear],
    )


class _Paths:
    """Blends from each pattern to each shape, and the distances along them."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        embeddings: NDArray[np.float32],
        metric: Metric,
        quick: Encode,
        exact: Encode,
    ) -> None:
        self._images, self._embeddings, self._metric = images, embeddings, metric
        self._quick, self._exact = quick, exact
        _, height, width, channels = images.shape
        self._shapes = shapes(height, width, channels)
        ends = quick(self._shapes)
        lengths = {
            (pattern, shape): distance(embeddings[pattern], ends[shape], metric)
            # Shape by shape, so that each threshold gets another pattern.
            for shape, pattern in itertools.product(range(len(ends)), range(len(images)))
        }
        # An encoder that divides by the ink there is may have no answer for a blank image.
        self._lengths = {path: length for path, length in lengths.items() if math.isfinite(length)}

    def around(self, threshold: float, number: int) -> tuple[int, int, int | None, int | None]:
        """Return a pattern, a shape, and the blends of these next below and next above a threshold.

        Each is a margin away from it; None where there is none. An encoder may jump on a path (one that
        turns white on black into black on white does), so that the nearest blend is far away: then the next
        path is tried, ``TRIES`` in all.

        Args:
            threshold: In the unit of the metric.
            number: Of the threshold; each begins with another path.
        """
        width = margin(threshold)
        low, high = threshold - width, threshold + width
        reaching = [path for path, length in self._lengths.items() if length > high + UNSURE]
        if not reaching:
            pattern, shape = max(self._lengths, key=self._lengths.__getitem__)
            return pattern, shape, self._crossing(pattern, shape, low)[0] if low > 0 else None, None
        found = []
        for place in range(number, number + TRIES):
            pattern, shape = reaching[place % len(reaching)]
            below = self._crossing(pattern, shape, low)[0] if low > 0 else None
            above = self._crossing(pattern, shape, high)[1]
            found.append((pattern, shape, below, above))
            near_below = below is None or self._beyond(pattern, shape, below, low - width)
            near_above = above is None or not self._beyond(pattern, shape, above, high + width)
            if near_below and near_above:
                return found[-1]
        return found[0]

    def image(self, pattern: int, shape: int, share: int) -> NDArray[np.uint8]:
        return blend(self._images[pattern], self._shapes[shape], share)

    def _crossing(self, pattern: int, shape: int, wanted: float) -> tuple[int, int | None]:
        """Return two neighbouring blends, the first nearer than a distance, the second not; the second is
        None where the path ends before it.
        """
        if not self._beyond(pattern, shape, STEPS, wanted):
            return STEPS, None
        near, far = 0, STEPS
        while far - near > 1:
            middle = (near + far) // 2
            if self._beyond(pattern, shape, middle, wanted):
                far = middle
            else:
                near = middle
        return near, far

    def _beyond(self, pattern: int, shape: int, share: int, wanted: float) -> bool:
        image = self.image(pattern, shape, share)[None]
        start = self._embeddings[pattern]
        apart = distance(start, self._quick(image)[0], self._metric)
        if abs(apart - wanted) < UNSURE * max(1.0, wanted):
            apart = distance(start, self._exact(image)[0], self._metric)
        return apart > wanted


def add_pairs(folder: Path, points: Sequence[OperatingPoint], metric: Metric) -> Golden:
    """Write ``golden.npz`` of a bundle anew: its patterns as they are, with pairs for these thresholds.

    Args:
        folder: With ``encoder.onnx``, and ``golden.npz`` that holds at least ``images`` and ``embeddings``.
        points: Operating points of the bundle.
        metric: Of the bundle.
    """
    with np.load(folder / GOLDEN_NAME, allow_pickle=False) as stored:
        # The second image of a pair is a blend, made for thresholds that may have changed.
        patterns = np.ones(len(stored["images"]), bool)
        if "pairs" in stored.files:
            patterns[stored["pairs"][:, 1]] = False
        images, embeddings = stored["images"][patterns], stored["embeddings"][patterns]
    graph = Graph(folder / "encoder.onnx", "cpu")
    model = onnx.load(folder / "encoder.onnx")
    golden = with_pairs(
        images,
        embeddings,
        thresholds=[point.threshold for point in points],
        metric=metric,
        quick=lambda batch: graph(batch)["embeddings"],
        exact=lambda batch: reference_outputs(model, batch),
    )
    save_golden(folder, golden)
    return golden


def save_golden(folder: Path, golden: Golden) -> None:
    """Write the arrays of ``golden.npz``."""
    np.savez(
        folder / GOLDEN_NAME,
        images=golden.images,
        embeddings=golden.embeddings,
        pairs=golden.pairs,
        pair_distance=golden.pair_distance,
    )
