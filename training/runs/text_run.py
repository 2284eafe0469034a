"""A finished run on texts: what its report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import RunConfig
from training.data.text import Vocabulary
from training.data.text_parts import TextParts
from training.runs.text_results import MeasuredTexts
from training.train import Trained


@dataclass(frozen=True, eq=False)
class TextRun:
    """A finished run.

    Attributes:
        config: What was asked for.
        parts: The data.
        vocabulary: Of the training texts.
        trained: What the loop left.
        measured: On the test part, with the exported graph.
        shown: Rows of test pairs in the pictures of embeddings.
        before: float32[2 * S, D], embeddings of their left texts, then of their right ones, untrained.
        after: float32[2 * S, D], of the exported encoder.
        parity: Largest difference between Keras and ONNX Runtime, and on how many texts.
        environment: Versions of what trained it.
    """

    config: RunConfig
    parts: TextParts
    vocabulary: Vocabulary
    trained: Trained
    measured: MeasuredTexts
    shown: NDArray[np.intp]
    before: NDArray[np.float32]
    after: NDArray[np.float32]
    parity: tuple[float, int]
    environment: Mapping[str, str]
