"""A headless Chromium of the machine's own, driven over a pipe by the DevTools protocol."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

from tests.launching import wait_until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOUND = next((path for name in NAMES if (path := shutil.which(name))), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")


class Browser:
    """One tab.  said: errors and warnings of its console; asked: every address that it fetched."""

    def __init__(self, folder: Path):
        theirs_in, self.into = os.pipe()
        self.out, theirs_out = os.pipe()
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", FOUND, *OPTIONS,
             "--remote-debugging-pipe", f"--user-data-dir={folder}"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.rest, self.session = 0, b"", None
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        found = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters) -> dict:
        """The answer to one command; events on the way are noted."""
        self.number += 1
        number, message = self.number, {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self, seconds: float = 60) -> dict:
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            assert select.select([self.out], [], [], max(end - time.monotonic(), 0))[0], "silent"
            got = os.read(self.out, 1 << 20)
            assert got, "the browser has ended"
            self.rest += got
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict) -> None:
        about = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(json.dumps(about))
        elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] != "log":
            self.said.append(json.dumps(about["args"]))

    def open(self, address: str, width: int, height: int = 800, script: bool = True) -> None:
        """Load a page in a window of that size, until it is there."""
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        there = "document.readyState === 'complete' && location.href !== 'about:blank'"
        wait_until(lambda: self.value(there))

    def value(self, expression: str):
        """What an expression is in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, file: Path, whole: bool = True) -> None:
        """A PNG of the page, or of what the window shows."""
        made = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(made["data"]))

    def close(self) -> None:
        for end in (self.into, self.out):
            os.close(end)
        self.process.kill()
        self.process.wait()
