"""Pictures of digits and spelled digit names: two kinds of samples of the same ten subjects.

The names are all there are, so that training and test have the same ones; the pictures are different ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from training.config import DigitNamesData, DigitsData
from training.data.labelled import LabelledImages
from training.data.names import digit_names, encode_names
from training.data.parts import load_digits


@dataclass(frozen=True, eq=False)
class TwoKinds:
    """Everything a run on pictures and names needs of its data.

    Attributes:
        train: Pictures to learn from; subjects ``0`` to ``9``.
        validation: Pictures kept back, on which weights and threshold are chosen.
        test: Pictures to measure on.
        names: M names, each once.
        tokens: int32[M, T], their letters.
        meaning: int32[M], the digit of each name.
        dataset: What the report says of the pictures.
    """

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    names: tuple[str, ...]
    tokens: NDArray[np.int32]
    meaning: NDArray[np.int32]
    dataset: dict[str, JsonValue]


def load_two_kinds(spec: DigitNamesData, data_dir: Path, seed: int) -> TwoKinds:
    """Read the pictures and spell the names.

    Raises:
        MissingDataError: MNIST is not there.
        DataError: It is damaged.
    """
    source = "mnist" if spec.source == "mnist-and-names" else "smoke-digits"
    parts = load_digits(DigitsData(source=source, held_out=spec.held_out), data_dir, seed)
    assert parts.validation is not None  # noqa: S101 - digits always keep some back
    names, meaning = digit_names(spec.languages)
    return TwoKinds(
        parts.train.images,
        parts.validation.images,
        parts.test.images,
        names,
        encode_names(names, spec.length),
        meaning,
        parts.datasets[0],
    )
