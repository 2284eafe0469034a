"""The images of a run: what is trained on, what chooses, what calibrates, what tests.

No subject of one part is in another, but for digits: there are only ten, so their parts differ by image.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from app.encoding.manifest import DetectorSpec, FaceAlignment, InputSpec, WholeImage
from app.matching.evidence import subjects_for
from training.config import (
    AlignedFacesData,
    CharactersData,
    DigitsData,
    FolderData,
    RecipeError,
    RunConfig,
)
from training.data.errors import DataError
from training.data.face_sets import read_celeba_small
from training.data.folders import read_folder
from training.data.labelled import LabelledImages
from training.data.mnist import read_mnist
from training.data.omniglot import read_omniglot
from training.data.preparing import aligned_faces, whole_images
from training.data.smoke import drawn_characters, drawn_faces, handwritten_digits
from training.data.splits import Split, split_subjects
from training.faces_bundle import faces_detector, open_faces
from training.measured_evidence import FALLBACK

DIGIT_INPUT = InputSpec(height=28, width=28, channels=1)

LEAST_TRAINED, LEAST_VALIDATION, LEAST_TESTED = 10, 4, 5
LEAST_CALIBRATED = subjects_for(max(FALLBACK.values()))
LEAST_SUBJECTS = LEAST_TRAINED + LEAST_VALIDATION + LEAST_CALIBRATED + LEAST_TESTED
"""Of a folder of one's own: enough to run and to set a threshold, not to trust."""

WHY_SO_MANY = (
    f"{LEAST_TRAINED} to train on, {LEAST_VALIDATION} to choose the best weights, {LEAST_CALIBRATED} for the "
    f"thresholds (fewer cannot show even a false match rate of {max(FALLBACK.values())}) and {LEAST_TESTED} "
    "to test, nobody in two parts"
)

LEAST_GROUPS = 8
"""With fewer groups than this, subjects are dealt out one by one: whole groups would make lopsided parts."""

OWN_IMAGES = "yours to decide: trained on images of your own"
CELEBA = "CelebA: non-commercial research; weights trained on it are not distributed"


logger = logging.getLogger("visavis.training")


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
        others = drawn_characters(80, 12, size, seed + 1, alphabets=4)
        # Another seed draws other characters under the same names.
        subjects, groups = (
            tuple(f"other-{name}" for name in names or ()) for names in (others.subjects, others.groups)
        )
        drawn = Part(replace(others, subjects=subjects, groups=groups))
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


def load_folder(spec: FolderData, data_dir: Path, seed: int, cache: Path | None = None) -> ImageParts:
    """Return somebody's ``<subject>/<image>`` folder, or drawn faces for a smoke run, split by subject.

    Args:
        spec: Of the recipe.
        data_dir: Where a folder given by name lies.
        seed: Of the split, and of drawn faces.
        cache: Folder to keep aligned faces in, for they take long.

    Raises:
        DataError: The folder is missing, too small, mixed up or unreadable; the message names files.
    """
    preprocess: WholeImage | FaceAlignment
    detector = None
    if spec.source == "smoke-faces":
        preprocess = _whole(spec)
        data = _drawn_faces(spec.input, seed)
        described: dict[str, JsonValue] = {"name": "drawn faces", "licence": "made by the run"}
    else:
        if spec.path is None:
            raise RecipeError("data.path names no folder")
        if spec.preprocess == "face-5pt":
            faces = open_faces()
            if spec.input != faces.manifest.input:
                raise RecipeError(f"faces are aligned to {faces.manifest.input}, not {spec.input}")
            preprocess, detector = FaceAlignment(mode="face-5pt"), faces_detector(faces)
            preparation = aligned_faces(faces)
        else:
            preprocess, cache = spec.preprocess, None
            preparation = whole_images(spec.input, spec.preprocess)
        data, report = read_folder(
            data_dir / spec.path,
            preparation,
            least_subjects=LEAST_SUBJECTS,
            because=WHY_SO_MANY,
            leave_out=spec.leave_out,
            cache=cache,
        )
        for line in report.lines()[1:]:
            logger.warning("%s", line)  # what was left out
        described = {"name": Path(spec.path).name, "licence": OWN_IMAGES}
        if Path(spec.path).parts[:1] == ("faces",) and "celeba" in spec.path:
            described["licence"] = CELEBA
    return _people_parts(spec, data, described, seed, preprocess=preprocess, detector=detector)


def load_aligned_faces(spec: AlignedFacesData, data_dir: Path, seed: int) -> ImageParts:
    """Return CelebA's small crops, or drawn faces for a smoke run, split by subject."""
    how = WholeImage(mode="crop")
    if spec.source == "smoke-aligned":
        data = _drawn_faces(spec.input, seed)
        described: dict[str, JsonValue] = {"name": "drawn faces", "licence": "made by the run"}
    else:
        data = read_celeba_small(data_dir, spec.input, how, least_images=spec.least_images)
        described = {"name": "CelebA, 10,000 aligned crops", "licence": CELEBA}
    return _people_parts(spec, data, described, seed, preprocess=how)


def _drawn_faces(size: InputSpec, seed: int) -> LabelledImages:
    if size.channels != 3:
        raise RecipeError("drawn faces are in colour: data.input.channels is 3")
    return drawn_faces(80, 8, seed, height=size.height, width=size.width)


def _whole(spec: FolderData) -> WholeImage:
    # Drawn faces are aligned as they are, and no detector finds them.
    return WholeImage(mode="fit") if spec.preprocess == "face-5pt" else spec.preprocess


def _people_parts(
    spec: FolderData | AlignedFacesData,
    data: LabelledImages,
    described: dict[str, JsonValue],
    seed: int,
    *,
    preprocess: WholeImage | FaceAlignment,
    detector: tuple[DetectorSpec, Path] | None = None,
) -> ImageParts:
    """Deal the subjects out to four parts.

    Raises:
        DataError: The calibration part supports no operating point, or a part has too few.
    """
    split = four_parts(data, spec.validation, spec.calibration, spec.test, seed)
    if len(split.calibration) < LEAST_CALIBRATED:
        raise DataError(
            f"{len(split.calibration)} of {len(data.subjects)} subjects are for the thresholds and "
            f"{LEAST_CALIBRATED} are needed, for fewer cannot show even a false match rate of "
            f"{max(FALLBACK.values())}; more subjects, or a larger data.calibration"
        )
    licence = str(described["licence"])
    return ImageParts(
        input=spec.input,
        preprocess=preprocess,
        train=Part(data.named(split.train)),
        validation=Part(data.named(split.validation)) if split.validation else None,
        calibration=Part(data.named(split.calibration)),
        test=Part(data.named(split.test)),
        closed=False,
        split=split,
        datasets=(
            {
                **described,
                "role": f"trained on {len(split.train)} subjects, best weights by {len(split.validation)}, "
                f"thresholds from {len(split.calibration)}, results from {len(split.test)}",
            },
        ),
        calibrated_on=f"subjects not trained on, {described['name']}",
        weights_licence="Apache-2.0" if licence == "made by the run" else licence,
        detector=detector,
    )


def four_parts(data: LabelledImages, validation: float, calibration: float, test: float, seed: int) -> Split:
    """Return a split by subject, or by whole group where there are ``LEAST_GROUPS`` or more.

    Args:
        data: Whose subjects are dealt out.
        validation: Share that chooses the best weights; 0 leaves the part empty.
        calibration: Share that the thresholds are measured on.
        test: Share that the results are measured on.
        seed: Of the split.

    Raises:
        DataError: There are too few subjects or groups.
        RecipeError: The shares leave nobody to train on.
    """
    rest = 1.0 - validation - calibration - test
    if rest <= 1e-9:
        raise RecipeError("data: validation, calibration and test leave nobody to train on")
    group = dict(zip(data.subjects, data.groups or data.subjects, strict=True))
    grouped = data.groups is not None and len(set(data.groups)) >= LEAST_GROUPS

    def dealt(names: tuple[str, ...], shares: tuple[float, float, float]) -> Split:
        groups = [group[name] for name in names] if grouped else None
        return split_subjects(names, shares=shares, seed=seed, groups=groups)

    whole = dealt(data.subjects, (rest + validation, calibration, test))
    inner = dealt(whole.train, (rest, validation, 0.0))  # its "calibration" chooses the best weights
    return Split(inner.train, whole.calibration, whole.test, seed, validation=inner.calibration)


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


def load_image_parts(config: RunConfig, data_dir: Path, cache: Path | None = None) -> ImageParts:
    """Return the parts of an image run.

    Args:
        config: With image data.
        data_dir: Where public sets lie.
        cache: Folder to keep prepared images in that take long to prepare.

    Raises:
        DataError: The data are missing, damaged or too few; the message says what to do.
        RecipeError: The recipe's data are no images.
    """
    match config.data:
        case DigitsData():
            return load_digits(config.data, data_dir, config.seed)
        case CharactersData():
            return load_characters(config.data, data_dir, config.seed)
        case FolderData():
            return load_folder(config.data, data_dir, config.seed, cache)
        case AlignedFacesData():
            return load_aligned_faces(config.data, data_dir, config.seed)
        case _:
            raise RecipeError(f"data source {config.data.source} has no labelled images")
