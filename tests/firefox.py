"""A headless Firefox, driven by its own protocol, Marionette: Playwright needs a build of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
SECONDS = 60.0  # that anything may take: machines that run tests are busy
SETTINGS = {
    "marionette.port": 0,  # any that is free
    "media.navigator.streams.fake": True,  # a camera without a device
    "media.navigator.permission.disabled": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's name of a reference to an element


class Firefox:
    """One window. Raises RuntimeError if the browser refuses, AssertionError if something does not happen in time."""

    def __init__(self, width: int = 1280, height: int = 900) -> None:
        assert FIREFOX is not None
        self._profile = tempfile.TemporaryDirectory(prefix="tubelet-firefox-", ignore_cleanup_errors=True)
        folder = Path(self._profile.name)
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in SETTINGS.items()]
        (folder / "user.js").write_text("\n".join(lines))
        size = [f"--width={width}", f"--height={height}"]
        self._process = subprocess.Popen(
            [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", str(folder), *size],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0
        self._connection = self._connect(folder / "MarionetteActivePort")
        self._messages = self._connection.makefile("rb")
        self._receive()  # its greeting
        self._ask("WebDriver:NewSession", {})

    def close(self) -> None:
        """End the browser."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def open(self, address: str) -> None:
        """Load a page."""
        self._ask("WebDriver:Navigate", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's promise; it is the body of an async function with `arguments`."""
        wrapped = (
            f"const done = arguments[arguments.length - 1]; (async (...args) => {{ {script} }})(...arguments).then(\
            (value) => done({{ value }}), (error) => done({{ error: String(error) }}));"
        )
        wish = {"script": wrapped, "args": list(arguments), "scriptTimeout": int(SECONDS * 1000)}
        answer = self._ask("WebDriver:ExecuteAsyncScript", wish)["value"]
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("value")

    def wait(self, selector: str, text: str = "") -> None:
        """Wait until an element is there with this text."""
        end = time.monotonic() + SECONDS
        script = "const e = document.querySelector(args[0]); return e?.checkVisibility() ? e.innerText : null"
        while (found := self.run(script, selector)) is None or text not in found:
            assert time.monotonic() < end, f"{selector} has not said {text!r} but {found!r}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Click as a mouse does."""
        self._ask("WebDriver:ElementClick", {"id": self._find(selector)})

    def type(self, selector: str, text: str) -> None:
        """Press keys within an element; for the field of a file, its path."""
        self._ask("WebDriver:ElementSendKeys", {"id": self._find(selector), "text": text})

    def _find(self, selector: str) -> str:
        found = self._ask("WebDriver:FindElement", {"using": "css selector", "value": selector})
        return str(found["value"][ELEMENT])

    def _connect(self, port_file: Path) -> socket.socket:
        end = time.monotonic() + SECONDS
        while not port_file.is_file() or not port_file.read_text():
            assert time.monotonic() < end, "Firefox did not start"
            time.sleep(0.05)
        return socket.create_connection(("127.0.0.1", int(port_file.read_text())), SECONDS)

    def _ask(self, command: str, parameters: dict[str, Any]) -> Any:
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._connection.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._receive()
        if error is not None:
            raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
        return result

    def _receive(self) -> Any:
        digits = b""
        while (byte := self._messages.read(1)) != b":":
            assert byte, "Firefox has ended"
            digits += byte
        return json.loads(self._messages.read(int(digits)))
