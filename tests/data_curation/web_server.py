"""A web server on loopback that answers as an archive's does, and fails as one does."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Archive(ThreadingHTTPServer):
    """Serves `files`; `failures` are how the next requests for bytes of a path end: a status, or `cut`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.failures: dict[str, list[int | str]] = {}

    @property
    def address(self) -> str:
        """Its address, with a slash at the end."""
        return f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    server: Archive

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.path.lstrip("/")
        data, waiting = self.server.files.get(path), self.server.failures.get(path, [])
        failure = waiting.pop(0) if body and waiting else None
        if data is None or isinstance(failure, int):
            self.send_response(404 if data is None else int(failure or 0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(wanted[1]), min(int(wanted[2]) + 1, len(data))) if wanted else (0, len(data))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("ETag", f'"{hash(data):x}"')
        self.end_headers()
        if body:
            self.wfile.write(data[start : (start + end) // 2 if failure == "cut" else end])

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Archive]:
    """A server that runs within the block."""
    with Archive() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
