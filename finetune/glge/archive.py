"""The files inside an archive: a zip, a tar of any packing, or an unpacked folder."""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, cast

from januslm.config import Refused

DAMAGE = (
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    KeyError,  # a link in a tar to what is not in it
)

MOST = 16 << 30  # bytes of one file: GLGE's largest has two; more fills a disk on purpose

Opener = Callable[[], IO[bytes]]


def copy(stream: IO[bytes], file: IO[bytes], where: str) -> None:
    """All of one file of an archive; Refused for one that only a bomb holds."""
    left = MOST
    while chunk := stream.read(1 << 20):
        if (left := left - len(chunk)) < 0:
            raise Refused(f"{where}: unpacks to more than {MOST:,} bytes: not GLGE's")
        file.write(chunk)


def contents(archive: Path) -> Iterator[tuple[str, Opener]]:
    """(name inside, function that opens it); nothing is unpacked, so no name can lead outside."""
    if archive.is_dir():
        base = archive.resolve()
        for path in sorted(base.rglob("*")):
            if path.is_file():
                yield path.as_posix(), cast(Opener, partial(path.open, "rb"))
    elif not archive.exists():
        raise Refused(f"{archive}: no such file or folder")
    elif not archive.is_file():
        raise Refused(f"{archive}: neither a file nor a folder")
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as box:
            for name in box.namelist():
                yield name, partial(box.open, name)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for entry in tar:
                if entry.isfile() or entry.islnk():  # what extractfile gives a stream for
                    yield entry.name, cast(Opener, partial(tar.extractfile, entry))
    else:
        raise Refused(f"{archive}: neither a folder nor a zip nor a tar file")
