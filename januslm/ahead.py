"""A thread that makes the next items while the present one is used."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ahead(items: Iterator, depth: int = 2) -> Iterator[Iterator]:
    """The same items in the same order, made by a thread up to `depth` ahead."""
    waiting: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def offer(item) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.2)
                return True
            except queue.Full:
                pass
        return False

    def work() -> None:
        try:
            if all(offer((item, None)) for item in items):
                offer((None, StopIteration()))
        except BaseException as error:  # raised again where the item is taken
            offer((None, error))

    def taken() -> Iterator:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error:
                raise error
            yield item

    thread = threading.Thread(target=work, daemon=True, name="ahead")
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()
