"""Error rates of the running service on a folder of people, beside the offline evaluation of the same.

    python -m benchmarks.accuracy --data FOLDER [--pairs 2000] [--seed 1]

Starts a real server, enrols the first photo of every ``<subject>/<image>`` folder over HTTP, identifies
another photo of each, then verifies mated and non-mated pairs. The same pairs are written in LFW's layout
and given to ``visavis evaluate verification``; both must agree on every distance and decision.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import httpx2

from benchmarks.serve import start_server
from training.measured_evidence import subject_images


def post(
    client: httpx2.Client, route: str, files: dict[str, Path], **fields: str
) -> tuple[int, dict[str, object]]:
    """Send one request with images; returns status and answer."""
    sent = {name: (path.name, path.read_bytes()) for name, path in files.items()}
    answer = client.post(route, files=sent, data=fields)
    return answer.status_code, answer.json()


def identification(
    client: httpx2.Client, people: dict[str, list[Path]], pool: ThreadPoolExecutor
) -> dict[str, object]:
    """Enrol one photo of each person and identify another."""
    enrolled, refused = [], {}
    for name, photos in people.items():
        status, answer = post(client, "/enroll", {"image": photos[0]}, identity=name, face="central")
        if status == 201:
            enrolled.append(name)
        else:
            refused[name] = answer["code"]

    def probe(name: str) -> tuple[str, int, dict[str, object]]:
        return name, *post(client, "/identify", {"image": people[name][1]}, face="central")

    found = list(pool.map(probe, enrolled))
    answered = [(name, answer) for name, status, answer in found if status == 200]
    firsts = [(name, answer["candidates"][0]) for name, answer in answered]
    return {
        "people": len(people),
        "enrolled": len(enrolled),
        "refused_at_enrolment": refused,
        "probes_failed_to_acquire": len(found) - len(answered),
        "rank_1": sum(name == first["identity"] for name, first in firsts) / len(firsts),
        "rank_1_and_match": sum(name == f["identity"] and f["match"] for name, f in firsts) / len(firsts),
        "wrong_first_and_match": sum(name != f["identity"] and f["match"] for name, f in firsts)
        / len(firsts),
        "nobody_matched": sum(not answer["match"] for _, answer in answered) / len(answered),
        "threshold": answered[0][1]["threshold"],
        "gallery_size": answered[0][1]["gallery_size"],
    }


def draw_pairs(
    people: dict[str, list[Path]], count: int, seed: int
) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Draw mated pairs, then as many non-mated ones: (subject, number of the image from 1)."""
    rng = random.Random(seed)
    names = [name for name, photos in people.items() if len(photos) > 1]
    pairs: set[tuple[tuple[str, int], tuple[str, int]]] = set()
    mated = []
    while len(mated) < count:
        name = rng.choice(names)
        i, j = sorted(rng.sample(range(1, len(people[name]) + 1), 2))
        if ((name, i), (name, j)) not in pairs:
            pairs.add(((name, i), (name, j)))
            mated.append(((name, i), (name, j)))
    nonmated = []
    while len(nonmated) < count:
        a, b = rng.sample(names, 2)
        pair = ((a, rng.randint(1, len(people[a]))), (b, rng.randint(1, len(people[b]))))
        if pair not in pairs:
            pairs.add(pair)
            nonmated.append(pair)
    return mated + nonmated


def write_lfw(
    folder: Path, people: dict[str, list[Path]], pairs: list[tuple[tuple[str, int], tuple[str, int]]]
) -> None:
    """Lay the pairs out as LFW does: ``Name/Name_0001.jpg`` and ``pairs.txt`` of ten folds."""
    for name, photos in people.items():
        (folder / "images" / name).mkdir(parents=True)
        for number, photo in enumerate(photos, start=1):
            (folder / "images" / name / f"{name}_{number:04d}{photo.suffix}").symlink_to(photo.resolve())
    half = len(pairs) // 2
    per_fold = half // 10
    lines = [f"10\t{per_fold}"]
    for fold in range(10):
        span = slice(fold * per_fold, (fold + 1) * per_fold)
        lines += [f"{a}\t{i}\t{j}" for (a, i), (_, j) in pairs[:half][span]]
        lines += [f"{a}\t{i}\t{b}\t{j}" for (a, i), (b, j) in pairs[half:][span]]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def verification(
    client: httpx2.Client,
    people: dict[str, list[Path]],
    pairs: list[tuple[tuple[str, int], tuple[str, int]]],
    pool: ThreadPoolExecutor,
) -> dict[str, object]:
    """Verify every pair over HTTP at the default threshold."""

    def call(pair: tuple[tuple[str, int], tuple[str, int]]) -> tuple[int, dict[str, object]]:
        (a, i), (b, j) = pair
        return post(
            client, "/verify", {"image_a": people[a][i - 1], "image_b": people[b][j - 1]}, face="central"
        )

    answers = list(pool.map(call, pairs))
    half = len(pairs) // 2
    mated = [answer["match"] for status, answer in answers[:half] if status == 200]
    nonmated = [answer["match"] for status, answer in answers[half:] if status == 200]
    return {
        "mated": len(mated),
        "nonmated": len(nonmated),
        "fnmr": 1 - sum(mated) / len(mated),
        "fmr": sum(nonmated) / len(nonmated),
        "failed_trials": sum(status != 200 for status, _ in answers),
        "server_errors": sum(status >= 500 for status, _ in answers),
    }


@click.command(help=__doc__)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--pairs", "count", default=2000, show_default=True, help="mated, and as many non-mated")
@click.option("--seed", default=1, show_default=True)
def main(data: Path, count: int, seed: int) -> None:
    """Run it and print the figures as JSON."""
    people: dict[str, list[Path]] = {}
    for name, path in subject_images(data):
        people.setdefault(name, []).append(path)
    people = {name: photos for name, photos in people.items() if len(photos) > 1}
    pairs = draw_pairs(people, count, seed)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        server, port, _ = start_server(folder)
        try:
            with (
                httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
                ThreadPoolExecutor(4) as pool,
            ):
                report: dict[str, object] = {"identification": identification(client, people, pool)}
                report["verification"] = verification(client, people, pairs, pool)
        finally:
            server.terminate()
            server.wait()
        write_lfw(folder, people, pairs)
        command = [sys.executable, "-m", "app.cli", "evaluate", "verification", "--model", "faces", "--json"]
        command += ["--images", str(folder / "images"), "--pairs", str(folder / "pairs.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        report["visavis evaluate verification"] = json.loads(done.stdout)
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
