"""Send damaged image files to a real server: no 5xx, no lost worker, flat memory.

    python -m benchmarks.hostile --image FILE [--count 10000] [--seed 1]

One photo is saved in every supported format and mode; each request carries one of those files with bytes
flipped, cut, repeated, swapped with another file's, or numbers in its header made extreme.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import httpx2
from PIL import Image

from benchmarks.serve import start_server

ROUTES = {
    "/detect": "image",
    "/embed": "image",
    "/identify": "image",
    "/enroll": "image",
    "/verify": "image_a",
}


def seeds(photo: Image.Image) -> list[bytes]:
    """Return the photo in every format and mode that the service reads."""
    small = photo.resize((160, 160))
    variants: list[tuple[Image.Image, str, dict[str, object]]] = [
        (small, "JPEG", {"quality": 85}),
        (small, "JPEG", {"quality": 85, "progressive": True}),
        (small.convert("L"), "JPEG", {}),
        (small.convert("CMYK"), "JPEG", {}),
        (small, "PNG", {}),
        (small.convert("RGBA"), "PNG", {}),
        (small.quantize(64), "PNG", {}),
        (small.convert("I;16"), "PNG", {}),
        (small, "WEBP", {}),
        (small, "WEBP", {"lossless": True}),
        (small, "GIF", {"save_all": True, "append_images": [small.rotate(90)]}),
        (small, "BMP", {}),
        (small.quantize(16), "BMP", {}),
        (small, "TIFF", {}),
        (small, "TIFF", {"compression": "tiff_lzw"}),
        (small, "TIFF", {"compression": "jpeg"}),
        (small.convert("1"), "TIFF", {"compression": "group4"}),
    ]
    files = []
    for image, kind, options in variants:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutate(rng: random.Random, files: list[bytes]) -> bytes:
    """Return one file with one to eight kinds of damage; seldom with none."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 8))):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 64))
        span = rng.choice((1, 2, 4, 16, 256))
        match rng.randrange(6):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + span]
            case 3:
                data[at:at] = data[at : at + span] * rng.randrange(1, 50)
            case 4:
                data[at : at + 4] = rng.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
                )
            case 5:
                other = rng.choice(files)
                data[at : at + span] = other[at : at + span]
    return bytes(data)


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS")


@click.command(help=__doc__)
@click.option(
    "--image", type=click.Path(exists=True, path_type=Path), required=True, help="a photo of a face"
)
@click.option("--count", default=10_000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(image: Path, count: int, seed: int) -> None:
    """Run it and print the figures as JSON."""
    rng = random.Random(seed)
    with Image.open(image) as photo:
        files = seeds(photo.convert("RGB"))
    statuses: Counter[str] = Counter()
    memory: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        server, port, _ = start_server(Path(folder))
        with (
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
            ThreadPoolExecutor(4) as pool,
        ):

            def send(job: tuple[int, str, bytes]) -> str:
                number, route, data = job
                fields = {"identity": f"person {number}"} if route == "/enroll" else {}
                sent = {ROUTES[route]: data}
                if route == "/verify":
                    sent["image_b"] = files[0]
                answer = client.post(route, files=sent, data=fields)
                return f"{answer.status_code} {answer.json().get('code', 'answered')}"

            for start in range(0, count, 1000):
                jobs = [
                    (number, rng.choice(list(ROUTES)), mutate(rng, files))
                    for number in range(start, min(start + 1000, count))
                ]
                statuses.update(pool.map(send, jobs))
                memory[start + len(jobs)] = round(resident_mib(server.pid), 1)
            alive = server.poll() is None and client.get("/readyz").status_code == 200
        server.terminate()
        server.wait()
    click.echo(
        json.dumps(
            {
                "requests": count,
                "answers": dict(sorted(statuses.items())),
                "server_errors": sum(n for text, n in statuses.items() if text.startswith("5")),
                "same_process_still_ready": alive,
                "resident_mib_after": memory,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
