"""A real Chromium, driven over a pipe: what a page logs, what it asks the network for, and how it looks."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")

_PROBE = """(() => {
  const seen = (one) => { const box = one.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
  const planes = [...document.querySelectorAll('svg.plane')];
  const images = [...document.images];
  images.forEach((one) => { one.loading = 'eager'; });
  return Promise.all(images.map((one) => one.decode().then(() => true, () => false))).then((decoded) => ({
    plots: planes.length,
    drawn: planes.filter((one) => seen(one) && one.querySelectorAll('circle, polyline, path').length > 0
      && [...one.querySelectorAll('circle, polyline, path')].some(seen)).length,
    inside: planes.every((one) => { const box = one.viewBox.baseVal; return [...one.querySelectorAll('*')]
      .filter((inner) => inner.getBBox).every((inner) => { const b = inner.getBBox();
        return inner.tagName == 'text' || (b.x >= -1 && b.y >= -1 && b.x + b.width <= box.width + 1
          && b.y + b.height <= box.height + 1); }); }),
    images: images.length, decoded: decoded.filter(Boolean).length,
    wide: document.documentElement.scrollWidth, window: window.innerWidth,
  }));
})()"""


@dataclass
class Browser:
    """One page at a time. `errors` are complaints of the console and the page, `requests` all addresses."""

    process: subprocess.Popen[bytes]
    to: int
    back: int
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    session: str = ""
    _number: int = 0
    _rest: bytes = b""
    _loaded: bool = False

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            event = self._next()
            if event.get("id") == self._number:
                assert "error" not in event, event
                return dict(event["result"])
            self._hear(event)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self.back, 1 << 20)
            assert part, "the browser went away"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))

    def _hear(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "Page.loadEventFired":
            self._loaded = True
        elif event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.errors.append(str(params))
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.errors += [str(params)] * (params["type"] in ("error", "warning"))

    def open(self, address: str, *, width: int = 1280, dark: bool = False) -> None:
        """Load a page and wait until it is there."""
        self.errors, self.requests, self._loaded = [], [], False
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        theme = "dark" if dark else "light"
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.ask("Page.navigate", url=address)
        while not self._loaded:
            self._hear(self._next())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def probe(self) -> dict[str, Any]:
        """How many plots and pictures there are, how many of them are drawn, and how wide the page is."""
        return dict(self.run(_PROBE))

    def shoot(self, file: Path) -> None:
        """A picture of the whole page."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start one, with its profile in `folder`; it can reach no network but this machine's."""
    ours, theirs = os.pipe(), os.pipe()  # (their end to read, ours to write), (ours to read, theirs to write)

    def places() -> None:
        far = [
            fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (ours[0], theirs[1])
        ]  # out of the way of 3 and 4
        os.dup2(far[0], 3)
        os.dup2(far[1], 4)

    process = subprocess.Popen(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank",
        ],
        close_fds=False, preexec_fn=places, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    one = Browser(process, ours[1], theirs[0])
    try:
        target = one.ask("Target.createTarget", url="about:blank")["targetId"]
        one.session = one.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for room in ("Page", "Runtime", "Log", "Network"):
            one.ask(f"{room}.enable")
        yield one
    finally:
        process.kill()
        process.wait()
        os.close(ours[1])
        os.close(theirs[0])
