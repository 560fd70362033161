"""A headless Chromium on a pipe, by its DevTools protocol: what the tests of the page need, and no more."""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: The browser reads commands from file 3 and answers on file 4.
START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")


def find():
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page; everything that it complains of, or asks the network for, is in `complaints` and `requests`."""

    def __init__(self, send, receive):
        self._send, self._receive, self._left, self._n = send, receive, b"", 0
        self._session, self.complaints, self.requests, self._events = None, [], [], []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """Send a command and return its result."""
        self._n += 1
        message = {"id": self._n, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        self._send.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._n:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self):
        while b"\0" not in self._left:
            read = os.read(self._receive, 1 << 16)
            if not read:
                raise RuntimeError("the browser has ended.")
            self._left += read
        text, self._left = self._left.split(b"\0", 1)
        message = json.loads(text)
        method, parameters = message.get("method"), message.get("params", {})
        if (
            method == "Runtime.exceptionThrown"
            or (method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"))
            or (method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"))
        ):
            self.complaints.append(parameters)
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self._events.append(method)
        return message

    def open(self, url, *, width=1280, height=900, dark=False):
        """Load a page in a window of a size, and wait until it has drawn itself."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.prefer("dark" if dark else "light")
        self._events.clear()
        self.ask("Page.navigate", url=url)
        while not self._events:
            self._next()
        self.settle()

    def prefer(self, scheme):
        """Set the colour scheme that the user prefers."""
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def settle(self):
        """Wait for two frames."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def run(self, script):
        """Return the value of a script."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def click(self, selector, x=0.5, y=0.5):
        """Click on an element, at a part of its width and height."""
        box = self.run(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)});"
            "element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height]; })()"
        )
        at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **at)
        self.settle()

    def press(self, key, code):
        """Press a key in what has the focus."""
        text = {"text": " "} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)
        self.settle()

    def screenshot(self, *, whole=True):
        """Return a PNG of the page."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def pdf(self):
        """Return the page as it is printed."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=True)["data"])


@contextlib.contextmanager
def launch(folder):
    """Yield a `Page` of a browser of its own, which keeps its files in a folder."""
    there, here = os.pipe(), os.pipe()
    # above 9, so that neither stands where the other is to be put
    ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (there[0], here[1])]
    command = [sys.executable, "-c", START, *map(str, ends), find(), *OPTIONS, f"--user-data-dir={folder}"]
    process = subprocess.Popen(command, pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for fd in (*ends, there[0], here[1]):
        os.close(fd)
    try:
        with os.fdopen(there[1], "wb") as send, os.fdopen(here[0], "rb", buffering=0) as receive:
            page = Page(send, receive.fileno())
            yield page
            page._session = None
            page.ask("Browser.close")
    finally:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
