"""A running service calibrates itself on real faces, and decides by them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.data import data_set
from tests.support.server import ROOT, running

PEOPLE = 30


@pytest.mark.model
def test_collection_of_real_faces_is_measured_and_decides_by_its_own_people(tmp_path: Path) -> None:
    home = data_set("faces/celeba_wild") / "faces" / "celeba_wild"
    photos = {folder.name: sorted(folder.glob("*.jpg")) for folder in sorted(home.iterdir())[:PEOPLE]}
    with running(tmp_path, ROOT / "models", "faces") as server, server.client() as client:
        for name, (first, *_) in photos.items():
            data = {"identity": name, "face": "central"}
            client.post("/enroll", data=data, files={"image": first.read_bytes()}).raise_for_status()
        parts: list[tuple[str, tuple[str | None, bytes]]] = [("face", (None, b"central"))]
        for name, (_, second, *_) in list(photos.items())[:12]:
            parts += [("identity", (None, name.encode())), ("image", ("photo", second.read_bytes()))]
        response = client.post("/collections/default/evidence", files=parts)
        assert response.status_code == 201, response.text
        answer = response.json()
        assert (answer["evidence"]["source"], answer["evidence"]["subjects"]) == ("deployment", PEOPLE)
        assert answer["evidence"]["nonmated"] == PEOPLE * (PEOPLE - 1) // 2
        probes = answer["probes"]
        assert answer["evidence"]["mated"] == probes["used"] == 12 - len(probes["failures_to_acquire"])
        assert answer["duplicates"]["suspected"] is False
        (point,) = answer["operating_points"]
        # Thirty people and thousands are of one kind: the thresholds for one in a hundred are alike.
        assert point["bundle"]["fmr"] == pytest.approx(0.01, abs=0.02)
        assert point["in_force"]["fnmr"] <= 0.5
        name, (_, second, *_) = next(iter(photos.items()))
        claim = {"identity": name, "max_fmr": "0.01", "face": "central"}
        verified = client.post("/verify", data=claim, files={"image": second.read_bytes()}).json()
        assert verified["evidence"] == answer["evidence"]
        assert verified["threshold"] == point["in_force"]["threshold"]
        assert client.delete("/collections/default/evidence").status_code == 204
        verified = client.post("/verify", data=claim, files={"image": second.read_bytes()}).json()
        assert verified["evidence"]["source"] == "bundle"
