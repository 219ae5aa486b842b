"""Nothing from elsewhere is executed, and no name in a file says where we write."""

import ast
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from data_tools import documents
from data_tools.sources import text
from finetune.evaluation.predictions import load
from finetune.glge import archive, prepare
from finetune.glge.select import system
from januslm.cli.command import answered, error_line
from januslm.config import Refused
from januslm.interop import native, weights
from tests.conftest import ROOT
from tests.test_floors import shown, sources

RUN_TEXT = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "pty.spawn"}
UNPICKLE = {"pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads", "shelve.open"}
UNPICKLE |= {"dill.load", "dill.loads", "joblib.load", "yaml.load", "yaml.unsafe_load"}
UNPACK = {"extract", "extractall", "unpack_archive"}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", None)}
# What stays, each with its reason in SECURITY.md.
KNOWN = {
    ("januslm/registry.py", "eval"),  # the text of our own plug-ins
    ("januslm/registry.py", "exec"),
    ("januslm/data/prefetch.py", "pickle.loads"),  # from our own child, by a pipe
}


def dangers(path: Path) -> set[tuple[str, str]]:
    """(file, call) of everything that runs a text, unpickles, or unpacks by names of an archive."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {one.arg: getattr(one.value, "value", "?") for one in node.keywords}
        key, wanted = SAFE.get(name, ("", None))
        if name in RUN_TEXT | UNPICKLE or name.rpartition(".")[2] in UNPACK:
            found.add((shown(path), name))
        if key and given.get(key) is not wanted:
            found.add((shown(path), f"{name} without {key}"))
        if given.get("shell", False) is not False:
            found.add((shown(path), f"{name} with a shell"))
    return found


@pytest.mark.slow
def test_nothing_is_unpickled_run_from_a_text_or_unpacked_by_its_own_names():
    assert set().union(*map(dangers, sources())) == KNOWN


@pytest.mark.parametrize(
    "line",
    [
        "pickle.loads(x)",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x, allow_pickle=True)",
        "subprocess.run(f'rm {x}', shell=True)",
        "os.system(x)",
        "tar.extractall(x)",
        "eval(x)",
    ],
)
def test_a_dangerous_call_is_noticed(tmp_path, monkeypatch, line):
    monkeypatch.setattr("tests.test_floors.ROOT", tmp_path)
    (tmp_path / "bad.py").write_text(line)
    assert len(dangers(tmp_path / "bad.py")) == 1


class Hostile:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("kind", ["torch", "plain"])
def test_weights_that_are_code_are_refused_and_not_run(tmp_path, kind):
    hostile = {"shared.weight": Hostile(tmp_path / "run")}
    file = tmp_path / "pytorch_model.bin"
    if kind == "torch":
        torch.save(hostile, file)
    else:
        file.write_bytes(pickle.dumps(hostile))
    with pytest.raises(Refused, match=r"pytorch_model\.bin: not tensors alone, or damaged"):
        weights.unpickled(file)
    assert not (tmp_path / "run").exists()


def test_an_export_that_is_a_pickle_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Hostile(tmp_path / "run")))
    with pytest.raises(Refused, match="not readable as safetensors"):
        native.load(tmp_path / "model.safetensors")
    assert not (tmp_path / "run").exists()


# --- archives


NAMES = ["test.src", "test.tgt", "train.src", "train.tgt", "dev.src", "dev.tgt"]


def hostile_tar(path: Path) -> None:
    """GLGE's files of one task, their folder named so that it leads out; and a link."""
    with tarfile.open(path, "w") as box:
        for name in NAMES:
            entry = tarfile.TarInfo(f"../../../{path.parent}/easy/xsum_data/org_data/{name}")
            entry.size = 2
            box.addfile(entry, io.BytesIO(b"a\n"))
        link = tarfile.TarInfo("easy/coqa_data/org_data/dev.src")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        box.addfile(link)
        outside = tarfile.TarInfo("../outside")
        outside.size = 2
        box.addfile(outside, io.BytesIO(b"a\n"))


def test_names_and_links_in_an_archive_lead_nowhere(tmp_path):
    hostile_tar(tmp_path / "box.tar")
    out = tmp_path / "in" / "out"
    prepare.prepare([tmp_path / "box.tar"], out, partial=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    wanted = {out / "easy" / "xsum" / name for name in NAMES} | {tmp_path / "box.tar"}
    assert set(files) == wanted


def test_a_file_of_an_archive_that_would_fill_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST", 10_000)
    with zipfile.ZipFile(tmp_path / "box.zip", "w", zipfile.ZIP_DEFLATED) as box:
        for name in NAMES:
            box.writestr(f"easy/xsum_data/org_data/{name}", "a\n" * 9_000)
    with pytest.raises(Refused, match=r"easy/xsum/test\.src: unpacks to more than 10,000 bytes"):
        prepare.prepare([tmp_path / "box.zip"], tmp_path / "out", partial=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["line", "blank", "file"])
def test_a_document_that_would_fill_the_memory_is_counted_and_not_held(tmp_path, split):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("a.txt", "a" * 10_001)
    before = documents.LONGEST.set(10_000)
    try:
        found = list(text.inputs(tmp_path, files=["*.zip"], split=split)[0].read())
    finally:
        documents.LONGEST.reset(before)
    assert found == [documents.Dropped("longer than 10000 bytes")]


def test_an_encrypted_zip_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as box:
        box.writestr("a.txt", "secret")
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[6] |= 1  # the flag that says so, in the file's head
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(Refused, match=r"a\.zip: .*encrypted.*; unpack it yourself"):
        list(text.inputs(tmp_path, files=["*.zip"])[0].read())


@pytest.mark.parametrize("encoding", ["undefined", "idna", "rot13", "hex", "none", "zip"])
def test_an_encoding_that_is_none_of_text_is_refused(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(Refused, match=f"encoding '{encoding}' is not known; utf-8 and latin-1"):
        text.inputs(tmp_path, files=["*.txt"], encoding=encoding)


# --- names and texts


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/x", "a/b", ".."])
def test_predictions_from_elsewhere_do_not_say_where_we_write(tmp_path, name):
    row = {"id": "1", "source": "a", "prediction": "b", "references": ["c"]}
    runs = []
    for task in ("xsum", "coqa"):
        (tmp_path / f"{task}.jsonl").write_text(json.dumps(row) + "\n")
        (tmp_path / f"{task}.json").write_text(json.dumps({"task": task, "algorithm": name}))
        runs.append(load(tmp_path / f"{task}.jsonl"))
    with pytest.raises(Refused, match="cannot be the name of a folder"):
        system(runs)


def test_a_message_cannot_move_the_cursor_or_make_a_second_line(capsys):
    def command():
        raise Refused("a\x1b[2Jb\nerror: c\x00\u202ed ü")

    assert answered(command) == 2
    assert capsys.readouterr().err == "error: a\\x1b[2Jb\\nerror: c\\x00\\u202ed ü\n"
    assert error_line("straße") == "error: straße"


def test_security_md_names_tests_that_are_there():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = [word.strip("`.,") for word in page.split() if "tests/test_" in word]
    assert len(named) > 8
    for name in named:
        file, _, test = name.strip("`|").partition("::")
        assert not test or f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), name
