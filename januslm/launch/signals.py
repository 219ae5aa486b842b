"""The signals that ask a run to stop, as events among those of the hosts."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from januslm.launch.remote import Events

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def received(events: Events) -> Iterator[None]:
    """Put each of them into the queue; under nohup, SIGHUP stays without effect."""

    def put(number: int, _frame: object) -> None:
        events.put((None, {"event": "signal", "number": number}))

    before = {}
    for number in STOPS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            continue
        before[number] = signal.signal(number, put)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
