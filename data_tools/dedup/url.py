"""Documents that were read at the same address on the web."""

from urllib.parse import urlsplit

from data_tools.documents import Document
from data_tools.duplicates import Equal, Keep

PORTS = {"http": 80, "https": 443}


def deduplicator(*, keep: Keep = "first") -> Equal:
    """Documents without an address are no duplicates.

    keep: which of the documents of one address stays; "longest": in tokens, the first of equals.
    """
    return Equal(_key, keep)


def _key(document: Document) -> bytes | None:
    return address(document.url).encode("utf-8", "surrogatepass") or None


def address(url: str) -> str:
    """What two addresses of one page have in common.

    http and https are one; host in lower case without its usual port; no fragment; "/" for no path.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:  # no address after all
        return url.strip()
    if parts.scheme not in PORTS or not parts.hostname:
        return url.strip()
    host = parts.hostname if port in (None, PORTS[parts.scheme]) else f"{parts.hostname}:{port}"
    return f"//{host}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")
