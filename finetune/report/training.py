"""How a run went: its curves, and its starts and stops with their reasons."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from finetune.report.charts import Chart, Curve, chart
from januslm.runs.compare import Facts, flat
from januslm.runs.data_card import inner, shown
from januslm.runs.logs import LOSSES

SHORT = {"ce/ar": "AR", "ce/nar": "NAR", "ce/aux": "AUX", "ce/length": "length"}
OF_TRAINING = {  # what else a line of train.jsonl has, as its chart is called
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradient",
    "tokens_per_second": "Speed: tokens a second",
    "seconds_per_step": "Seconds an update",
    "memory_gb": "Memory of a process, GB",
    "data_wait": "Share of time spent waiting for data",
    "mfu": "Share of the device's peak (MFU)",
    "skipped": "Skipped updates",
}
COLORS = 6
RESUME = 85  # the exit code of a run that was asked to stop, and saved
REASONLESS = "killed, or lost with its machine: no stop was written"


def charts(run: Facts) -> list[Chart]:
    """All that the run has logged: losses first, each term in one chart with its validation."""
    names = list(dict.fromkeys([*run.train.names, *run.valid.names]))
    losses = [name for name in LOSSES if name in names]
    divergences = [name for name in names if name.startswith("kl/")]
    others = [n for n in names if n.startswith("ce/") and n not in losses]
    accepted = [name for name in names if name.startswith("accept/")]
    known = {*losses, *divergences, *others, *accepted, *OF_TRAINING, "loss"}
    found = [
        _pair(run, "Cross-entropy of each distribution", losses),
        _pair(run, "The loss that is minimised", ["loss"]),
        _pair(run, "Divergence between distributions", divergences),
        _pair(run, "Further terms", others),
        _pair(run, "Share of drafts that AR accepts", accepted),
        *(_pair(run, name, [name]) for name in names if name not in known),
    ]
    for name, title in OF_TRAINING.items():
        if name != "skipped" or run.train.most(name):
            found.append(chart(title, [Curve(name, run.train.curve(name))], marks(run)))
    return [one for one in found if one]


def marks(run: Facts) -> list[int]:
    """Updates at which a start went on."""
    steps = [event.get("step") for event in run.starts]
    return [step for step in steps if isinstance(step, int) and step > 0]


def _pair(run: Facts, title: str, names: Sequence[str]) -> Chart | None:
    """Training solid, validation dashed, in the same colours."""
    curves = []
    for number, name in enumerate(names):
        for log, what in ((run.train, ""), (run.valid, " validation")):
            label = SHORT.get(name, name) + what
            curves.append(Curve(label, log.curve(name), number % COLORS, bool(what)))
    return chart(title, curves, marks(run))


def compared(runs: Sequence[Facts], names: Sequence[str]) -> list[Chart]:
    """A chart for each term with a curve of each run, where two runs or more have it."""
    found = []
    for term in (*LOSSES, "loss"):
        having = [n for n, run in enumerate(runs) if term in (*run.train.names, *run.valid.names)]
        if len(having) < 2:
            continue
        curves = []
        for n in having:
            log, color = runs[n], n % COLORS
            curves.append(Curve(names[n], log.train.curve(term), color))
            curves.append(Curve(f"{names[n]} validation", log.valid.curve(term), color, True))
        title = f"{SHORT[term]}: cross-entropy" if term in SHORT else "The loss that is minimised"
        found.append(chart(title, curves))
    return [one for one in found if one]


def history(run: Facts) -> Iterator[tuple[str, str, str, str]]:
    """Time, event, update, and what is to be said of it; a start after no stop says so."""
    before, versions = "", ""
    for event in run.story.events:
        kind, step = str(event.get("event")), event.get("step")
        if kind == "start":
            now = _versions(event)
            said = _start(event, now if now != versions else "")
            versions = now
            if before and before != "stop":
                said = f"the process before it was {REASONLESS}; {said}"
        elif kind == "stop":
            said = _stop(event)
        elif kind == "saved":
            said = "the first checkpoint of this start"
        else:
            facts = {k: v for k, v in event.items() if k not in ("time", "event", "step")}
            said = ", ".join(f"{name} {value}" for name, value in flat(facts))
        yield str(event.get("time", "?")), kind, shown(step) if step is not None else "", said
        before = kind
    if before not in ("", "stop") and run.story.state != "training":
        yield "", "end", shown(run.story.step), REASONLESS


def reasons(run: Facts) -> str:
    """27 starts; ended by: SIGTERM (exit code 85) 12 times, ..."""
    kinds = [event for event in run.story.events if event.get("event") in ("start", "stop")]
    found = Counter(_kind(event) for event in kinds if event["event"] == "stop")
    lost = sum(
        one["event"] == "start" and (other is None or other["event"] == "start")
        for one, other in zip_longest(kinds, kinds[1:])
    )
    if lost and run.story.state == "training":
        lost -= 1
    if lost:
        found[REASONLESS] = lost
    ends = ", ".join(f"{why}" + f" {n} times" * (n > 1) for why, n in found.most_common())
    count = f"{len(run.starts)} start{'s' * (len(run.starts) != 1)}"
    return f"{count}; ended by: {ends}" if ends else count


def _stop(event: dict) -> str:
    return f"{event.get('reason', '?')} (exit code {event.get('code', '?')})"


def _kind(event: dict) -> str:
    """A stop without what is its own alone, as an address in an error."""
    why = str(event.get("reason", "?"))
    asked = event.get("code") in (0, RESUME)
    return _stop(event | {"reason": why if asked else why.partition(":")[0]})


def _start(event: dict, versions: str) -> str:
    hosts, changes = event.get("hosts"), event.get("changes")
    where = sorted({str(host) for host in hosts}) if isinstance(hosts, list) else []
    world = event.get("world", "?")
    parts = [f"{shown(world)} process{'es' * (world != 1)} on {', '.join(where) or '?'}"]
    parts += [versions] if versions else []
    for key, pair in changes.items() if isinstance(changes, dict) else ():
        parts.append(f"changed: {key}: {pair}")
    return ", ".join(parts)


def _versions(event: dict) -> str:
    code = [f"januslm {event['code']}"] if "code" in event else []
    return ", ".join([*code, *(f"{k} {shown(v)}" for k, v in inner(event, "versions").items())])
