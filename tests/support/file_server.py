"""A web server on 127.0.0.1 that serves bytes by path, with ranges, and can break off or send rubbish."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, and what was asked for.

    Attributes:
        files: Path (``/name``) to contents; any other path is 404.
        break_after: Bytes of a body after which the connection is closed; None sends all.
        ranges: Whether ranges are honoured; else the whole file is sent with 200.
        requests: ``path`` and the Range header (empty: none) of each request, in order.
        address: ``http://127.0.0.1:PORT``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    break_after: int | None = None
    ranges: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve until the block ends."""
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            served.requests.append((self.path, asked))
            if self.path not in served.files:
                self.send_error(404)
                return
            data = served.files[self.path]
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and served.ranges else 0
            if start and start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            end = len(data) if served.break_after is None else start + served.break_after
            self.wfile.write(data[start:end])

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
