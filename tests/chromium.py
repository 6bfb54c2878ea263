"""A headless Chromium that a test talks to: DevTools protocol over a pipe (no port), one page, no network."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.test_packages import BROWSERS

LAUNCH = ("import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
          "os.execv(sys.argv[3], sys.argv[3:])")
SECONDS = 240.0  # of one command: the machine may be loaded
FLAGS = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--mute-audio", "--hide-scrollbars",
         "--autoplay-policy=no-user-gesture-required", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]


class BrowserFailed(Exception):
    """Chromium did not start, ended, or did not answer in time."""


class Chromium:
    """One browser and one page of it. `errors`: what the console and the security policy complained of."""

    def __init__(self, program: str, profile: Path):
        self._number = 0
        self._held = b""
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        # of its own and short: it keeps a socket there, whose path is limited
        self._temporary = tempfile.mkdtemp(prefix="chromium")
        ours, theirs = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4; they are put there from above both
        command_end, answer_end = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1]))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(command_end), str(answer_end), program, *FLAGS,
                 f"--user-data-dir={profile}", "about:blank"],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env=os.environ | {"TMPDIR": self._temporary}, pass_fds=(command_end, answer_end),
                start_new_session=True)
        finally:
            for end in (command_end, answer_end, ours[0], theirs[1]):
                os.close(end)
        self._commands, self._answers = ours[1], theirs[0]

    def attach(self) -> None:
        """To the page that the browser opened with."""
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next((item["targetId"] for item in targets if item["type"] == "page"), None)
        page = page or self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's answer; events that come before it are noted. Raises BrowserFailed."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        try:
            os.write(self._commands, json.dumps(message).encode() + b"\0")
        except OSError as error:
            raise BrowserFailed(f"{method}: {error}") from None
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, page: Path, width: int, *, dark: bool = False) -> None:
        """Load a file in a window of so many CSS pixels; phones' widths as on a phone."""
        self.errors.clear()
        self.requests.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1,
                  mobile=width < 600)
        self.send("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.send("Page.navigate", url=page.absolute().as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def ask(self, expression: str) -> Any:
        """Value of an expression (or what its promise gives) in the page."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true. Raises BrowserFailed where it never is."""
        deadline = time.monotonic() + SECONDS
        while not self.ask(condition):
            if time.monotonic() > deadline:
                raise BrowserFailed(f"never true: {condition}")
            time.sleep(0.05)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def picture(self, path: Path, *, top: int = 0, height: int = 0) -> None:
        """PNG of the page, from `top` on; height 0: all of it."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)
        for end in (self._commands, self._answers):
            os.close(end)

    def _receive(self, deadline: float, waiting: str) -> dict[str, Any]:
        while b"\0" not in self._held:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise BrowserFailed(f"{waiting}: no answer in {SECONDS:.0f} s")
            block = os.read(self._answers, 1 << 20)
            if not block:
                raise BrowserFailed(f"{waiting}: the browser ended")
            self._held += block
        line, _, self._held = self._held.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, facts: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(facts["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(facts["args"]))
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.errors.append(facts["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"][:200])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """A browser with a profile of its own in `folder`; skips the test where none is installed. Starts it once more
    where it fails to come up (a loaded machine).
    """
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium (apt-get install chromium)")
    browser = Chromium(program, folder / "profile1")
    try:
        try:
            browser.attach()
        except BrowserFailed:
            browser.close()
            browser = Chromium(program, folder / "profile2")
            browser.attach()
        yield browser
    finally:
        browser.close()
