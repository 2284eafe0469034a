"""The README's calls, run as printed, give the answers that it shows."""

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"```sh\ncurl (?P<call>[^\n]+)\n```\n\n```json\n(?P<answer>.*?)\n```", re.DOTALL)


def send(client: TestClient, call: str) -> dict[str, Any]:
    """Do what curl would do with such arguments: only -F and an address occur."""
    words = shlex.split(call)
    fields = dict(value.split("=", 1) for flag, value in itertools.pairwise(words) if flag == "-F")
    files = {name: (ROOT / value[1:]).read_bytes() for name, value in fields.items() if value.startswith("@")}
    data = {name: value for name, value in fields.items() if name not in files}
    answer = client.post("/" + words[-1].rsplit("/", 1)[1], data=data, files=files)
    assert answer.is_success, answer.text
    body: dict[str, Any] = answer.json()
    return body


def assert_shown(shown: Any, real: Any, where: str = "answer") -> None:
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert_shown(value, real[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert len(shown) == len(real), where
        for index, value in enumerate(shown):
            assert_shown(value, real[index], f"{where}[{index}]")
    elif isinstance(shown, float):
        assert real == pytest.approx(shown, rel=2e-3, abs=0.02), where
    else:
        assert shown == real, where


@pytest.mark.model
def test_every_call_of_the_readme_gives_the_answer_it_shows(faces_client: TestClient) -> None:
    examples = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(examples) == 3
    for call, answer in examples:
        assert_shown(json.loads(answer), send(faces_client, call))
