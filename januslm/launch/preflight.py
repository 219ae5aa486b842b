"""Before a start: are all hosts there, alike, and able to reach each other and the run's folder?"""

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from januslm.cli.table import drawn
from januslm.config import Refused
from januslm.launch import hosts as hostfile
from januslm.launch.environment import handed_over
from januslm.launch.job import Job
from januslm.launch.remote import Hosts

ANSWERS_WITHIN = 30.0  # seconds; ssh gives up after 10
CHECKED_WITHIN = 180.0  # seconds: a file system may be slow, and a check reads index files
SKEW = 60.0  # seconds between two clocks that are worth a word
LITTLE = 2.0  # GB free that are worth a word
PROCESSES_PER_CORE, FEW = 8, 64  # on a CPU; fewer than that are never refused
CODE = {"code", "versions"}  # of a fingerprint, what is not the run's own
SILENCE = 60.0  # seconds without a word from us after which another host's ranks save and end
HEADINGS: tuple[str, ...] = (
    "host",
    "reachable",
    "Python",
    "torch",
    "DeepSpeed",
    "GPUs",
    "free GB",
    "clock",
)
HEADINGS += ("same code", "same run", "sees folder", "port", "interface")


class Unreachable(Refused):
    """What is wrong is a host that does not answer: it may be there again later."""


@dataclass
class Found:
    """What one host is and lacks; nothing starts while a host has a problem."""

    host: str
    able: bool = True  # to answer; what else is wrong with it is found nevertheless
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    checked: dict = field(default_factory=dict)  # folder and fingerprint
    code_as: str = "-"  # whether code and versions are those of the first host
    run_as: str = "-"  # the same for corpus, settings and whatever else the run is made of
    sees: str = "-"  # the folder of the first host
    port: str = "-"  # free on the first host, reached by the others
    interface: str = "-"


@dataclass
class Meeting:
    """Where the run's folder is, and where its ranks meet."""

    folder: str = ""
    address: str = "127.0.0.1"
    port: int = 0


class Preflight:
    """Asks all hosts at the same time, step by step; one that refuses to answer is asked no more.

    job: what will be started; with no verb, hosts are looked at without a run.
    """

    def __init__(self, hosts: Hosts, job: Job):
        self.hosts, self.job = hosts, job
        self.found = {name: Found(name) for name in job.hosts}
        self.first = next(iter(job.hosts))
        self.meeting = Meeting()
        self.word = secrets.token_hex(8)

    def look(self) -> None:
        """Fill `found` and `meeting`; raises Stopped for a signal."""
        self._enter()
        self._facts_and_check()
        if len(self.found) > 1:
            self._compare()
            self._folder()
            self._connect()

    def _good(self) -> list[str]:
        return [name for name, one in self.found.items() if one.able]

    def _ask(self, order: str, names: Iterable[str], seconds: float, **fields) -> dict[str, dict]:
        """The answers to one order by host; what is refused becomes a problem."""
        answers = self.hosts.ask({(name, order): fields for name in names}, seconds)
        return self._kept(answers)

    def _kept(self, answers: Mapping) -> dict[str, dict]:
        for (name, _), answer in answers.items():
            if "refused" in answer and answer["refused"] not in self.found[name].problems:
                self.found[name].problems.append(answer["refused"])
                self.found[name].able = False
        return {name: a for (name, _), a in answers.items() if "refused" not in a}

    def _enter(self) -> None:
        here: dict = {"folder": os.getcwd(), "variables": {}, "silence": None}
        away = here | {"variables": handed_over(), "silence": SILENCE}
        near = {name: hostfile.is_here(name) for name in self.found}
        orders = {(name, "enter"): here if near[name] else away for name in self.found}
        self._kept(self.hosts.ask(orders, ANSWERS_WITHIN))

    def _facts_and_check(self) -> None:
        """Versions, GPUs, clock; and what the verb itself says of the run on each host."""
        good, alone = self._good(), not self.job.verb
        began = time.time()
        facts: dict = {(name, "facts"): {"folder": ".", "code": alone} for name in good}
        command = [*self.job.command, "--check", str(self.job.world)]
        checks = {(name, "check"): {"command": command} for name in good if not alone}
        opened = {(self.first, "open"): {"word": self.word}} if self.first in good else {}
        answers = self.hosts.ask(facts | checks | opened, CHECKED_WITHIN)
        now = time.time()
        for name, answer in self._kept(_of(answers, "facts")).items():
            self.found[name].facts = answer
            self._judge(self.found[name], self.job.hosts[name])
            skew = max(began - answer["clock"], answer["clock"] - now, 0.0)
            if skew > SKEW:
                self.found[name].warnings.append(f"its clock differs by {skew:.0f} s")
        for name, answer in self._kept(_of(answers, "check")).items():
            self._judge_check(self.found[name], answer)
        for answer in self._kept(_of(answers, "open")).values():
            self.meeting.port, self.addresses = answer["port"], answer["addresses"]
            self.found[self.first].port = f"{self.meeting.port} free"

    def _judge(self, found: Found, ranks: int) -> None:
        """Whether the ranks have what they need."""
        facts = found.facts
        for package in ("torch", "deepspeed"):
            if not facts[package]:
                found.problems.append(f"{package} is not installed")
        most = max(FEW, PROCESSES_PER_CORE * facts["cores"])
        if facts["gpus"] and ranks > facts["gpus"]:
            found.problems.append(f"{ranks} processes for {facts['gpus']} GPUs")
        elif not facts["gpus"] and ranks > most:
            found.problems.append(f"{ranks} processes on {facts['cores']} cores, at most {most}")
        if facts["free_gb"] < LITTLE:
            found.warnings.append(f"{facts['free_gb']} GB are free")

    def _judge_check(self, found: Found, answer: dict) -> None:
        said = answer["err"].strip()
        if answer["code"] == 0:
            found.checked = json.loads(answer["out"].splitlines()[-1])
            if said and found.host == self.first:  # hardly anything else on the others
                found.warnings += said.splitlines()
            return
        said = said or f"the check ended with code {answer['code']}"
        found.problems.append(said.removeprefix("error: "))

    def _compare(self) -> None:
        """Every host as the first: its fingerprint, or, without a run, the code."""
        good = [n for n in self._good() if self.found[n].checked or not self.job.verb]
        if self.first not in good:
            return
        from januslm.training.fingerprint import differences  # needs packages, as no dry run does

        wanted = self._fingerprint(self.first)
        for name in good:
            differs = list(differences(wanted, self._fingerprint(name)))
            parts = {key.partition(".")[0] for key, _, _ in differs}
            self.found[name].code_as = "no" if parts & CODE else "yes"
            self.found[name].run_as = "no" if parts - CODE else "yes" if self.job.verb else "-"
            for key, there, here in differs[:1]:
                more = f" (and {len(differs) - 1} more)" if len(differs) > 1 else ""
                self.found[name].problems.append(
                    f"{key} is {_short(here)}, on {self.first} {_short(there)}{more}"
                )

    def _fingerprint(self, name: str) -> dict:
        facts = self.found[name].facts
        versions = {key: facts.get(key) for key in ("python", "torch", "deepspeed")}
        alone = {"code": facts.get("code"), "versions": versions}
        return self.found[name].checked.get("fingerprint", alone)

    def _folder(self) -> None:
        """A file that the first host makes beside the run must be there for the others."""
        good = self._good()
        if self.first not in good:
            return
        folder = self.found[self.first].checked.get("folder", ".")
        marked = self._ask("mark", [self.first], 30, folder=folder, name=f".januslm-{self.word}")
        if self.first not in marked:
            return
        path = marked[self.first]["path"]
        others = [name for name in good if name != self.first]
        for name, answer in self._ask("sees", others, 30, path=path).items():
            self.found[name].sees = "yes" if answer["seen"] else "no"
            if not answer["seen"]:
                place = os.path.dirname(path)
                self.found[name].problems.append(
                    f"{place} is not the folder that {self.first} has there: "
                    f"the run's folder ({folder}) must be shared by all hosts"
                )
        self.found[self.first].sees = "yes"
        self._ask("unmark", [self.first], 30, path=path)

    def _connect(self) -> None:
        """An address of the first host that all others reach, and the interfaces on the way."""
        others = [name for name in self._good() if name != self.first]
        if not self.meeting.port or not others or self.first not in self._good():
            return
        given = os.environ.get("MASTER_ADDR", "")
        host = self.first.rpartition("@")[2]
        candidates = [given] if given else list(dict.fromkeys([host, *self.addresses]))
        asked = {"candidates": candidates, "port": self.meeting.port, "word": self.word}
        ways = {n: a["reached"] for n, a in self._ask("reach", others, 30, **asked).items()}
        best = max(candidates, key=lambda name: sum(name in way for way in ways.values()))
        for name, way in ways.items():
            self.found[name].port = "reached" if best in way else "no way"
            if best in way:
                self.found[name].interface = way[best][1] or "?"
            else:
                tried = ", ".join(f"{one}:{self.meeting.port}" for one in candidates)
                self.found[name].problems.append(f"does not reach {self.first}: tried {tried}")
        seen = {way[best][0] for way in ways.values() if best in way}
        address = seen.pop() if len(seen) == 1 else best
        self.meeting.address = given or address.removeprefix("::ffff:")
        self.found[self.first].interface = self.addresses.get(self.meeting.address, "?")


def ready(hosts: Hosts, job: Job) -> tuple[Meeting, list[Found]]:
    """Where the ranks will meet; Refused, with the first host that cannot take part and why."""
    preflight = Preflight(hosts, job)
    preflight.look()
    found = list(preflight.found.values())
    bad = [one for one in found if one.problems]
    if bad:
        # What all hosts say is the run's mistake, not a host's.
        everywhere = len(bad) == len(found) and len({tuple(one.problems) for one in bad}) == 1
        where = "" if everywhere else f"{bad[0].host}: "
        others = [one.host for one in bad[1:]]
        more = f" (also refused: {', '.join(others)})" if others and not everywhere else ""
        away = any(not hosts.all[one.host].entered for one in bad)
        raise (Unreachable if away else Refused)(f"{where}{bad[0].problems[0]}{more}")
    preflight.meeting.folder = found[0].checked["folder"]
    return preflight.meeting, found


def table(hosts: Hosts, job: Job) -> tuple[str, bool]:
    """For people: all hosts, and below, line by line, what is wrong; whether all is well."""
    preflight = Preflight(hosts, job)
    preflight.look()
    rows: list[tuple[str, ...]] = [HEADINGS]
    for one in preflight.found.values():
        facts = one.facts
        versions = [str(facts.get(key) or "-") for key in ("python", "torch", "deepspeed")]
        clock = next((w for w in one.warnings if "clock" in w), "ok") if facts else "-"
        rest = [str(facts.get(key, "-")) for key in ("gpus", "free_gb")]
        reached = "yes" if facts or hosts.all[one.host].entered else "no"
        seen = one.code_as, one.run_as, one.sees, one.port, one.interface
        rows.append((one.host, reached, *versions, *rest, clock, *seen))
    lines = [drawn(rows)]
    for one in preflight.found.values():
        lines += [f"{one.host}: {what}" for what in (*one.problems, *one.warnings)]
    return "\n".join(lines), not any(one.problems for one in preflight.found.values())


def _of(answers: Mapping, order: str) -> dict:
    return {asked: answer for asked, answer in answers.items() if asked[1] == order}


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
