"""The losses again, from their definitions, in plain float64 loops: slow, and independent of the code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Triplets:
    """Loss, and how many triplets are easy, semi-hard and hard."""

    loss: float
    counts: tuple[int, int, int]


def distance(a: Sequence[float], b: Sequence[float], squared: bool = False) -> float:
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += (float(x) - float(y)) ** 2
    return total if squared else math.sqrt(total)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    norm_a, norm_b = math.sqrt(sum(float(x) ** 2 for x in a)), math.sqrt(sum(float(x) ** 2 for x in b))
    if norm_a == 0 or norm_b == 0:
        return 0.0
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / norm_a / norm_b


def contrastive(distances: Sequence[float], same: Sequence[bool], margin: float) -> float:
    costs = []
    for d, mated in zip(distances, same, strict=True):
        costs.append(d**2 if mated else max(margin - d, 0.0) ** 2)
    return sum(costs) / len(costs)


def cross_entropy(logit: float, mated: bool) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if mated else 1 - probability)


def halves(cost: Callable[[int, int, bool], float], labels: Sequence[int]) -> float:
    """Return half the mean over mated plus half the mean over non-mated pairs i < j."""
    mated: list[float] = []
    nonmated: list[float] = []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            same = labels[i] == labels[j]
            (mated if same else nonmated).append(cost(i, j, same))
    return 0.5 * (mean(mated) + mean(nonmated))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def batch_contrastive(embeddings: Vectors, labels: Sequence[int], margin: float) -> float:
    def cost(i: int, j: int, same: bool) -> float:
        return contrastive([distance(embeddings[i], embeddings[j])], [same], margin)

    return halves(cost, labels)


def kinds(mined: Sequence[tuple[float, float]], margin: float) -> tuple[int, int, int]:
    """Count (distance to positive, distance to negative) by kind."""
    easy = semi_hard = hard = 0
    for to_positive, to_negative in mined:
        if to_negative >= to_positive + margin:
            easy += 1
        elif to_negative > to_positive:
            semi_hard += 1
        else:
            hard += 1
    return easy, semi_hard, hard


def costs(mined: Sequence[tuple[float, float]], margin: float) -> list[float]:
    return [max(to_positive - to_negative + margin, 0.0) for to_positive, to_negative in mined]


def batch_all(
    embeddings: Vectors, labels: Sequence[int], margin: float, squared: bool = False, active_only: bool = True
) -> Triplets:
    mined = []
    everyone = range(len(labels))
    for a in everyone:
        for p in everyone:
            for n in everyone:
                if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                    to_positive = distance(embeddings[a], embeddings[p], squared)
                    mined.append((to_positive, distance(embeddings[a], embeddings[n], squared)))
    paid = costs(mined, margin)
    if active_only:
        paid = [cost for cost in paid if cost > 0]
    return Triplets(mean(paid), kinds(mined, margin))


def semi_hard(embeddings: Vectors, labels: Sequence[int], margin: float, squared: bool = False) -> Triplets:
    mined = []
    everyone = range(len(labels))
    for a in everyone:
        negatives = [
            distance(embeddings[a], embeddings[n], squared) for n in everyone if labels[n] != labels[a]
        ]
        for p in everyone:
            if a == p or labels[a] != labels[p] or not negatives:
                continue
            to_positive = distance(embeddings[a], embeddings[p], squared)
            farther = [d for d in negatives if d > to_positive]
            mined.append((to_positive, min(farther) if farther else max(negatives)))
    return Triplets(mean(costs(mined, margin)), kinds(mined, margin))


def batch_hard(embeddings: Vectors, labels: Sequence[int], margin: float, squared: bool = False) -> Triplets:
    mined = []
    everyone = range(len(labels))
    for a in everyone:
        positives = [
            distance(embeddings[a], embeddings[p], squared)
            for p in everyone
            if p != a and labels[p] == labels[a]
        ]
        negatives = [
            distance(embeddings[a], embeddings[n], squared) for n in everyone if labels[n] != labels[a]
        ]
        if positives and negatives:
            mined.append((max(positives), min(negatives)))
    return Triplets(mean(costs(mined, margin)), kinds(mined, margin))


def closest_negatives(
    first: Vectors,
    second: Vectors,
    margin: float,
    labels: Sequence[int] | None = None,
    exclude_closer: bool = True,
) -> list[float]:
    rows = []
    for i in range(len(first)):
        mated = cosine(first[i], second[i])
        negatives = []
        for j in range(len(second)):
            if j != i and (labels is None or labels[i] != labels[j]):
                negatives.append(cosine(first[i], second[j]))
        eligible = [c for c in negatives if c <= mated or not exclude_closer]
        row = 0.0
        if negatives:
            row += max(margin - mated + mean(negatives), 0.0)
        if eligible:
            row += max(margin - mated + max(eligible), 0.0)
        rows.append(row)
    return rows


def margin_softmax(cosines: Vectors, labels: Sequence[int], scale: float, margin: float) -> float:
    paid = []
    for row, label in zip(cosines, labels, strict=True):
        logits = []
        for subject, value in enumerate(row):
            logits.append(scale * (float(value) - (margin if subject == label else 0.0)))
        paid.append(math.log(sum(math.exp(logit) for logit in logits)) - logits[label])
    return mean(paid)


def gradient(function: Callable[[Vectors], float], at: Vectors, step: float = 1e-5) -> Vectors:
    """Return the gradient by central differences."""
    slope = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[index] += step
        behind[index] -= step
        slope[index] = (function(ahead) - function(behind)) / (2 * step)
    return slope
