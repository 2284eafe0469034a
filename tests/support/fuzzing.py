"""What schemathesis sends where the description says "an image": photos, other photos, and rubbish.

Imported by the tests, and by the command line with ``SCHEMATHESIS_HOOKS=tests.support.fuzzing``.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from tests.support.images import angle_png, astronaut, encoded, no_face, two_faces

FACE = encoded(astronaut().resize((256, 256)), "JPEG")

_PICTURES = st.sampled_from(
    [
        FACE,
        encoded(astronaut().resize((256, 256)), "PNG"),
        encoded(no_face().resize((240, 160)), "JPEG"),
        encoded(two_faces().resize((320, 160)), "JPEG"),
        angle_png(30),
        encoded(Image.new("RGBA", (1, 1)), "WEBP"),
    ]
)
_RUBBISH = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"", b"%PDF-1.7", b"\xff\xd8\xff", b"<svg/>", FACE[: len(FACE) // 2]]),
)
IMAGES = st.one_of(_PICTURES, _PICTURES, _RUBBISH)
_NO_IMAGE = re.compile(r"(PATCH|DELETE) .*|POST /collections")


@schemathesis.check
def well_formed_request_is_refused_for_its_key_alone(_: Any, response: Any, case: Any) -> None:
    """A request without an image that is as described gets 422 for its Idempotency-Key or for nothing.

    What ``schemathesis.toml`` allows is coarser: a status, and not the reason.
    """
    described = case.meta is not None and case.meta.generation.mode.is_positive
    if described and response.status_code == 422 and _NO_IMAGE.fullmatch(case.operation.label):
        assert response.json()["code"] == "idempotency_key_reused", response.text


schemathesis.openapi.format("binary", IMAGES)
schemathesis.openapi.format("byte", IMAGES.map(lambda data: base64.b64encode(data).decode()))
