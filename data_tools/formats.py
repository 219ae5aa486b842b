"""What a file is by its first bytes, so that none is read as something that it is not."""

import codecs
import re

from januslm.config import Refused

HEAD = 4096  # bytes to look at
TEXT, JSON_LINES, WIKIPEDIA, WARC = "text", "JSON lines", "a Wikipedia XML dump", "WARC records"
UTF_16, UTF_32, PARQUET, ZIP = "UTF-16 text", "UTF-32 text", "parquet", "a zip archive"
UNMARKED, BINARY = "UTF-16 text without a byte order mark", "binary data"

# The first bytes of a file, from the description of each format.
MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": ZIP,
    b"PK\x05\x06": ZIP,
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"PAR1": PARQUET,
    b"ARROW1\x00": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"Obj\x01": "Avro",
    b"WARC/": WARC,
    b"filedesc://": "an ARC archive",
    b"%PDF-": "PDF",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x89HDF\r\n": "HDF5",
    b"\x7fELF": "a program",
    b"\x89PNG\r\n": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"\xd0\xcf\x11\xe0": "an Office document",
    b"{\\rtf": "RTF",
    b"MMIDIDX\x00": "the index of a corpus",
    b"\x80\x04\x95": "a pickle",
}
# A byte order mark, and what Python calls the encoding; UTF-32's begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NULS, FEW = 0.02, 8  # share of NUL bytes above which it is no text; so few may be a slip
ADVICE = {
    "gzip": "if it is packed once, its name must end in .gz",
    "bzip2": "its name must end in .bz2",
    "xz": "its name must end in .xz",
    "zstd": "its name must end in .zst",
    ZIP: 'kind = "text" reads the .txt files of a .zip',
    PARQUET: 'kind = "parquet" reads it',
    WARC: 'kind = "warc" reads crawled pages, kind = "wet" texts that others extracted',
    WIKIPEDIA: 'kind = "wikipedia" reads it',
    JSON_LINES: 'kind = "jsonl" reads it',
    TEXT: 'kind = "text" reads it',
    "an Arrow file": 'kind = "hf" reads a folder of them that `datasets` saved',
    "an Arrow stream": 'kind = "hf" reads a folder of them that `datasets` saved',
    "an ARC archive": "no kind reads it; warcio can make a WARC of it (`warcio recompress`)",
    UNMARKED: 'convert it to UTF-8, or say encoding = "utf-16-le" (or -be) to kind = "text"',
}

_ROW = re.compile(rb'\s*\{\s*"(?:[^"\\\n]|\\.){0,200}"\s*:')
_DUMP = re.compile(rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?<mediawiki[\s>]")


def mark_of(head: bytes) -> bytes:
    """The byte order mark that these first bytes begin with, or nothing."""
    return next((mark for mark in MARKS if head.startswith(mark)), b"")


def format_of(head: bytes) -> str:
    """What the first bytes of an unpacked file look like; TEXT where nothing is known of them."""
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bzip2" or head[4:10] == b"1AY&SY"):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive"
    mark = mark_of(head)
    if mark and mark != codecs.BOM_UTF8:
        return UTF_32 if MARKS[mark] == "utf-32" else UTF_16
    if head.count(0) > FEW + NULS * len(head):
        even, odd = head[::2].count(0), head[1::2].count(0)
        return UNMARKED if max(even, odd) > 9 * min(even, odd) else BINARY
    body = head.removeprefix(mark)
    if _DUMP.match(body):
        return WIKIPEDIA
    first, _, second = body.lstrip().partition(b"\n")
    if _ROW.match(first) and (not second.strip() or _ROW.match(second)):
        return JSON_LINES
    return TEXT


def refuse_other(head: bytes, where: str, reads: tuple[str, ...]) -> None:
    """Refused for a file, by its first bytes, of a format that is none of `reads`."""
    found = format_of(head)
    if head and found not in reads:
        advice = ADVICE.get(found, "no kind reads it")
        if found == TEXT:
            advice = f"it holds none of: {', '.join(reads)}"
            raise Refused(f"{where}: looks like no file of this kind of source; {advice}")
        raise Refused(f"{where}: looks like {found}; {advice}")
