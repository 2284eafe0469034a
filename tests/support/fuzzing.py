"""What schemathesis sends where the description says "an image": photos, other photos, and rubbish.

Imported by the tests, and by the command line with ``SCHEMATHESIS_HOOKS=tests.support.fuzzing``.
"""

from __future__ import annotations

import base64

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

schemathesis.openapi.format("binary", IMAGES)
schemathesis.openapi.format("byte", IMAGES.map(lambda data: base64.b64encode(data).decode()))
