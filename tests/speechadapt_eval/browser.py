"""A headless Chromium, driven as a user would: keys, taps, screenshots, downloads.

It speaks the DevTools protocol over two pipes, so nothing but the browser is needed.
"""

import base64
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_KEYS = {" ": ("Space", 32), "Enter": ("Enter", 13), "ArrowRight": ("ArrowRight", 39),
         "Tab": ("Tab", 9)}  # fmt: skip


_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-pipe",
)


class Browser:
    """One page of one browser with its own profile in ``folder``; a context manager."""

    def __init__(self, folder, width=390, height=844, phone=True):
        self.folder, self.size, self.phone = folder, (width, height), phone
        self.next_id, self.events, self.rest = 0, [], b""

    def __enter__(self):
        read_end, self.out = os.pipe()
        self.into, write_end = os.pipe()

        def wire():  # the browser reads commands from descriptor 3 and answers on 4
            high_in, high_out = os.dup2(read_end, 60), os.dup2(write_end, 61)
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self.folder / 'profile'}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_end)
        os.close(write_end)
        target = self.call("Target.createTarget", session=None, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", session=None, targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=self.size[0], height=self.size[1],
                  deviceScaleFactor=1, mobile=self.phone)  # fmt: skip
        if self.phone:
            self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.call("Browser.setDownloadBehavior", session=None, behavior="allow",
                  downloadPath=str(self.folder))  # fmt: skip
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)

    def call(self, method, session="", **params):
        """Call a method of the protocol and wait for its answer."""
        self.next_id += 1
        message = {"id": self.next_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session or self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.next_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        while b"\0" not in self.rest:
            part = os.read(self.into, 1 << 16)
            assert part, "the browser has gone"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, path, query=""):
        self.call("Page.navigate", url=path.resolve().as_uri() + query)
        self.wait("document.readyState === 'complete'")

    def ask(self, expression):
        """The value of a JavaScript expression, or of what it promises."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression, seconds=20):
        end = time.monotonic() + seconds
        while not self.ask(expression):
            assert time.monotonic() < end, f"never: {expression}\n{self.errors()}"
            time.sleep(0.02)

    def press(self, key):
        code, number = _KEYS.get(key, (f"Digit{key}" if key.isdigit() else f"Key{key.upper()}",
                                       ord(key[0].upper())))  # fmt: skip
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        fields = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text,
                  **fields)  # fmt: skip
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def write(self, text):
        self.call("Input.insertText", text=text)

    def tap(self, selector):
        """Press the middle of an element, wherever it is on the screen."""
        x, y = self.ask(
            "(e => { e.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] })"
            f"(document.querySelector({selector!r}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def errors(self):
        """What went wrong in the page."""
        return [e for e in self.events if e["method"] == "Runtime.exceptionThrown"]
