# SPDX-License-Identifier: BSD-3-Clause
"""A headless Chromium and its DevTools protocol: what a page asks for, what its scripts say, how wide it is."""

import asyncio
import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from tornado.websocket import websocket_connect  # comes with Jupyter's client

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--allow-file-access-from-files",
]
LOCAL = ("file:", "data:", "blob:", "about:")
NEEDED = 60  # seconds to start, or for a page


class Browser:
    """One tab of a Chromium with a new profile in `folder`; a context manager."""

    def __init__(self, folder):
        program = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
        if program is None:
            raise FileNotFoundError("no chromium: `make .venv/browser` installs Debian's")
        self.loop = asyncio.new_event_loop()
        self.process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        self.numbers, self.events = itertools.count(1), []
        self.socket = self.loop.run_until_complete(self._connect(Path(folder) / "DevToolsActivePort"))
        (tab,) = (t for t in self.ask("Target.getTargets", session=None)["targetInfos"] if t["type"] == "page")
        self.session = self.ask("Target.attachToTarget", session=None, targetId=tab["targetId"], flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    async def _connect(self, told):
        limit = time.monotonic() + NEEDED
        while not (told.exists() and told.read_text().count("\n")):
            if time.monotonic() > limit or self.process.poll() is not None:
                raise TimeoutError("chromium does not start")
            await asyncio.sleep(0.05)
        port, path = told.read_text().split()
        return await websocket_connect(f"ws://127.0.0.1:{port}{path}", max_message_size=2**28)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(NEEDED)
        self.loop.close()

    def ask(self, method, session="", **parameters):
        """The answer to one command; events that come before it are kept."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session == "":
            message["sessionId"] = self.session

        async def answer():
            await self.socket.write_message(json.dumps(message))
            while True:
                got = json.loads(await asyncio.wait_for(self.socket.read_message(), NEEDED))
                if got.get("id") == number:
                    return got
                self.events.append(got)

        got = self.loop.run_until_complete(answer())
        if "error" in got:
            raise RuntimeError(f"{method}: {got['error']['message']}")
        return got["result"]

    def evaluate(self, script):
        """The value of an expression in the page."""
        return self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def wait(self, script):
        """Until an expression is true in the page."""
        limit = time.monotonic() + NEEDED
        while not self.evaluate(script):
            if time.monotonic() > limit:
                raise TimeoutError(script)
            time.sleep(0.05)

    def width(self, pixels):
        self.ask("Emulation.setDeviceMetricsOverride", width=pixels, height=900, deviceScaleFactor=1, mobile=False)

    def open(self, url):
        """Load a page and let its scripts finish; returns (requests that leave the page, what scripts and console
        report as errors)."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait(
            f"document.readyState === 'complete' && location.href.startsWith({json.dumps(re.sub('[?#].*', '', url))})"
        )
        self.evaluate("new Promise(done => setTimeout(done, 100))")
        return self.seen()

    def seen(self):
        """As `open`, of all that has happened since."""
        asked, said = [], []
        for event in self.events:
            method, given = event.get("method"), event.get("params", {})
            if method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(LOCAL):
                asked.append(given["request"]["url"])
            elif method == "Network.webSocketCreated":
                asked.append(given["url"])
            elif method == "Runtime.exceptionThrown":
                said.append(
                    given["exceptionDetails"].get("exception", {}).get("description")
                    or given["exceptionDetails"]["text"]
                )
            elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "assert"):
                said.append(" ".join(str(a.get("value", a.get("description"))) for a in given["args"]))
            elif method == "Log.entryAdded" and given["entry"]["level"] == "error":
                said.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")
        return asked, said

    def picture(self, path, whole=False):
        """A screenshot into a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
