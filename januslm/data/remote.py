"""Files far away: listed, and read on from the same byte after a connection that broke.

http and https go through the standard library: fsspec's own reading of them needs aiohttp and gives
up where a connection breaks.  Everything else (s3, gs, memory, ...) is fsspec's.
"""

import http.client
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from januslm.config import Refused

WAITS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt at the same byte
SILENCE = 60.0  # seconds without an answer
FOR_EVER = (400, 401, 403, 404, 405, 410, 416)  # answers that no second attempt changes
VERSIONS = ("ETag", "etag", "e_tag", "md5Hash", "content_md5", "checksum")
TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


class Address(NamedTuple):
    """A remote file; version: its ETag, or else the time of its last change."""

    address: str
    bytes: int
    version: str


def is_remote(place: str) -> bool:
    """Whether this is an address rather than a path."""
    return bool(re.match(r"[A-Za-z][\w+.-]*://", place))


def matching(pattern: str) -> list[Address]:
    """The files at an address, which may have * where its protocol can list."""
    if _is_http(pattern):
        if "*" in pattern:
            raise Refused(f"{pattern}: http cannot list files; name each one")
        return [_http_address(pattern)]
    system, path = _system(pattern)
    try:
        found = {path: system.info(path)} if "*" not in path else system.glob(path, detail=True)
    except FileNotFoundError:
        found = {}
    except Exception as error:  # each protocol has its own: no credentials, no host, no bucket
        raise Refused(f"{pattern}: cannot be listed ({_reason(error)})") from None
    files = {name: facts for name, facts in found.items() if facts["type"] == "file"}
    if not files:
        raise Refused(f"no file matches {pattern}")
    return [
        Address(system.unstrip_protocol(name), facts["size"] or 0, _version(facts))
        for name, facts in files.items()
    ]


def opened(address: str, size: int, version: str) -> io.RawIOBase:
    """A remote file for reading from any place; Refused where it is not as it was listed."""
    if _is_http(address):
        return _Resuming(address, size, lambda at: _answer(address, at, size, version))

    def open_at(at: int) -> BinaryIO:
        system, path = _system(address)
        facts = system.info(path)
        if (facts["size"], _version(facts)) != (size, version):
            raise Refused(f"{address}: changed since the build began")
        file = system.open(path, "rb")
        file.seek(at)
        return cast(BinaryIO, file)

    return _Resuming(address, size, open_at)


class _Resuming(io.RawIOBase):
    """A remote file, opened again at the byte where a connection broke."""

    def __init__(self, address: str, size: int, open_at: Callable[[int], BinaryIO]):
        self._address, self._size, self._open_at = address, size, open_at
        self._at, self._file = 0, cast(BinaryIO | None, None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._at, self._size)[whence]
        if start + offset != self._at:
            self._drop()
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        part = _retried(lambda: self._part(wanted), f"{self._address}: byte {self._at:,}")
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _part(self, wanted: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._open_at(self._at)
            part = self._file.read(wanted)
            if not part:
                raise ConnectionError("the connection ended early")
            return part
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def close(self) -> None:
        self._drop()
        super().close()


def _retried(attempt: Callable, what: str, waits: Iterable[float] | None = None):
    """What an attempt gives, after some waiting; Refused where all fail, or one fails for ever."""
    pauses = [*(WAITS if waits is None else waits), None]
    for wait in pauses:
        try:
            return attempt()
        except Refused:
            raise
        except Exception as error:  # each protocol has its own
            lasting = isinstance(error, FileNotFoundError | PermissionError)
            lasting |= isinstance(error, urllib.error.HTTPError) and error.code in FOR_EVER
            if lasting or wait is None:
                tried = "" if lasting else f", in each of {len(pauses)} attempts"
                raise Refused(f"{what}: cannot be read ({_reason(error)}){tried}") from None
            time.sleep(wait)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.code} {error.reason}"
    return " ".join(str(getattr(error, "reason", error)).split())[:300] or type(error).__name__


# --- http, https


def _is_http(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _http_address(address: str) -> Address:
    """Size and version; Refused where a server does not say how long a file is.

    By a GET that is not read on: some servers, and signed addresses, allow no HEAD.
    """
    if not urlsplit(address).hostname:
        raise Refused(f"{address}: no address of a file")
    answer = _retried(lambda: _asked(address), address)
    with answer:
        size = answer.headers.get("Content-Length", "")
        if not size.isdecimal():
            raise Refused(f"{address}: the server does not say how long it is; download it first")
        return Address(address, int(size), _http_version(answer.headers))


def _asked(address: str, **headers: str):
    # what is stored, not what a server would pack for us on the way
    given = {"Accept-Encoding": "identity", "User-Agent": "januslm", **headers}
    request = urllib.request.Request(address, headers=given)
    return urllib.request.urlopen(request, timeout=SILENCE)


def _http_version(headers: http.client.HTTPMessage) -> str:
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def _answer(address: str, at: int, size: int, version: str) -> BinaryIO:
    """The bytes from `at` on; they are skipped here where the server knows no ranges."""
    answer = _asked(address, Range=f"bytes={at}-")
    place = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    total = place[2] if place else answer.headers.get("Content-Length", "")
    begins = int(place[1]) if place else 0
    if total not in (str(size), "*") or _http_version(answer.headers) != version or begins > at:
        answer.close()
        raise Refused(f"{address}: changed since the build began")
    for done in range(begins, at, 1 << 20):
        answer.read(min(1 << 20, at - done))
    return answer


# --- what fsspec knows


def _system(address: str):
    """The file system of an address, and the path in it; Refused where it needs what is missing."""
    import fsspec

    protocol = address.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        needed = re.search(r"[Ii]nstall (\S+)|No module named '([\w.]+)'", str(error))
        package = (needed[1] or needed[2]) if needed else f"fsspec[{protocol}]"
        raise Refused(f"{address}: {protocol}:// needs a package: pip install {package}") from None
    except Exception as error:  # each protocol has its own
        raise Refused(f"{address}: cannot be reached ({_reason(error)})") from None


def _version(facts: dict) -> str:
    known = next((facts[key] for key in (*VERSIONS, *TIMES) if facts.get(key)), "")
    return str(known.timestamp() if isinstance(known, datetime) else known)


# --- parts


def part(address: str, start: int = 0, end: int | None = None, first: bool = False) -> bytes:
    """The bytes [start, end) of a file far away, or all that follow; fewer where it ends before.

    first: nothing was read from there yet, so that a wrong address is refused in two seconds.
    """
    waits = [wait for wait in WAITS if wait <= 1] if first else WAITS
    return _retried(lambda: _bytes(address, start, end), address, waits)


def _bytes(address: str, start: int, end: int | None) -> bytes:
    if not _is_http(address):
        system, path = _system(address)
        return system.cat_file(path, start=start, end=end)  # s3fs has another argument between
    ranged = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end else {}
    with _asked(address, **ranged) as answer:
        size = int(answer.headers.get("Content-Length") or 0)
        if answer.status != 206:  # a server that knows no ranges sends all of it
            for done in range(0, start, 1 << 20):
                answer.read(min(1 << 20, start - done))
            size = (size if end is None else min(size, end)) - start
        found = answer.read(None if end is None else end - start)
    if len(found) < size:
        raise ConnectionError("the connection ended early")
    return found
