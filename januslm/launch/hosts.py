"""Which hosts a run is spread over: a hostfile in DeepSpeed's format."""

import re
import socket
from pathlib import Path

from januslm.config import Refused

# What ssh takes for a host and nothing else: one that begins with "-" would be an option of it.
NAME = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9._:-]*")


def read(path: str) -> dict[str, int]:
    """Processes by host.

    Refused where there is no such file, with which DeepSpeed would train on this machine alone,
    and where it is not one that DeepSpeed understands.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Refused(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path}: cannot be read ({error})") from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = re.fullmatch(r"(\S+)\s+slots=([1-9][0-9]*)", text)
        if not match:
            raise Refused(f'{path}:{number}: must be "host slots=N", got "{line}"')
        if not NAME.fullmatch(match[1]):
            raise Refused(f"{path}:{number}: {match[1]!r} is no name of a host")
        if match[1] in hosts:
            raise Refused(f"{path}:{number}: host {match[1]} comes twice")
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise Refused(f"{path}: names no host")
    return hosts


def is_here(host: str) -> bool:
    """Whether the name is this machine's own, which is reached without ssh."""
    own = socket.gethostname()
    return host in ("localhost", "127.0.0.1", "::1", own, own.partition(".")[0])
