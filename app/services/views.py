"""Domain values as the plain fields shown in answers and stored beside a template."""

from __future__ import annotations

from typing import Any

from app.encoding.detection import LANDMARK_NAMES, Face, box_fields


def face_fields(face: Face) -> dict[str, Any]:
    """Return box, landmarks and score: pixels of the upright image, rounded to a hundredth."""
    return {
        "box": box_fields(face),
        "landmarks": {
            name: {"x": round(float(x), 2), "y": round(float(y), 2)}
            for name, (x, y) in zip(LANDMARK_NAMES, face.landmarks, strict=True)
        },
        "score": round(face.score, 4),
    }
