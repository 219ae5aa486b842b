"""A file server on the loopback address that knows ranges, as object stores do; what it sent."""

import os
import re
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Serves a folder; `breaks` answers are cut in the middle first, `fails` get code 503."""

    daemon_threads = True

    def __init__(self, folder: Path, ranges: bool = True):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.ranges = folder, ranges
        self.breaks = self.fails = 0
        self.sent: Counter = Counter()  # (path, range) of whole answers
        self.held = ""  # files of this suffix are answered once `open` is set
        self.open = threading.Event()
        self.arrived = threading.Semaphore(0)  # released by every request for one of them

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        if server.held and self.path.endswith(server.held):
            server.arrived.release()
            server.open.wait()
        path = server.folder / self.path.lstrip("/")
        if server.fails > 0:
            server.fails -= 1
            return self.send_error(503)
        if not path.is_file():
            return self.send_error(404)
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if server.ranges else None
        start = int(found[1]) if found else 0
        end = min(int(found[2]) + 1, size) if found and found[2] else size
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(end - start))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        with path.open("rb") as file:
            content = os.pread(file.fileno(), end - start, start)
        if server.breaks > 0:
            server.breaks -= 1
            self.wfile.write(content[: len(content) // 2])
            return self.connection.close()
        server.sent[self.path, asked] += 1
        self.wfile.write(content)


@contextmanager
def serving(folder: Path, ranges: bool = True):
    """A server of that folder, in threads of this process."""
    server = RangeServer(folder, ranges)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
