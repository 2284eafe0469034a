"""Golden inputs: what the encoder made of them where the bundle was written, it must make of them here.

``golden.npz`` holds synthetic images and their embeddings, and pairs of these images whose distances lie just
below and just above the operating points' thresholds. Embeddings may differ in the last digits from provider
to provider; a decision may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import Manifest
from app.encoding.onnx_session import Graph
from app.encoding.seal import RESEAL
from app.errors import BundleError
from app.matching.decision import is_match
from app.matching.distances import distances

GOLDEN_NAME = "golden.npz"

GOLDEN_TOLERANCE = 1e-3
"""Largest difference of one component of a golden embedding; providers differ in the fourth decimal."""


@dataclass(frozen=True)
class Golden:
    """Contents of ``golden.npz``.

    Attributes:
        images: uint8[N, H, W, C].
        embeddings: float32[N, D], the reference's.
        pairs: int32[P, 2], numbers of two images; P may be 0.
        pair_distance: float64[P], of the reference's embeddings, in the unit of the metric.
    """

    images: NDArray[np.uint8]
    embeddings: NDArray[np.float32]
    pairs: NDArray[np.int32]
    pair_distance: NDArray[np.float64]


@dataclass(frozen=True)
class GoldenCheck:
    """What was recomputed, and how far it lay from the reference."""

    provider: str
    images: int
    largest_difference: float
    """Of one component of an embedding."""
    pairs: int
    decisions: int
    """Pairs times operating points; each came out as the reference's."""
    largest_distance_difference: float
    """Of one pair's distance, in the unit of the metric; 0 without pairs."""
    unit_length: bool
    """Whether every embedding has norm 1, as far as ``GOLDEN_TOLERANCE`` tells."""


def read_golden(folder: Path, manifest: Manifest) -> Golden:
    """Read ``golden.npz`` of a bundle.

    Raises:
        BundleError: An array is missing or contradicts the manifest.
    """
    name = f"{folder.name}/{GOLDEN_NAME}"
    with (folder / GOLDEN_NAME).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        if not {"images", "embeddings"} <= set(stored.files):
            raise BundleError(f"{name}: images and embeddings are wanted")
        if not {"pairs", "pair_distance"} <= set(stored.files):
            raise BundleError(
                f"{name}: pairs and pair_distance are wanted (golden decisions); write them with '{RESEAL}'"
            )
        golden = Golden(stored["images"], stored["embeddings"], stored["pairs"], stored["pair_distance"])
    spec, images, pairs, stated = manifest.input, golden.images, golden.pairs, golden.pair_distance
    if images.shape[1:] != (spec.height, spec.width, spec.channels) or images.dtype != np.uint8:
        raise BundleError(f"{name}: images are {images.dtype} {images.shape}")
    if golden.embeddings.shape != (len(images), manifest.dimensions) or len(images) == 0:
        raise BundleError(f"{name}: embeddings are {golden.embeddings.shape}")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise BundleError(f"{name}: pairs are {pairs.dtype} {pairs.shape}")
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < len(images)):
        raise BundleError(f"{name}: pairs name an image that is not there; there are {len(images)}")
    if stated.shape != (len(pairs),) or stated.dtype != np.float64 or not np.isfinite(stated).all():
        raise BundleError(f"{name}: pair_distance is {stated.dtype} {stated.shape}, or not finite")
    return golden


def check_golden(folder: Path, manifest: Manifest, encoder: Graph) -> GoldenCheck:
    """Recompute golden embeddings and golden decisions on the provider in use.

    Raises:
        BundleError: An embedding differs by more than ``GOLDEN_TOLERANCE``, or a decision at all.
    """
    name = f"{folder.name}/{GOLDEN_NAME}"
    golden = read_golden(folder, manifest)
    found = encoder(golden.images)["embeddings"]
    worst = float(np.abs(found - golden.embeddings).max())
    if not worst <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{name}: the encoder's embeddings differ by {worst:.2g} (at most {GOLDEN_TOLERANCE:g} is "
            f"allowed) on provider {encoder.provider}"
        )
    first, second = golden.pairs.T
    recomputed = distances(found[first], found[second], manifest.metric)
    for number, (stated, here) in enumerate(
        zip(golden.pair_distance.tolist(), recomputed.tolist(), strict=True)
    ):
        for point in manifest.operating_points:
            if is_match(here, point.threshold) != is_match(stated, point.threshold):
                raise BundleError(
                    f"{name}: provider {encoder.provider} decides pair {number} (images {first[number]} and "
                    f"{second[number]}) otherwise than the reference at threshold {point.threshold:.6f} "
                    f"({point.name}): {_decision(here, point.threshold)}, the reference "
                    f"{_decision(stated, point.threshold)}"
                )
    moved = np.abs(recomputed - golden.pair_distance)
    return GoldenCheck(
        provider=encoder.provider,
        images=len(golden.images),
        largest_difference=worst,
        pairs=len(golden.pairs),
        decisions=len(golden.pairs) * len(manifest.operating_points),
        largest_distance_difference=float(moved.max()) if moved.size else 0.0,
        unit_length=bool(np.allclose(np.linalg.norm(found, axis=1), 1.0, rtol=0.0, atol=GOLDEN_TOLERANCE)),
    )


def _decision(distance: float, threshold: float) -> str:
    return f"{'match' if is_match(distance, threshold) else 'non-match'} (distance {distance:.6f})"
