"""Simple measures of how usable an image is, and the floor they must reach at enrolment.

They are what they say, not a learned quality score: pixels, luminance, gradients and the geometry of five
landmarks. Names follow the components of ISO/IEC 29794-5 where one corresponds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.encoding.alignment import TEMPLATE_112
from app.encoding.detection import Face


@dataclass(frozen=True)
class Quality:
    """Measures of one image or face; the face measures are None for whole-image models.

    Attributes:
        sharpness: Standard deviation of the 4-neighbour Laplacian of luminance (0..255) on the model's
            input; 0 is a flat surface, an ordinary portrait has 5 to 30.
        brightness: Mean luminance of the model's input, 0 black to 1 white.
        contrast: Standard deviation of that luminance, 0 to 0.5.
        face_size: Shorter side of the face's box in pixels of the upright image.
        eye_distance: Pixels between the eyes.
        yaw: Sideways offset of the nose from the middle between the eyes, after removing roll, in half
            eye distances: 0 frontal, about 1 three-quarter, 2 profile; positive towards the image's right.
        pitch: How far down between eyes and mouth the nose tip is, minus its place on a frontal face;
            0 frontal, positive looking down.
        roll: Degrees by which the line of the eyes is turned clockwise in the image.
    """

    sharpness: float
    brightness: float
    contrast: float
    face_size: float | None = None
    eye_distance: float | None = None
    yaw: float | None = None
    pitch: float | None = None
    roll: float | None = None


_EYE_LINE, _MOUTH_LINE = TEMPLATE_112[:2, 1].mean(), TEMPLATE_112[3:, 1].mean()
_FRONTAL_NOSE = float((TEMPLATE_112[2, 1] - _EYE_LINE) / (_MOUTH_LINE - _EYE_LINE))
"""Height of the nose tip between the eye line (0) and the mouth line (1) on the alignment template."""


def measure_quality(model_input: NDArray[np.uint8], face: Face | None) -> Quality:
    """Measure an input of the encoder, uint8[H, W, C], and the face it was cut from."""
    luminance = _luminance(model_input)
    inner = luminance[1:-1, 1:-1]
    laplacian = (
        luminance[:-2, 1:-1] + luminance[2:, 1:-1] + luminance[1:-1, :-2] + luminance[1:-1, 2:] - 4.0 * inner
    )
    common = {
        "sharpness": round(float(laplacian.std()), 3) if laplacian.size else 0.0,
        "brightness": round(float(luminance.mean()) / 255.0, 4),
        "contrast": round(float(luminance.std()) / 255.0, 4),
    }
    if face is None:
        return Quality(**common)
    right_eye, left_eye, nose, right_mouth, left_mouth = face.landmarks
    across = left_eye - right_eye
    distance = float(np.hypot(*across))
    along = across / max(distance, 1e-9)
    down = np.array([-along[1], along[0]])
    eyes, mouth = (right_eye + left_eye) / 2.0, (right_mouth + left_mouth) / 2.0
    drop = float((mouth - eyes) @ down)
    return Quality(
        **common,
        face_size=round(face.size, 2),
        eye_distance=round(distance, 2),
        yaw=round(float((nose - eyes) @ along) / max(distance / 2.0, 1e-9), 3),
        pitch=round(float((nose - eyes) @ down) / drop - _FRONTAL_NOSE, 3) if abs(drop) > 1e-9 else None,
        roll=round(math.degrees(math.atan2(across[1], across[0])), 2),
    )


@dataclass(frozen=True)
class QualityFloor:
    """What a reference photo must reach to be enrolled. Units as in ``Quality``."""

    min_face_size: float = 0.0
    min_sharpness: float = 0.0
    min_brightness: float = 0.0
    max_brightness: float = 1.0
    max_yaw: float = math.inf

    def shortfalls(self, quality: Quality) -> list[dict[str, object]]:
        """Return every measure that misses the floor, each with its value and the rule; empty if none."""
        missed: list[dict[str, object]] = []

        def check(measure: str, value: float | None, *, least: float | None, most: float | None) -> None:
            if value is None:
                return
            if least is not None and value < least:
                missed.append({"measure": measure, "value": value, "rule": f"at least {least:g} is wanted"})
            if most is not None and value > most:
                missed.append({"measure": measure, "value": value, "rule": f"at most {most:g} is wanted"})

        check("face_size", quality.face_size, least=self.min_face_size, most=None)
        check("sharpness", quality.sharpness, least=self.min_sharpness, most=None)
        check("brightness", quality.brightness, least=self.min_brightness, most=self.max_brightness)
        check("yaw", None if quality.yaw is None else abs(quality.yaw), least=None, most=self.max_yaw)
        return missed


def _luminance(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Rec. 601 luminance float32[H, W] in 0..255."""
    values = pixels.astype(np.float32)
    if values.shape[2] == 1:
        return values[:, :, 0]
    return values @ np.array([0.299, 0.587, 0.114], np.float32)
