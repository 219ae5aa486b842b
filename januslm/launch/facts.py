"""What a host says of itself before a run starts: versions, GPUs, disk, network."""

import array
import fcntl
import os
import platform
import random
import shutil
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from januslm.config import Refused
from januslm.launch.environment import gpus

PORTS = range(20_000, 32_000)  # below those that systems give to outgoing connections
REACHED_WITHIN = 3.0  # seconds for one connection between two hosts
SEEN_WITHIN = 5.0  # seconds until a file of one host must be there for another
ADDRESS_OF = 0x8915  # SIOCGIFADDR, the IPv4 address of an interface


def facts(folder: str, code: bool) -> dict:
    """Plain values; folder: the run's, of whose disk the free GB are given.

    code: also say januslm's version with a hash of its files, which takes a tenth of a second.
    """
    found = {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "deepspeed": _version("deepspeed"),
        "gpus": 0 if os.environ.get("DS_ACCELERATOR") == "cpu" else gpus(),
        "cores": len(os.sched_getaffinity(0)),
        "free_gb": round(shutil.disk_usage(_there(folder)).free / 1e9, 1),
        "clock": time.time(),
    }
    if code:
        from januslm.training import fingerprint  # its hash is of a package, and not always needed

        found["code"] = fingerprint.code()
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _there(folder: str) -> Path:
    """The folder, or what there is of the way to it."""
    whole = Path(folder).absolute()
    return next(place for place in (whole, *whole.parents) if place.is_dir())


def mark(folder: str, name: str) -> str:
    """Put an empty file of that name where the run's folder is or will be; its path."""
    path = _there(folder) / name
    path.touch()
    return str(path)


def sees(path: str) -> bool:
    """Whether the file that another host has made is there, or comes soon."""
    end = time.monotonic() + SEEN_WITHIN
    while not (there := os.path.exists(path)) and time.monotonic() < end:
        time.sleep(0.2)
    return there


class Door:
    """A port of this host, open until closed: who connects hears a word and knows it is us."""

    def __init__(self, word: str):
        self.word = word.encode()
        self.socket, self.port = _listening()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        with suppress(OSError):  # closed
            while True:
                caller, _ = self.socket.accept()
                threading.Thread(target=self._greet, args=(caller,), daemon=True).start()

    def _greet(self, caller: socket.socket) -> None:
        with suppress(OSError), caller:
            caller.settimeout(REACHED_WITHIN)
            caller.sendall(self.word)
            caller.recv(1)  # let the other end close first: the port is then free at once

    def close(self) -> None:
        with suppress(OSError):  # ends accept(), which close() alone would not
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _listening() -> tuple[socket.socket, int]:
    """A socket on $MASTER_PORT, or on a port that is free; Refused where the former is not."""
    given = os.environ.get("MASTER_PORT", "")
    if given and not (given.isdecimal() and 0 < int(given) < 65536):
        raise Refused(f"MASTER_PORT must be a port, got {given!r}")
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    for port in [int(given)] if given else random.sample(PORTS, 50):
        with suppress(OSError):
            found = socket.create_server(("", port), family=family, dualstack_ipv6=both)
            return found, port
    raise Refused(f"port {given} is taken (MASTER_PORT)" if given else "no port is free")


def reached(candidates: Sequence[str], port: int, word: str) -> dict[str, tuple[str, str]]:
    """Of the names of one host, those that lead to its door: its address, our interface."""
    found: dict[str, tuple[str, str]] = {}

    def knock(name: str) -> None:
        with (
            suppress(OSError, UnicodeError),
            socket.create_connection((name, port), timeout=REACHED_WITHIN) as door,
        ):
            if door.recv(100) == word.encode():
                there, here = door.getpeername()[0], door.getsockname()[0]
                found[name] = there, interface(here)

    threads = [threading.Thread(target=knock, args=(name,)) for name in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def addresses() -> dict[str, str]:
    """Interfaces by address, those of this host alone (loopback) left out."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            with suppress(OSError):  # it has none
                fcntl.ioctl(asked, ADDRESS_OF, request)
                found[socket.inet_ntoa(request[20:24])] = name
    for line in _lines("/proc/net/if_inet6"):
        address, *_, name = line.split()
        found[socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))] = name
    return {a: name for a, name in found.items() if not a.startswith(("127.", "::1", "fe80:"))}


def interface(address: str) -> str:
    """The one that has the address; "" if none has."""
    return addresses().get(address.removeprefix("::ffff:"), "")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
