"""A run file of pretrain/runs/ as checked values, and all that it names, found: without torch."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from januslm.config import Refused
from januslm.data.token_samples import PretrainData, Texts
from januslm.data.tokenizer import Tokenizer
from januslm.interop.export_folder import ExportFacts, read_start
from januslm.model.config import ModelConfig, configure, unlike
from januslm.objective import LossSettings, Objective, resolve_objective
from januslm.registry import extend
from januslm.training import boards, goals
from januslm.training.ds_config import OptimizerSettings, check_batch, check_spread
from januslm.training.fingerprint import fingerprint
from januslm.training.lr_schedule import ScheduleSettings, check
from januslm.training.run_dir import Start, check_folder, check_spread_kept
from januslm.training.settings import PackingSettings, TrainSettings


@dataclass(frozen=True)
class PretrainRun:
    """A run file of pretrain/runs/."""

    out: str  # the run's folder: checkpoints, logs, board/ for TensorBoard, export/
    tokenizer: str  # the file that `data tokenizer` wrote
    data: PretrainData  # what is read
    train: TrainSettings  # how long, in which portions
    model: dict = field(default_factory=dict)  # preset, and what differs
    # name, preset and its own options: a file of januslm/objectives/
    objective: dict = field(default_factory=lambda: {"name": "janus"})
    noise: dict = field(default_factory=dict)  # name and options: a file of januslm/noise/
    loss: LossSettings = field(default_factory=LossSettings)  # how its terms become one number
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)  # Adam
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)  # of the learning rate
    packing: PackingSettings = field(default_factory=PackingSettings)  # how examples share rows
    plugins: str = ""  # a folder of your own with objectives/, noise/ and so on
    # an exported model to go on from, or hf:FOLDER, Hugging Face's (docs/interop.md); "": from
    # scratch
    start: str = ""
    # of a start that is an encoder alone: random weights, or the encoder's
    start_decoder: Literal["random", "encoder"] = "random"
    ds: str = ""  # a file of ds_configs/; "": cpu_fp32 on a CPU, zero1_bf16 on a GPU


@dataclass(frozen=True)
class ResolvedPretrainRun:
    """A run with all that it names, found and checked: januslm's part of it needs no torch."""

    run: PretrainRun
    tokenizer: Tokenizer
    model: ModelConfig
    objective: Objective
    texts: Texts
    valid: Texts
    start: ExportFacts | None
    about: dict  # what config.json and the export say of the run

    @property
    def fingerprint(self) -> dict:
        """See januslm.training.fingerprint."""
        return fingerprint(self.about, self.tokenizer.sha256, self.about["ds"])

    def check_folder(self, start: Start) -> dict:
        """See januslm.training.run_dir."""
        check_spread_kept(Path(self.run.out), self.about["ds"], start)
        return check_folder(Path(self.run.out), self.about, start)


def resolve(run: PretrainRun, where: str, ds: str = "", quick: bool = False) -> ResolvedPretrainRun:
    """All that can be refused is looked at here, before the ranks meet.

    quick: only the sizes of the shards are looked at.  Raises Refused, naming the file and the key.
    """
    plugins = extend(run.plugins)
    check(run.schedule, run.train.steps, where)
    check_spread(ds or run.ds, run.optimizer, run.train.clip)
    tokenizer = Tokenizer.load(run.tokenizer)
    special = tokenizer.special
    objective = resolve_objective(run.objective, run.noise, run.loss, "pretrain", special, where)
    start = read_start(run.start, run.start_decoder) if run.start else None
    if start and start.tokenizer.sha256 != tokenizer.sha256:
        raise Refused(f"{where}: start = {run.start!r} was trained with another tokenizer")
    sizes = start.sizes(objective.extra_vectors) if start else None
    extra = sizes.extra_vectors if sizes else objective.extra_vectors
    model = configure(run.model, tokenizer.size, f"{where}: model", extra, sizes)
    if sizes and (found := unlike(sizes, model)):
        raise Refused(
            f"{where}: start = {run.start!r} has model.{found[0]} {found[1]}, this run {found[2]}"
        )
    need = objective.positions(run.data.length + 1)
    if need > model.max_positions:
        raise Refused(
            f"{where}: data.length {run.data.length} needs model.max_positions of at least "
            f"{need}, got {model.max_positions}"
        )
    objective.check_fit(model, where)
    objective.check_data(False, where)
    boards.check(run.train.boards, where)
    goals.check(run.train, [*objective.loss.weights, *objective.measured], where)
    data = replace(run.data, verify="size") if quick else run.data
    texts = Texts(data, data.train, tokenizer, run.train.seed)
    valid = Texts(data, data.valid, tokenizer, seed=0)
    about = asdict(run) | {
        "objective": {"name": objective.name, **objective.options},
        "noise": {"name": objective.noise, **objective.noise_options},
        "loss": asdict(objective.loss),
        "model": asdict(model),
        "data": asdict(run.data) | {"fingerprints": texts.fingerprint},
        "tokenizer_sha256": tokenizer.sha256,
        "ds": ds or run.ds,
        "plugins": plugins,
    }
    return ResolvedPretrainRun(run, tokenizer, model, objective, texts, valid, start, about)


def check_start(resolved: ResolvedPretrainRun, processes: int, start: Start) -> dict:
    """Refuse what only a start would find: a folder of another run, too many processes.

    Returns, for the launcher, the run's folder and its fingerprint on this host.
    """
    train = resolved.run.train
    check_batch(train.batch, train.accumulate, processes)
    resolved.check_folder(start)
    return {"folder": resolved.run.out, "fingerprint": resolved.fingerprint}
