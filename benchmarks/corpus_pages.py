"""Tens of thousands of real pages: Debian's documentation packages, crawled on the loopback."""

import contextlib
import html
import json
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PACKAGES = (
    "apache2-doc",
    "cmake-doc",
    "erlang-doc",
    "git-doc",
    "libboost1.74-doc",
    "linux-doc-6.1",
    "octave-doc",
    "postgresql-doc-15",
    "python-django-doc",
    "python3.11-doc",
    "qtbase5-doc-html",
    "sqlite3-doc",
)  # 130 MB packed
START = "pages.html"  # a page with links to all pages
LEAST_WORDS = 50  # in a text


def unpacked(folder: Path, packages: tuple[str, ...]) -> Path:
    """The packages' files below folder/site, downloaded once; no package is installed."""
    site, debs = folder / "site", folder / "deb"
    debs.mkdir(parents=True, exist_ok=True)
    site.mkdir(exist_ok=True)
    for package in packages:
        if (site / package).is_dir():
            continue
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "-q", "download", package], cwd=debs, check=True)
        (deb,) = debs.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, site / package], check=True)
    return site


def pages(site: Path, packages: tuple[str, ...], most: int) -> list[str]:
    """The names below `site` of so many HTML files, spread over all; 0: all of them."""
    found = sorted(
        str(path.relative_to(site))
        for package in packages
        for path in (site / package).rglob("*.html")
        if path.is_file() and not path.is_symlink()
    )
    return found if not most else found[:: max(1, len(found) // most)][:most]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args) -> None:
        pass


@contextlib.contextmanager
def served(site: Path) -> Iterator[str]:
    """The address at which this process serves a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()


def crawl(folder: Path, site: Path, names: list[str]) -> dict:
    """Let wget write folder/warc/*.warc.gz of these pages; what it did.

    Raises ValueError where a page is missing in them or is not the file that was served.
    """
    warc = folder / "warc"
    warc.mkdir(parents=True, exist_ok=True)
    for old in warc.iterdir():
        old.unlink()
    links = "".join(
        f'<a href="{urllib.parse.quote(name)}">{html.escape(name)}</a>\n' for name in names
    )
    (site / START).write_text(f"<!DOCTYPE html><title>pages</title>\n{links}")
    began = time.monotonic()
    with served(site) as address:
        command = ["wget", "--quiet", "--recursive", "--level=1", "--no-host-directories"]
        command += ["--execute", "robots=off", "--delete-after", "--warc-max-size=64M"]
        command += [f"--directory-prefix={folder / 'fetched'}", f"--warc-file={warc / 'crawl'}"]
        done = subprocess.run([*command, f"{address}/{START}"])
    if done.returncode not in (0, 8):  # 8: a link led nowhere
        raise ValueError(f"wget ended with {done.returncode}")
    seconds = time.monotonic() - began
    different = _compare(warc, site, names)
    if different:
        raise ValueError(f"{len(different)} pages are not as they were served: {different[:3]}")
    size = sum(path.stat().st_size for path in warc.glob("crawl-*.warc.gz"))
    return {"pages": len(names), "seconds": round(seconds, 1), "packed_bytes": size}


def _compare(warc: Path, site: Path, names: list[str]) -> list[str]:
    """The pages that are not in the archives, or not to the byte."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    left = set(names)
    for path in sorted(warc.glob("crawl-*.warc.gz")):
        with path.open("rb") as file:
            for record in ArchiveIterator(file, record_types=WarcRecordType.response):
                address = urllib.parse.urlsplit(record.headers["WARC-Target-URI"].strip("<>"))
                name = urllib.parse.unquote(address.path).lstrip("/")
                if name in left and record.reader.read() == (site / name).read_bytes():
                    left.discard(name)
    return sorted(left)


def texts(folder: Path, site: Path, names: list[str]) -> list[str]:
    """The main texts of these pages, each once, in the order of the names; kept in a file."""
    from resiliparse.extract.html2text import extract_plain_text

    kept = folder / f"texts-{len(names)}.jsonl"
    if not kept.exists():
        found = {}
        for name in names:
            page = (site / name).read_bytes().decode("utf-8", "replace")
            text = extract_plain_text(page, main_content=True)
            if len(text.split()) >= LEAST_WORDS:
                found[text] = None
        aside = kept.with_suffix(".new")
        with aside.open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in found)
        aside.rename(kept)
    return [json.loads(line)["text"] for line in kept.open()]
