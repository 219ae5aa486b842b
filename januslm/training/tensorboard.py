"""The TensorBoard files of a run: curves, texts, charts that belong together, hyperparameters."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from januslm.training import boards

Borne = Callable[[str, Callable[[], object]], bool]
# TensorBoard shows five columns until one chooses others, those that it takes to differ first.
FIRST = ("model.dropout", "objective.name", "optimizer.lr", "train.batch", "train.steps")
GROUP = "valid"  # the folder, and run, of what validations have found
AGAIN = 60.0  # seconds after a failing disk until a new file is tried


def _raised(what: str, write: Callable[[], object]) -> bool:
    write()
    return True


class TensorBoard:
    """Writes only where `first` is true (rank 0).  `step`: where a resumed run goes on.

    What is named valid/NAME goes to a folder of its own, as NAME: so training and validation are in
    one chart, in two colours.  borne: log.Log.borne, which counts what a failing disk does not
    take; without it OSError is raised.
    """

    def __init__(
        self,
        folder: Path,
        first: bool = True,
        step: int = 0,
        borne: Borne = _raised,
        name: str = "board",
    ):
        """name: what is said to have failed, where the disk does."""
        self.folder, self.first, self.step, self.borne, self.name = folder, first, step, borne, name
        self.began = step
        self.validation: TensorBoard | None = None  # once there is something for it
        self.writer = None
        self.again = 0.0
        self.last: list = []  # what says that the run has ended, for the tab that compares runs
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

        if not self.borne(self.name, write):
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
        mine = {name: value for name, value in values.items() if not name.startswith(boards.VALID)}
        theirs = {name: value for name, value in values.items() if name not in mine}

        def act(writer) -> None:
            for name, value in mine.items():
                writer.add_scalar(name, value, step)

        if theirs:
            self._of_validation().numbers(
                step, **{name.removeprefix(boards.VALID): value for name, value in theirs.items()}
            )
        self.step = step
        if mine:
            self._do(act)

    def _of_validation(self) -> "TensorBoard":
        if self.validation is None:
            place, name = self.folder / GROUP, f"{self.name}/{GROUP}"
            self.validation = TensorBoard(place, self.first, self.began, self.borne, name)
        return self.validation

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text, drawn as markdown, on the disk when this returns."""

        def act(writer) -> None:
            writer.add_text(name, markdown, step)
            writer.flush()

        self._do(act)

    def begin(self, config: Mapping, charts: Mapping, scores: Sequence[str]) -> None:
        """For the tabs Text, Custom scalars and HParams: settings, charts, what is compared."""
        layout = {
            heading: {title: ["Multiline", list(map(_pattern, tags))] for title, tags in of.items()}
            for heading, of in charts.items()
        }

        def act(writer) -> None:
            table = json.dumps(config, indent=1)
            writer.add_text("config", f"```json\n{table}\n```", self.step)
            writer.add_custom_scalars(layout)
            *first, last = _hyperparameters(boards.settings(config), scores)
            for one in first:
                writer.file_writer.add_summary(one)
            self.last = [last]

        self._do(act)

    def end(self, done: bool) -> None:
        """Flush and end; safe to call twice.  done: the run is."""
        if done and self.last:
            self._do(lambda writer: [writer.file_writer.add_summary(one) for one in self.last])
        if self.validation:
            self.validation.end(done)
        if self.writer is not None:
            self.borne(self.name, self.writer.close)
            self.writer = None
        self.first = False


def _hyperparameters(settings: Mapping, scores: Sequence[str]) -> list:
    """What a run is compared by: the experiment, this run's settings, its end.

    Values of scores are the last ones of the validation's curves of that name.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from torch.utils.tensorboard.summary import hparams

    experiment, *others = hparams(dict(settings), dict.fromkeys(scores, 0.0))
    [value] = experiment.value
    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    for info in data.experiment.hparam_infos:
        info.differs = info.name in FIRST
    for metric in data.experiment.metric_infos:
        metric.name.group = GROUP
    value.metadata.plugin_data.content = data.SerializeToString()
    return [experiment, *others]


def _pattern(tag: str) -> str:
    """A regular expression that is this curve and no other."""
    return f"^{re.escape(tag)}$"


def _quiet() -> None:
    """A full disk ends the writer's thread, which would show a traceback beside our line."""
    before = threading.excepthook

    def hook(arguments) -> None:
        thread = type(arguments.thread).__name__
        if not (issubclass(arguments.exc_type, OSError) and thread == "_AsyncWriterThread"):
            before(arguments)

    threading.excepthook = hook
