"""The TensorBoard files of a run: numbers by step and text."""

from pathlib import Path


class TensorBoard:
    """Writes only where `first` is true (rank 0).  `step`: where a resumed run goes on."""

    def __init__(self, folder: Path, first: bool = True, step: int = 0):
        self.writer = None
        if first:
            # Imported here because it takes a second that the other ranks need not wait for.
            from torch.utils.tensorboard import SummaryWriter

            # Without purge_step the steps that a killed run made after its last checkpoint would
            # be drawn twice.
            self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def numbers(self, step: int, **values: float) -> None:
        """One point on each named curve."""
        if self.writer:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text, drawn as markdown."""
        if self.writer:
            self.writer.add_text(name, markdown, step)

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        """Flush and end; safe to call twice."""
        if self.writer:
            self.writer.close()
            self.writer = None
