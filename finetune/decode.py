"""What decoding is asked for on the command line, whosever the texts are: checked, then loaded."""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from januslm import registry
from januslm.cli.command import check_counts
from januslm.config import Refused, assignments
from januslm.inference.request import ALGORITHMS, PRECISIONS
from januslm.interop.export_folder import ExportFacts
from januslm.launch.environment import has_gpu

if TYPE_CHECKING:  # they import torch
    from januslm.inference.incremental import IncrementalDecoder
    from januslm.inference.trained_model import TrainedModel

LONGER = ("cut", "refuse")


def check(options: argparse.Namespace) -> None:
    """Refuse values that no decoding can have."""
    check_counts(options, "limit", "batch", "threads")
    if options.precision not in (None, *PRECISIONS):
        kinds = " or ".join(PRECISIONS)
        raise Refused(f"--precision must be {kinds}, got {options.precision!r}")
    if options.longer not in LONGER:
        raise Refused(f"--longer must be one of {', '.join(LONGER)}, got {options.longer!r}")
    if options.graphs and not has_gpu():
        raise Refused("--graphs: there is no CUDA device to capture graphs on")


def given(options: argparse.Namespace) -> dict:
    """The algorithm's options as they were typed."""
    names = ", ".join(registry.names(ALGORITHMS))
    return assignments(options.options, f"max_length=60; one of {names} goes after --algorithm")


def check_writable(out: Path) -> None:
    """Refused where `out` cannot be written, before hours of decoding."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise Refused(f"{out}: cannot be written ({error.strerror})") from None


def opened(
    facts: ExportFacts, options: argparse.Namespace
) -> tuple[TrainedModel, IncrementalDecoder]:
    """The model and what algorithms ask of it: torch from here on."""
    import torch

    from januslm.inference import trained_model

    torch.set_num_threads(options.threads or torch.get_num_threads())
    if options.graphs and not torch.cuda.is_available():
        raise Refused("--graphs: there is no CUDA device to capture graphs on")
    model = trained_model.opened(facts, precision=options.precision)
    return model, model.graphed() if options.graphs else model.incremental()


def calls(ways: dict[str, dict]) -> dict:
    """Algorithms by name, with their settings -> what writes texts by each of them."""
    return {
        name: partial(registry.find(ALGORITHMS, name).decode, **settings)
        for name, settings in ways.items()
    }
