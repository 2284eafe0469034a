"""Small data sets that need no download: what ``--smoke`` trains on, in place of each real set.

All are drawn or composed from a seed within about a second, and can be learnt in as short a time.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.data.labelled import LabelledImages
from training.data.text import TextPairs

_OVERSAMPLING: Final = 2
"""Drawings are made this much larger and reduced, which smooths their edges."""


def handwritten_digits() -> LabelledImages:
    """Return scikit-learn's 1,797 handwritten digits in the shape of MNIST: uint8[N, 28, 28, 1].

    As in MNIST, a digit is white on black and fills 20 x 20 pixels in the middle.

    Source: Alpaydin, Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI, test part; CC BY 4.0.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - costs a second and the base install lacks it

    known = load_digits()
    images = np.zeros((len(known.images), 28, 28, 1), np.uint8)
    for image, small in zip(images, known.images, strict=True):
        grey = Image.fromarray(np.rint(small * (255 / 16)).astype(np.uint8))
        image[4:24, 4:24, 0] = np.asarray(grey.resize((20, 20), Image.Resampling.BICUBIC))
    return LabelledImages(images, known.target.astype(np.int32), tuple("0123456789"))


def drawn_characters(
    n_subjects: int, per_subject: int, size: int, seed: int, *, alphabets: int = 1
) -> LabelledImages:
    """Draw made-up characters in the manner of Omniglot: black ink on white paper.

    A character is two to four curved strokes; each sample moves their points, turns, scales and shifts the
    whole and takes another pen. Characters of one alphabet share one stroke.

    Args:
        n_subjects: Characters, dealt out evenly to the alphabets.
        per_subject: Samples of each.
        size: Height and width in pixels.
        seed: The same seed draws the same characters.
        alphabets: Groups.

    Returns:
        uint8[n_subjects * per_subject, size, size, 1], subjects ``drawn00/character000`` and so on.
    """
    rng = np.random.default_rng([seed, 1])
    shared = [_stroke(rng) for _ in range(alphabets)]
    homes = [number * alphabets // n_subjects for number in range(n_subjects)]
    images = np.empty((n_subjects, per_subject, size, size, 1), np.uint8)
    for number, home in enumerate(homes):
        strokes = [shared[home], *(_stroke(rng) for _ in range(rng.integers(1, 4)))]
        for sample in range(per_subject):
            images[number, sample, ..., 0] = np.asarray(_written(rng, strokes, size))
    return LabelledImages(
        images.reshape(-1, size, size, 1),
        np.repeat(np.arange(n_subjects, dtype=np.int32), per_subject),
        tuple(f"drawn{home:02d}/character{number:03d}" for number, home in enumerate(homes)),
        tuple(f"drawn{home:02d}" for home in homes),
    )


def _stroke(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return float64[3, 2], the control points of a curve in the unit square, its ends well apart."""
    while True:
        points = rng.uniform(0.12, 0.88, (3, 2))
        if math.dist(points[0], points[2]) > 0.3:
            return points


def _written(rng: np.random.Generator, strokes: list[NDArray[np.float64]], size: int) -> Image.Image:
    """Return one sample of a character, of mode ``L``."""
    angle, scale = rng.normal(0, 0.12), rng.normal(1, 0.08)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shift = 0.5 + rng.normal(0, 0.03, 2)
    large = size * _OVERSAMPLING
    image = Image.new("L", (large, large), 255)
    draw = ImageDraw.Draw(image)
    width = max(1, round(large * rng.uniform(0.03, 0.05)))
    along = np.linspace(0, 1, 12)[:, None]
    for stroke in strokes:
        start, bend, end = stroke + rng.normal(0, 0.025, (3, 2))
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        line = ((curve - 0.5) @ turn.T + shift) * large
        draw.line([(float(x), float(y)) for x, y in line], fill=0, width=width, joint="curve")
    return image.resize((size, size), Image.Resampling.BOX)


def drawn_faces(
    n_subjects: int, per_subject: int, seed: int, *, height: int = 112, width: int = 112
) -> LabelledImages:
    """Draw made-up faces: colours and proportions make the subject; light, place, expression and
    background make the sample.

    They are for running a recipe, and no face detector finds them.

    Args:
        n_subjects: Made-up people.
        per_subject: Samples of each.
        seed: The same seed draws the same faces.
        height: Pixels.
        width: Pixels.

    Returns:
        uint8[n_subjects * per_subject, height, width, 3], subjects ``person000`` and so on.
    """
    rng = np.random.default_rng([seed, 2])
    images = np.empty((n_subjects, per_subject, height, width, 3), np.uint8)
    for number in range(n_subjects):
        colours = rng.integers(30, 226, (3, 3))  # hair, skin, eyes
        # Half widths and heights, and places, as shares of the image.
        traits = rng.uniform(
            [0.25, 0.32, 0.10, 0.40, 0.03, 0.10, 0.03], [0.36, 0.44, 0.17, 0.50, 0.07, 0.20, 0.15]
        )
        for sample in range(per_subject):
            images[number, sample] = _face(rng, colours, traits, (width, height))
    return LabelledImages(
        images.reshape(-1, height, width, 3),
        np.repeat(np.arange(n_subjects, dtype=np.int32), per_subject),
        tuple(f"person{number:03d}" for number in range(n_subjects)),
    )


def _face(
    rng: np.random.Generator, colours: NDArray[np.int64], traits: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return one sample of a made-up face, uint8[H, W, 3]."""
    wide, high, apart, eye_y, eye, mouth, fringe = traits
    behind = rng.integers(0, 256, (1, 3))
    background, hair, skin, eyes = (
        tuple(int(value) for value in colour) for colour in np.concatenate([behind, colours])
    )
    x, y = rng.normal(0.5, 0.03, 2)
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)

    def ellipse(at_x: float, at_y: float, half: float, tall: float, colour: tuple[int, ...]) -> None:
        box = np.array([at_x - half, at_y - tall, at_x + half, at_y + tall]) * np.tile(size, 2)
        draw.ellipse([float(value) for value in box], fill=colour)

    ellipse(x, y - fringe, wide + 0.05, high, hair)
    ellipse(x, y + 0.05, wide, high - 0.05, skin)
    for side in (-1, 1):
        ellipse(x + side * apart, y + eye_y - 0.5, eye, eye * rng.uniform(0.4, 1.0), eyes)
    ellipse(x, y + 0.22, mouth / 2, rng.uniform(0.01, 0.04), (150, 40, 50))
    light, contrast = rng.normal(0, 25), rng.normal(1, 0.15)
    noisy = (np.asarray(image, np.float32) - 128) * contrast + 128 + light
    noisy += rng.normal(0, 6, noisy.shape)
    face: NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    return face


_TOPICS: Final = (
    ("car", "automobile"), ("house", "home"), ("job", "position"), ("film", "movie"), ("doctor", "physician"),
    ("phone", "telephone"), ("bicycle", "bike"), ("student", "pupil"), ("shop", "store"), ("garden", "yard"),
    ("computer", "machine"), ("meal", "dinner"), ("trip", "journey"), ("song", "tune"), ("book", "novel"),
    ("dog", "hound"), ("child", "kid"), ("friend", "companion"), ("coat", "jacket"), ("boat", "ship"),
)  # fmt: skip
"""Two words for one thing."""
_REQUESTS: Final = (
    ("where can i buy a {}", "which place sells a {}", "i want to purchase a {}, where"),
    ("how do i repair my {}", "what is the way to fix a broken {}", "my {} does not work, how can i mend it"),
    ("how much does a {} cost", "what is the price of a {}", "is a {} expensive"),
    ("who invented the {}", "which person came up with the first {}", "whose idea was the {}"),
    ("why do people like a {}", "what makes a {} popular", "for what reason does everyone love a {}"),
    ("is it safe to leave a {} alone", "can something happen to a {} on its own", "may i go without the {}"),
    ("how old is the oldest {}", "what age can a {} reach", "for how many years does a {} last"),
    ("can you recommend a good {}", "what {} would you suggest", "please tell me which {} is best"),
)
"""Three ways to ask one thing."""


def paraphrases(n_pairs: int, seed: int) -> TextPairs:
    """Compose pairs of English questions: half ask one thing in two ways, half two things.

    Of those that differ, a third share the thing asked about, a third share what is asked, the rest neither;
    so single words do not give the answer away.

    Raises:
        ValueError: The number of pairs is odd.
    """
    if n_pairs % 2:
        raise ValueError(f"n_pairs: an even number wanted, half of each kind, not {n_pairs}")
    rng = np.random.default_rng([seed, 3])

    def phrase(request: int, topic: int, way: int) -> str:
        return _REQUESTS[request][way % 3].format(_TOPICS[topic][rng.integers(2)]) + "?"

    def other(number: int, total: int) -> int:
        return int((number + rng.integers(1, total)) % total)

    left, right, same = [], [], rng.permutation(n_pairs) < n_pairs // 2
    for alike in same:
        request, topic, way = int(rng.integers(8)), int(rng.integers(20)), int(rng.integers(3))
        left.append(phrase(request, topic, way))
        if alike:
            right.append(phrase(request, topic, way + int(rng.integers(1, 3))))
            continue
        shared = rng.integers(3)
        right.append(
            phrase(
                request if shared == 0 else other(request, 8),
                topic if shared == 1 else other(topic, 20),
                int(rng.integers(3)),
            )
        )
    return TextPairs(tuple(left), tuple(right), same)
