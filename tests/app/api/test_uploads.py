"""The bytes of all bodies under way are bounded together; sizes and times of one are in the table."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from app.api.middleware import BodyBudget


class Upload:
    """One request through the middleware, which ends when ``finish`` is called."""

    def __init__(self, budget: BodyBudget, headers: dict[str, str], method: str = "POST") -> None:
        self.finish = asyncio.Event()
        self.started: dict[str, Any] = {}
        self.body = b""
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._scope = {"type": "http", "method": method, "headers": raw}
        self.task = asyncio.ensure_future(budget(self._scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.finish.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.started = message
        else:
            self.body += message.get("body", b"")

    async def status(self) -> int:
        self.finish.set()
        await self.task
        return int(self.started["status"])


async def _accept(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})


def budget() -> BodyBudget:
    return BodyBudget(_accept, max_bytes=100, total_bytes=150, timeout_s=5)


def test_upload_past_the_budget_is_busy_until_another_has_ended() -> None:
    async def scenario() -> None:
        shared = budget()
        first = Upload(shared, {"Content-Length": "100"})
        await asyncio.sleep(0)
        refused = Upload(shared, {"Content-Length": "51"})
        assert await refused.status() == 503
        assert json.loads(refused.body)["code"] == "busy"
        assert (b"retry-after", b"1") in refused.started["headers"]
        fitting = Upload(shared, {"Content-Length": "50"})
        assert await fitting.status() == 204
        assert await first.status() == 204
        assert await Upload(shared, {"Content-Length": "100"}).status() == 204

    asyncio.run(scenario())


def test_upload_of_unknown_length_reserves_as_much_as_it_may_send() -> None:
    async def scenario() -> None:
        shared = budget()
        first = Upload(shared, {"Transfer-Encoding": "chunked"})
        await asyncio.sleep(0)
        assert await Upload(shared, {"Content-Length": "51"}).status() == 503
        assert await first.status() == 204

    asyncio.run(scenario())


def test_request_that_fails_gives_its_bytes_back() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError

    async def scenario() -> None:
        shared = BodyBudget(fail, max_bytes=100, total_bytes=150, timeout_s=5)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await Upload(shared, {"Content-Length": "100"}).status()

    asyncio.run(scenario())


def test_request_without_a_body_needs_no_budget() -> None:
    async def scenario() -> None:
        shared = budget()
        first = Upload(shared, {"Content-Length": "100"})
        await asyncio.sleep(0)
        assert await Upload(shared, {}, "DELETE").status() == 204
        assert await Upload(shared, {"Content-Length": "100"}, "GET").status() == 204
        await first.status()

    asyncio.run(scenario())


@pytest.mark.parametrize("length", ["abc", "-1", "1.5", "0x10", "", "\u0663"])
def test_length_that_is_no_number_is_refused(length: str) -> None:
    async def scenario() -> int:
        return await Upload(budget(), {"Content-Length": length}).status()

    assert asyncio.run(scenario()) == 422


@pytest.mark.parametrize("length", ["101", "9" * 50])
def test_length_over_the_limit_is_refused_before_a_byte_is_read(length: str) -> None:
    async def scenario() -> int:
        return await Upload(budget(), {"Content-Length": length}).status()

    assert asyncio.run(scenario()) == 413
