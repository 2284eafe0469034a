"""From the tables of a recipe to encoders, objectives and samplers."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from numpy.typing import NDArray

from app.encoding.manifest import InputSpec
from training import config as c
from training import objectives as o
from training.data.samplers import FixedPairs, Pairs, PairSampler, PKSampler, balanced_pairs
from training.encoders.koch import koch, smallest_map
from training.encoders.mlp import mlp
from training.encoders.mobilefacenet import (
    SIZE,
    load_bundle_weights,
    mobilefacenet,
    small_face_encoder,
    trainable_stages,
)
from training.encoders.residual import residual
from training.encoders.text import average_pooling, lstm_mean
from training.faces_bundle import faces_encoder


def build_image_encoder(spec: c.Encoder, size: InputSpec) -> keras.Model:
    """Return an untrained encoder uint8[N, H, W, C] -> float32[N, D]; ``faces`` weights are loaded where
    asked.

    Raises:
        RecipeError: The encoder is for text, or does not fit the input.
    """
    shape = (size.height, size.width, size.channels)
    match spec:
        case c.Mlp():
            return mlp(
                *shape,
                widths=spec.widths,
                dropout=spec.dropout,
                last_linear=spec.last_linear,
                unit_length=spec.unit_length,
            )
        case c.Koch():
            if size.height != size.width or size.channels != 1:
                raise c.RecipeError("encoder koch takes square grey images")
            if smallest_map(size.height, spec.kernels) < 1:
                raise c.RecipeError(
                    f"encoder.kernels: {spec.kernels} leave nothing of an image of {size.height} pixels"
                )
            return koch(
                size=size.height,
                filters=spec.filters,
                kernels=spec.kernels,
                initialisation=spec.initialisation,
                l2_convolution=spec.l2_convolution,
                l2_dense=spec.l2_dense,
                units=spec.units,
                batch_norm=spec.batch_norm,
            )
        case c.Residual():
            return residual(
                *shape,
                ink=spec.ink,
                stem=spec.stem,
                widths=spec.widths,
                blocks=spec.blocks,
                dimensions=spec.dimensions,
                dropout=spec.dropout,
            )
        case c.MobileFaceNet():
            if shape != (SIZE, SIZE, 3):
                raise c.RecipeError(f"encoder mobilefacenet takes {SIZE} x {SIZE} colour images")
            model = mobilefacenet(dropout=spec.dropout)
            if spec.start == "faces":
                load_bundle_weights(model, faces_encoder())
            trainable_stages(model, spec.trainable_stages)
            return model
        case c.SmallFace():
            return small_face_encoder(
                *shape, multiplier=spec.width, dimensions=spec.dimensions, dropout=spec.dropout
            )
        case _:
            raise c.RecipeError(f"encoder {spec.kind} takes no images")


def build_text_encoder(spec: c.Encoder, *, vocabulary: int, length: int) -> keras.Model:
    """Return an untrained encoder int32[N, T] -> float32[N, D].

    Args:
        spec: Of the recipe.
        vocabulary: Number of tokens, padding included.
        length: T.

    Raises:
        RecipeError: The encoder is for images.
    """
    match spec:
        case c.AveragePooling():
            return average_pooling(
                vocabulary,
                length,
                embedding=spec.embedding,
                widths=spec.widths,
                dropout=spec.dropout,
                token_dropout=spec.token_dropout,
                unit_length=spec.unit_length,
            )
        case c.LstmMean():
            return lstm_mean(
                vocabulary,
                length,
                embedding=spec.embedding,
                units=spec.units,
                dropout=spec.dropout,
                token_dropout=spec.token_dropout,
            )
        case _:
            raise c.RecipeError(f"encoder {spec.kind} takes no texts")


def build_objective(spec: c.Objective, *, subjects: int) -> o.Objective:
    """Return an objective.

    Args:
        spec: Of the recipe.
        subjects: How many are trained on; margin softmax has a weight vector for each.
    """
    built: o.Objective
    match spec:
        case c.Contrastive():
            built = o.ContrastiveObjective(spec.margin)
        case c.Triplet():
            built = o.TripletObjective(spec.mining, spec.margin, squared=spec.squared)
        case c.ClosestNegatives():
            built = o.ClosestNegativesObjective(spec.margin)
        case c.WeightedL1():
            built = o.WeightedL1Objective(spec.mining)
        case c.SigmoidDistance():
            built = o.SigmoidDistanceObjective()
        case c.PairFeatures():
            built = o.PairFeaturesObjective(spec.units, spec.dropout, spec.distance_weight)
        case c.MarginSoftmax():
            built = o.MarginSoftmaxObjective(subjects, scale=spec.scale, margin=spec.margin)
    return built


def labelled_sampler(
    spec: c.PKBatches, labels: NDArray[np.int32], seed: int
) -> Callable[[int], NDArray[np.int32]]:
    """Return step -> int32[P * K] image indices."""
    return PKSampler(labels, spec.subjects, spec.samples, seed)


def pair_sampler(spec: c.PairBatches, labels: NDArray[np.int32], seed: int) -> Callable[[int], Pairs]:
    """Return step -> pairs: fresh ones, or those of an array made once."""
    if spec.array is None:
        return PairSampler(labels, spec.size, seed)
    return FixedPairs(
        balanced_pairs(labels, spec.array // 2, spec.array - spec.array // 2, seed), spec.size, seed
    )
