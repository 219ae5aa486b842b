"""The model of a checkpoint in januslm's own format, as training would have exported it."""

from pathlib import Path
from typing import Any

from januslm.config import Refused, build
from januslm.data.tokenizer import Tokenizer
from januslm.interop import native
from januslm.interop.export_folder import FILES, HF
from januslm.model.config import ModelConfig
from januslm.model.transformer import Seq2Seq
from januslm.training.engine import full_weights
from januslm.training.manifest import Found

INSIDE = "model."  # the model's place in what is trained (januslm.model.joint_loss)


def write(found: Found, run: Path, target: Path) -> None:
    """Raises Refused, naming what is missing, for a checkpoint that says too little of its run."""
    about = found.manifest.get("config")
    try:
        assert isinstance(about, dict)
        objective = dict(about["objective"])
        name = objective.pop("name")
        config = build(ModelConfig, dict(about["model"]), f"{found.folder}: model")
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused(f"{found.folder}: its manifest has no model and objective") from None
    words = _tokenizer(about, run)
    model = Seq2Seq(config)
    state = {key.removeprefix(INSIDE): value for key, value in full_weights(found).items()}
    known = model.state_dict()
    native.fill(model, {key: state[key] for key in state if key in known}, found.folder)
    native.write(target, model, words, name, objective, about)


def _tokenizer(about: dict[str, Any], run: Path) -> Path:
    """The file of the words that the run was trained with, wherever it still is."""
    start = about.get("start")
    places = [Path(about["tokenizer"])] if about.get("tokenizer") else []
    start = start and start.removeprefix(HF)
    places += [Path(start) / FILES[2], Path(start) / "export" / FILES[2]] if start else []
    places += [run / "export" / FILES[2]]
    for place in places:
        if place.is_file() and Tokenizer.load(place).sha256 == about.get("tokenizer_sha256"):
            return place
    raise Refused(
        f"{run}: the tokenizer it was trained with is in none of {', '.join(map(str, places))}"
    )
