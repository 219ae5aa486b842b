"""What is pushed arrives, by huggingface_hub's real client at a hub that runs here."""

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from januslm.hub.export import export
from tests.conftest import ROOT
from tests.test_hub import run, words  # noqa: F401

pytestmark = pytest.mark.slow
REPO = "someone/a-model"


class Hub(ThreadingHTTPServer):
    """As much of the hub's HTTP interface as an upload asks for; what came is in `files`."""

    def __init__(self, refuses: int = 0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses, self.files, self.stored, self.asked = refuses, {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_):
        pass

    def answer(self, code: int, table: dict, **headers) -> None:
        body = json.dumps(table).encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_PUT(self):
        self.server.stored[self.path.rpartition("/")[2]] = self.body()
        self.answer(200, {}, ETag='"x"')

    def do_POST(self):
        body, path, hub = self.body(), self.path.partition("?")[0], self.server
        hub.asked.append((path, self.headers.get("Authorization")))
        if hub.refuses:
            self.answer(hub.refuses, {"error": "You have no rights\nto create this"})
        elif path == "/api/repos/create":
            assert json.loads(body)["name"] == REPO.partition("/")[2]
            self.answer(200, {"url": f"{hub.url}/{REPO}", "id": REPO})
        elif path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlibrary_name: transformers\n")
            self.answer(200, {"warnings": [], "errors": []})
        elif path == f"/api/models/{REPO}/preupload/main":
            names = [one["path"] for one in json.loads(body)["files"]]
            kinds = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            files = [
                {"path": name, "uploadMode": kind, "shouldIgnore": False}
                for name, kind in kinds.items()
            ]
            self.answer(200, {"files": files})
        elif path == f"/{REPO}.git/info/lfs/objects/batch":
            objects = [
                one | {"actions": {"upload": {"href": f"{hub.url}/store/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer(200, {"transfer": "basic", "objects": objects})
        elif path == f"/api/models/{REPO}/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.stored[value["oid"]]
            self.answer(200, {"commitUrl": f"{hub.url}/{REPO}/commit/1", "commitOid": "1"})
        else:
            self.answer(404, {"error": f"nothing at {path}"})


@pytest.fixture
def hub():
    """Starts a hub; refuses: the code that it answers everything with."""
    started = []

    def start(**how) -> Hub:
        started.append(Hub(**how))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for one in started:
        one.shutdown()
        one.server_close()


@pytest.fixture(scope="module")
def out(words, tmp_path_factory):  # noqa: F811
    """A model that was exported."""
    place = tmp_path_factory.mktemp("pushed")
    run(words, place / "run", "janus", {"read": "next"}, "bart")
    export(place / "run", place / "out", "hf")
    return place / "out"


def pushed(place, *words, **environment):  # noqa: F811
    """The command, without a token unless one is given."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    known |= {"HF_HOME": str(place), "PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-m", "januslm.hub", "push", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=known, timeout=120)


def test_every_file_arrives_with_the_token(out, hub, tmp_path):
    there = hub()
    # The hub's newer store, Xet, has a protocol of its own; without it files go by Git LFS.
    done = pushed(
        tmp_path,
        out,
        REPO,
        HF_ENDPOINT=there.url,
        HF_TOKEN="hf_mine",
        HF_HUB_DISABLE_XET="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"pushed {out} to {REPO}: {there.url}/{REPO}/commit/1\n"
    assert there.files == {file.name: file.read_bytes() for file in out.iterdir()}
    assert {token for path, token in there.asked if path != "/api/validate-yaml"} == {
        "Bearer hf_mine"
    }


def refused(done, message):
    """One line and code 2."""
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_what_a_hub_refuses_is_one_line(out, hub, tmp_path):
    there = hub(refuses=403)
    done = pushed(tmp_path, out, REPO, HF_ENDPOINT=there.url, HF_TOKEN="hf_mine")
    refused(done, f"{REPO}: not pushed to {there.url}: ")
    assert "You have no rights to create this" in done.stderr


def test_without_a_way_to_the_hub_it_is_one_line(out, hub, tmp_path):
    there = hub()
    there.shutdown()
    there.server_close()
    done = pushed(tmp_path, out, REPO, HF_ENDPOINT=there.url, HF_TOKEN="hf_mine")
    refused(done, f"{REPO}: not pushed to {there.url}: ")
    done = pushed(tmp_path, out, REPO, HF_HUB_OFFLINE="1", HF_TOKEN="hf_mine")
    refused(done, f"{REPO}: not pushed to https://huggingface.co: ")


def test_without_a_token_nothing_is_asked(out, hub, tmp_path):
    there = hub()
    done = pushed(tmp_path, out, REPO, HF_ENDPOINT=there.url)
    refused(done, "no token for the hub: set HF_TOKEN")
    assert not there.asked


def test_only_what_was_exported_is_pushed_and_only_to_a_name_that_can_be(out, hub, tmp_path):
    there = hub()
    where = {"HF_ENDPOINT": there.url, "HF_TOKEN": "hf_mine"}
    refused(pushed(tmp_path, out.parent / "run", REPO, **where), "not a folder that `export")
    refused(pushed(tmp_path, tmp_path / "none", REPO, **where), "not a folder that `export")
    refused(pushed(tmp_path, out, "a//b", **where), "a//b: not pushed")
    assert not there.asked
