"""Weights & Biases, or Trackio, which has the same functions: the curves and texts of a run."""

import importlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from januslm.config import Refused
from januslm.data import atomic

PROJECT = "januslm"
Borne = Callable[[str, Callable[[], object]], bool]


class Hosted:
    """One run there, which a resumed run goes on with; for rank 0 alone.

    borne: log.Log.borne.  What the package asks for (a key, a place, whether it is online) comes
    from its own settings and variables.
    """

    def __init__(self, package: str, folder: Path, borne: Borne):
        self.package, self.folder, self.borne = package, folder, borne
        self.module: Any = None

    def begin(self, config: Mapping, charts: Mapping, scores: Sequence[str]) -> None:
        """Open the run there; Refused where the package cannot (no key, no network)."""
        del charts, scores  # its users arrange and compare curves there
        try:
            with redirect_stdout(StringIO()):  # it would greet, in colours
                self._begin(config)
        except Exception as error:  # whatever the package raises: the run has not begun
            why = str(error).strip().splitlines() or [type(error).__name__]
            raise Refused(f"{self.folder}: train.boards: {self.package}: {why[0]}") from None

    def _begin(self, config: Mapping) -> None:
        module = importlib.import_module(self.package)
        if self.package == "wandb":
            module.init(
                project=PROJECT,
                id=self._identity(),
                name=str(self.folder),
                dir=str(self.folder / "board"),
                config=dict(config),
                resume="allow",
                settings=module.Settings(silent=True, console="off"),
            )
        else:
            name = f"{self.folder.name}-{self._identity()}"
            module.init(project=PROJECT, name=name, config=dict(config), resume="allow")
        self.module = module

    def _identity(self) -> str:
        """The run's own name there, the same whenever it goes on."""
        file = self.folder / "board" / f"{self.package}.id"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            with atomic.plain(file) as out:
                out.write(secrets.token_hex(4))
        return file.read_text().strip()

    def numbers(self, step: int, **values: float) -> None:
        """One point on each named curve."""
        self._log(dict(values), step)

    def text(self, step: int, name: str, markdown: str) -> None:
        """A text, drawn as markdown."""
        if self.module is None:
            return
        if hasattr(self.module, "Markdown"):
            self._log({name: self.module.Markdown(markdown)}, step)
            return
        from markdown import markdown as rendered  # TensorBoard brings it

        self._log({name: self.module.Html(rendered(markdown, extensions=["tables"]))}, step)

    def _log(self, values: dict, step: int) -> None:
        if self.module is None:
            return

        def write() -> None:
            try:
                self.module.log(values, step=step)
            except Exception as error:  # a service that is away ends no run
                raise OSError(0, f"{type(error).__name__}: {error}") from None

        self.borne(self.package, write)

    def end(self, done: bool) -> None:
        """Hand over what is left; safe to call twice."""
        module, self.module = self.module, None
        if module is not None:
            with redirect_stdout(StringIO()):
                module.finish()
