"""The TensorBoard files of a run: numbers by step and text."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

Borne = Callable[[str, Callable[[], object]], bool]
AGAIN = 60.0  # seconds after a failing disk until a new file is tried


def _raised(what: str, write: Callable[[], object]) -> bool:
    write()
    return True


class TensorBoard:
    """Writes only where `first` is true (rank 0).  `step`: where a resumed run goes on.

    borne: log.Log.borne, which counts what a failing disk does not take; without it OSError is
    raised.
    """

    def __init__(self, folder: Path, first: bool = True, step: int = 0, borne: Borne = _raised):
        self.folder, self.first, self.step, self.borne = folder, first, step, borne
        self.writer = None
        self.again = 0.0
        if first:
            _quiet()
            self._do(lambda writer: None)

    def _do(self, act: Callable) -> None:
        """act(writer), which is opened first where that is due."""
        if not self.first:
            return

        def write() -> None:
            if self.writer is None:
                if time.monotonic() < self.again:
                    raise OSError("waiting for room")
                self.writer = self._opened()
            act(self.writer)

        if not self.borne(self.folder.name, write):
            # The thread that writes its file has ended for good: the next one gets a new file.
            if self.writer is not None or time.monotonic() >= self.again:
                self.again = time.monotonic() + AGAIN
            self._drop()

    def _opened(self):
        # Imported here because it takes a second that the other ranks need not wait for.
        from torch.utils.tensorboard import SummaryWriter

        # Without purge_step the steps that a killed run made after its last checkpoint would be
        # drawn twice.
        return SummaryWriter(str(self.folder), purge_step=self.step + 1 if self.step else None)

    def _drop(self) -> None:
        if self.writer is not None:
            with suppress(OSError):
                self.writer.close()
            self.writer = None

    def numbers(self, step: int, **values: float) -> None:
        """One point on each named curve."""

        def act(writer) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self.step = step
        self._do(act)

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text, drawn as markdown."""
        self._do(lambda writer: writer.add_text(name, markdown, step))

    def flush(self) -> None:
        """Bring everything to the disk."""
        self._do(lambda writer: writer.flush())

    def close(self) -> None:
        """Flush and end; safe to call twice."""
        if self.writer is not None:
            self.borne(self.folder.name, self.writer.close)
            self.writer = None
        self.first = False


def _quiet() -> None:
    """A full disk ends the writer's thread, which would show a traceback beside our line."""
    before = threading.excepthook

    def hook(arguments) -> None:
        thread = type(arguments.thread).__name__
        if not (issubclass(arguments.exc_type, OSError) and thread == "_AsyncWriterThread"):
            before(arguments)

    threading.excepthook = hook
