"""A stand-in for the YuNet network that shows faces where a test wants them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from app.encoding.detection import STRIDES

Outputs = dict[str, NDArray[np.float32]]

FRONTAL = ((-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (-0.8, 1.0), (0.8, 1.0))
"""Offsets of five landmarks from a cell, in strides: eyes above, nose on it, mouth below."""


def silent_outputs(height: int, width: int) -> Outputs:
    """Return the outputs for a canvas on which nothing is seen."""
    outputs: Outputs = {}
    for stride in STRIDES:
        cells = (height // stride) * (width // stride)
        for part, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
            outputs[f"{part}_{stride}"] = np.zeros((1, cells, size), np.float32)
    return outputs


def show_face(
    outputs: Outputs,
    width: int,
    *,
    stride: int,
    row: int,
    column: int,
    confidence: tuple[float, float] = (0.9, 0.9),
    offset: tuple[float, float] = (0.0, 0.0),
    size: tuple[float, float] = (4.0, 4.0),
    landmarks: tuple[tuple[float, float], ...] = FRONTAL,
) -> None:
    """Let one cell report a face.

    Args:
        outputs: Outputs for a canvas of this width.
        width: Of the canvas, in pixels.
        stride: Of the cell.
        row: Of the cell.
        column: Of the cell.
        confidence: Classification and objectness.
        offset: Centre of the box from the cell, in strides.
        size: Width and height of the box, in strides.
        landmarks: Five offsets from the cell, in strides.
    """
    cell = row * (width // stride) + column
    outputs[f"cls_{stride}"][0, cell], outputs[f"obj_{stride}"][0, cell] = confidence
    outputs[f"bbox_{stride}"][0, cell] = (*offset, math.log(size[0]), math.log(size[1]))
    outputs[f"kps_{stride}"][0, cell] = np.array(landmarks).ravel()


class FakeNetwork:
    """Records the canvases it is shown; sees a face at one cell of those a rule picks.

    Attributes:
        canvases: Height and width of each canvas, in order.
    """

    def __init__(self, sees: Callable[[int, int], bool] = lambda height, width: False) -> None:
        self.canvases: list[tuple[int, int]] = []
        self._sees = sees

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        """Answer as YuNet does for uint8[1, H, W, 3]; the face is at stride 8, row 3, column 5."""
        _, height, width, _ = images.shape
        self.canvases.append((height, width))
        outputs = silent_outputs(height, width)
        if self._sees(height, width):
            show_face(outputs, width, stride=8, row=3, column=5)
        return outputs
