"""A large body of many small values costs an error and not gigabytes."""

import io
import json
import tracemalloc

from fastapi.testclient import TestClient

from tests.support.images import angle_png


def refused(client: TestClient, path: str, content: bytes) -> str:
    headers = {"content-type": "application/json"}
    tracemalloc.start()
    try:
        answer = client.post(path, content=content, headers=headers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == 422
    assert len(answer.content) < 10_000
    assert peak < 6 * len(content) + 2**22
    detail: str = answer.json()["detail"]
    return detail


def test_body_of_very_many_fields_is_refused_before_it_is_parsed(client: TestClient) -> None:
    fields = ",".join(f'"k{number}":1' for number in range(300_000))
    assert "more than 20000 values" in refused(client, "/enroll", f"{{{fields}}}".encode())


def test_image_that_is_a_list_of_lists_is_refused_before_it_is_parsed(client: TestClient) -> None:
    assert "more than 20000 values" in refused(client, "/embed", b'{"image":[' + b"[]," * 500_000 + b"[]]}")


def test_answer_lists_no_more_than_twenty_problems(client: TestClient) -> None:
    body = json.dumps({f"k{number}": 1 for number in range(5_000)})
    answer = client.post("/enroll", content=body, headers={"content-type": "application/json"})
    assert len(answer.json()["errors"]) == 20


def test_large_body_where_no_image_belongs_is_refused(client: TestClient) -> None:
    body = json.dumps({"name": "x" * 70_000})
    answer = client.post("/collections", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "at most 65536 are read here" in answer.text) == (422, True)


def test_metadata_sent_as_a_large_file_is_refused(client: TestClient) -> None:
    metadata = io.BytesIO(b'{"a":[' + b"[]," * 50_000 + b"[]]}")
    answer = client.post(
        "/enroll", data={"identity": "ada"}, files={"image": angle_png(0), "metadata": metadata}
    )
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "metadata")
