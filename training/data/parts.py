"""The images of a run: what is trained on, what chooses, what calibrates, what tests.

No subject of one part is in another, but for digits: there are only ten, so their parts differ by image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from app.encoding.manifest import DetectorSpec, FaceAlignment, InputSpec, WholeImage
from training.config import CharactersData, DigitsData, RecipeError, RunConfig
from training.data.labelled import LabelledImages
from training.data.mnist import read_mnist
from training.data.omniglot import read_omniglot
from training.data.smoke import drawn_characters, handwritten_digits
from training.data.splits import Split, split_subjects

DIGIT_INPUT = InputSpec(height=28, width=28, channels=1)


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one part, with who drew each where that is known."""

    images: LabelledImages
    drawers: NDArray[np.int32] | None = None


@dataclass(frozen=True, eq=False)
class ImageParts:
    """Everything an image run needs of its data.

    Attributes:
        input: Shape of one image.
        preprocess: How the service turns a photo into that shape.
        train: What the encoder learns from.
        validation: What chooses the best weights; None keeps the last ones.
        calibration: What the evidence and the thresholds are measured on.
        test: What the results are measured on.
        closed: The subjects are all there are, so that evidence counts images, not subjects, as independent.
        split: Names of the subjects of each part; None for a closed set.
        datasets: What the manifest says of them.
        calibrated_on: The calibration part, in words.
        weights_licence: Licence that the data let the weights have.
        detector: Of the bundle that aligned the faces, with its folder; None for whole images.
    """

    input: InputSpec
    preprocess: WholeImage | FaceAlignment
    train: Part
    validation: Part | None
    calibration: Part
    test: Part
    closed: bool
    split: Split | None
    datasets: tuple[dict[str, JsonValue], ...]
    calibrated_on: str
    weights_licence: str = "Apache-2.0"
    detector: tuple[DetectorSpec, Path] | None = None


def load_digits(spec: DigitsData, data_dir: Path, seed: int) -> ImageParts:
    """Return MNIST, or scikit-learn's digits for a smoke run: train, held out (validation), test twice."""
    if spec.source == "mnist":
        train, test = read_mnist(data_dir, "train"), read_mnist(data_dir, "test")
        described: dict[str, JsonValue] = {"name": "MNIST", "licence": "usually quoted as CC BY-SA 3.0"}
    else:
        whole = handwritten_digits()
        chosen = np.random.default_rng(seed).random(len(whole)) < 0.3
        train, test = rows_of(whole, ~chosen), rows_of(whole, chosen)
        described = {"name": "scikit-learn's handwritten digits (UCI, 1998)", "licence": "CC BY 4.0"}
    held = np.zeros(len(train), np.bool_)
    share = min(spec.held_out, len(train) // 5)
    held[np.random.default_rng(seed).permutation(len(train))[:share]] = True
    return ImageParts(
        input=DIGIT_INPUT,
        preprocess=WholeImage(mode="fit"),
        train=Part(rows_of(train, ~held)),
        validation=Part(rows_of(train, held)),
        calibration=Part(test),
        test=Part(test),
        closed=True,
        split=None,
        datasets=(
            {**described, "role": "trained on its training part, thresholds and results from its test part"},
        ),
        calibrated_on=f"test part of {described['name']}",
    )


def load_characters(spec: CharactersData, data_dir: Path, seed: int) -> ImageParts:
    """Return Omniglot: background alphabets to train on, those of the evaluation set halved.

    Ten alphabets of the evaluation set calibrate and ten test, dealt out by the seed.
    """
    how = WholeImage(mode="fit")
    described: dict[str, JsonValue]
    if spec.source == "omniglot":
        background = read_omniglot(data_dir, "background", spec.input, how)
        evaluation = read_omniglot(data_dir, "evaluation", spec.input, how)
        train, drawn = background.images, Part(evaluation.images, evaluation.drawers)
        described = {
            "name": "Omniglot",
            "licence": "MIT",
            "role": "trained on its background set; thresholds from ten alphabets of its evaluation set, "
            "results from the other ten and the official runs",
        }
    else:
        size = spec.input.height
        train = drawn_characters(120, 12, size, seed, alphabets=6)
        drawn = Part(drawn_characters(80, 12, size, seed + 1, alphabets=4))
        described = {"name": "drawn characters", "licence": "made by the run", "role": "smoke run"}
    validation = None
    if spec.validation_alphabets:
        validation, train = _held_alphabets(train, spec.validation_alphabets, seed)
    halves = split_subjects(
        drawn.images.subjects, shares=(1, 1, 0), seed=seed, groups=drawn.images.groups
    )  # "train" of this split calibrates
    split = Split(train.subjects, halves.train, halves.calibration, seed)
    alphabets = {name.partition("/")[0] for name in split.calibration}
    return ImageParts(
        input=spec.input,
        preprocess=how,
        train=Part(quarter_turns(train, spec.turns)),
        validation=None if validation is None else Part(validation),
        calibration=part_of(drawn, split.calibration),
        test=part_of(drawn, split.test),
        closed=False,
        split=split,
        datasets=(described,),
        calibrated_on=f"{len(alphabets)} alphabets that were not trained on, {described['name']}",
    )


def rows_of(data: LabelledImages, chosen: NDArray[np.bool_]) -> LabelledImages:
    """Return some images, every subject still among them."""
    return LabelledImages(data.images[chosen], data.labels[chosen], data.subjects, data.groups)


def part_of(part: Part, names: tuple[str, ...]) -> Part:
    """Return the images of some subjects, with their drawers."""
    keep = np.isin(np.array(part.images.subjects)[part.images.labels], names)
    drawers = None if part.drawers is None else part.drawers[keep]
    return Part(part.images.named(names), drawers)


def quarter_turns(data: LabelledImages, turns: int) -> LabelledImages:
    """Return the images turned by 0, 90, ... degrees, each turn of a subject a subject of its own.

    A character turned is another character: four times the subjects to tell apart (Santoro et al., 2016).
    """
    if turns == 1:
        return data
    count = len(data.subjects)
    return LabelledImages(
        np.concatenate([np.rot90(data.images, turn, axes=(1, 2)) for turn in range(turns)]),
        np.concatenate([data.labels + turn * count for turn in range(turns)]).astype(np.int32),
        tuple(f"{name}@{90 * turn}" for turn in range(turns) for name in data.subjects),
        None
        if data.groups is None
        else tuple(f"{g}@{90 * turn}" for turn in range(turns) for g in data.groups),
    )


def _held_alphabets(data: LabelledImages, count: int, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Return the images of some alphabets, and the rest."""
    assert data.groups is not None  # noqa: S101 - characters come with alphabets
    alphabets = sorted(set(data.groups))
    chosen = {alphabets[i] for i in np.random.default_rng(seed).permutation(len(alphabets))[:count]}
    held = [i for i, group in enumerate(data.groups) if group in chosen]
    rest = [i for i, group in enumerate(data.groups) if group not in chosen]
    return data.of_subjects(held), data.of_subjects(rest)


def load_image_parts(config: RunConfig, data_dir: Path) -> ImageParts:
    """Return the parts of an image run.

    Raises:
        DataError: The data are missing, damaged or too few; the message says what to do.
        RecipeError: The recipe's data are no images.
    """
    match config.data:
        case DigitsData():
            return load_digits(config.data, data_dir, config.seed)
        case CharactersData():
            return load_characters(config.data, data_dir, config.seed)
        case _:
            raise RecipeError(f"data source {config.data.source} has no labelled images")
