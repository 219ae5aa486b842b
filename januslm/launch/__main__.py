"""PROGRAM VERB [ARGUMENTS]: everything januslm does, from any folder.

  setup                      the environment (from a clone: launch.sh makes it); prints versions
  demo [--say TEXT ...]      from installed documentation to a model that writes: 15 minutes;
                             --say: a damaged sentence that it restores in the end, or several
  test [--quick | --all]     lint, types and tests; --quick: what starts no process; --all: with
                             other hosts, launchers and limits to wait for, as CI runs them
  data COMMAND ...           build, tokenizer, verify, inspect, summaries, damaged, glge
  pretrain RUN [k=v]         pretrain on token shards; goes on where it stopped
  finetune RUN [k=v]         fine-tune a checkpoint, or train from scratch, on a task
  write RUN                  a sentence of yours, written AR, NAR and speculatively, with times
  generate RUN [options]     decode a task's test set, or --input FILE: greedy, beam, ...
  evaluate PREDICTIONS ...   score predictions and draw the table
  distill RUN OUT [k=v]      a teacher's beam output as training data for a student
  average RUN OUT --last N   the mean of a run's last exports (train.exports)
  replay RUN STEP            which examples of an update have a loss that is not finite
  export RUN OUT --to hf     a model as a folder that Hugging Face's transformers loads as it is
  push OUT NAME/MODEL        that folder to a hub
  interop KIND FROM TO       weights of BART, BERT, MPNet, ProphetNet or BANG as a folder of ours
  runs [FOLDER]              all runs below a folder (runs/), a line each; runs show RUN: its story;
                             runs compare A B: settings that differ, losses, scores, speed
  report RUN ... -o FILE     one HTML file that tells runs: curves, scores, examples, data
  checkpoint COMMAND RUN     ls, verify, export, prune: the checkpoints of a run
  config [NAME]              every key and option: type, default, range, what it does
  tensorboard [FOLDER]       curves and samples of all runs below FOLDER (runs/); --port N
  launch check [VERB RUN]    a table of the hosts of --hostfile FILE, and what is wrong with them
  slurm RUN --nodes N ...    a batch script for Slurm, which queues itself again until it is done

Options, anywhere after the verb:
  --dry-run                  print the commands, run nothing; pretrain and finetune also say what
                             the run will take: parameters, tokens, memory, time
  --gpus N                   processes on this machine (on a CPU: as many processes)
  --hostfile FILE            several machines, DeepSpeed's format: "host slots=8" a line; by ssh
  --restarts N               start anew after a failure, at most N times, never twice at a step
  --ds FILE                  a DeepSpeed configuration of ds_configs/ (how a run is spread)

A path is meant from where you stand, for reading and for writing.  Run files, corpus files and
ds_configs/ that come with januslm are also found by name: pretrain tiny --ds zero2_bf16.
VERB --help tells more.

Exit codes: 0 done; 2 a mistake, named in one line; 85 stopped and saved, the same command goes on;
1 anything else (a rank failed or was killed), the same command goes on from the last checkpoint.

  $JANUSLM_PYTHON            launch.sh: use this interpreter as it is and set nothing up
  $JANUSLM_GRACE             seconds that ranks have for saving when they are stopped (600)
  $JANUSLM_TORCH_INDEX       launch.sh: a package index that has torch's CPU build
  $JANUSLM_DATA              real data of tasks (default: ../shared/data beside a clone, else data/)
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from januslm.cli.command import answered, program
from januslm.config import Refused, json_table, suggest
from januslm.launch.checks import check
from januslm.launch.commands import Options, asks_for_help, become, module, need, show, split
from januslm.launch.demo import demo
from januslm.launch.environment import environment
from januslm.launch.slurm import slurm
from januslm.launch.train import check_hosts, train

HUB = "januslm.hub"
MODULES = {
    "write": "finetune.write",
    "generate": "finetune.generate",
    "evaluate": "finetune.evaluate",
    "report": "finetune.report",
    "distill": "finetune.distill",
    "average": "finetune.average",
    "interop": "januslm.interop",
    "export": HUB,
    "push": HUB,
    "runs": "januslm.runs",
    "checkpoint": "januslm.runs.checkpoint",
    "tensorboard": "januslm.runs.board",
    "config": "januslm.cli.reference",
}
# verbs that need torch
WEIGHTS = ("write", "generate", "distill", "average", "interop", "export", "replay")
TRAINING = ("pretrain", "finetune")
OURS = ("setup", "demo", "test", "launch")  # verbs that this page is the help of
VERBS = (*OURS, "data", *TRAINING, *MODULES, "replay", "slurm")


def main(words: Sequence[str] | None = None) -> int:
    """Exit code: the verb's own; 2 and one line for a mistake."""
    verb, *rest = list(sys.argv[1:] if words is None else words) or ["help"]
    if verb in ("help", "-h", "--help") or (verb in OURS and asks_for_help(rest)):
        print("Usage: " + (__doc__ or "").replace("PROGRAM", program()).strip())
        return 0
    return answered(lambda: _run(verb, rest))


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise Refused(f"no verb {verb!r}{suggest(verb, VERBS)}")
    options, rest = split(verb, words)
    if verb == "launch":
        if rest[:1] != ["check"]:
            raise Refused("write launch check --hostfile FILE [pretrain RUN | finetune RUN]")
        return check_hosts(rest[1:], options)
    if verb == "slurm" and not (options.hostfile or options.restarts):
        return slurm(rest, options)
    if options.spread and verb not in (*TRAINING, "demo"):
        raise Refused(f"{options.spread} is for {', '.join(TRAINING)} and demo, not for {verb}")
    if verb == "setup":
        _no_more(verb, rest)
        return _setup(options)
    if verb == "demo":
        return demo(rest, options)
    if verb == "test":
        return check(rest, options)
    if verb in TRAINING and not asks_for_help(rest):
        return train(verb, rest, options)
    own = verb == "checkpoint"  # it has a --dry-run that says more than its command
    command = _command(verb, [*rest, "--dry-run"] if own and options.dry else rest)
    if options.dry and not own:
        show(command, environment())
        return 0
    if verb in WEIGHTS and not asks_for_help(rest):
        need("torch")
    return become(command, environment())


def _command(verb: str, rest: list[str]) -> list[str]:
    """The module that does the work of a verb."""
    if verb == "data":
        if rest[:1] == ["glge"]:
            return module("finetune.glge.prepare", "prepare", *rest[1:])
        return module("data_tools", *rest)
    if verb == "replay":  # a run's configuration says of which kind it is
        about = (
            json_table(Path(rest[0]) / "config.json") if rest and not asks_for_help(rest) else {}
        )
        return module(f"{'finetune' if 'task' in about else 'pretrain'}.replay", *rest)
    named = (verb,) if MODULES.get(verb) == HUB else ()  # it has two verbs
    return module(MODULES.get(verb, verb), *named, *rest)


def _setup(options: Options) -> int:
    """Say what is installed; launch.sh has made the environment before it called us."""
    from importlib.metadata import PackageNotFoundError, version  # a tenth of a second

    found = []
    for name in ("januslm", "torch", "deepspeed"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    print(f"{sys.executable}: Python {sys.version.split()[0]}, {', '.join(found)}")
    return 0


def _no_more(verb: str, rest: Sequence[str]) -> None:
    if rest:
        raise Refused(f"{verb} takes no {rest[0]!r}; {program()} {verb} --help tells more")


if __name__ == "__main__":
    sys.exit(main())
