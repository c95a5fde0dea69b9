"""The client's end of the gateway: starting it, asking it, ending it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from sebs_core.errors import DeployError, SebsError

if TYPE_CHECKING:
    from sebs_local.models import LocalSettings

__all__ = ["Gateway"]

START_S = 30.0
END_S = 6.0
ASK_S = 30.0


class Gateway:
    """A gateway process that ends with us: its standard input is our pipe, and ends when we do, however we do.

    The constructor starts the process and does not wait for it; whatever needs it, waits (0.15 s after the start at most,
    usually). Its standard output is held by the gateway and by its reaper: when that has ended, nothing is left.
    """

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._told: dict[str, Any] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        environment = dict(os.environ)
        if "PYTHONPATH" in environment:  # the process runs in another folder
            parts = environment["PYTHONPATH"].split(os.pathsep)
            environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(part) for part in parts)  # noqa: PTH100
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sebs_local.gateway", settings.model_dump_json()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd="/",
            env=environment,
            start_new_session=True,  # a Ctrl-C in the terminal is for us alone
        )

    @property
    def url(self) -> str:
        """Where it listens, without a path. Raises `DeployError` when it could not start."""
        return f"http://127.0.0.1:{self._ready()['port']}"

    @property
    def name(self) -> str:
        """Tells this gateway from all others. Raises `DeployError` when it could not start."""
        return str(self._ready()["name"])

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def folder(self) -> str:
        """Its private folder, which ends with it. Raises `DeployError` when it could not start."""
        return str(self._ready()["folder"])

    def ask(self, what: str, *, error: type[SebsError] = DeployError, **fields: Any) -> dict[str, Any]:
        """Ask over the control channel (`gateway.control` lists what). Raises `error` when it is gone or refuses."""
        try:
            answer = self._exchanged({"ask": what, **fields}, error)
        except (OSError, ValueError) as cause:
            self._hang_up()
            raise error(
                f"the gateway of the local platform does not answer ({what}: {str(cause) or type(cause).__name__}); what it "
                "served, and what it measured, is gone. Open a new session."
            ) from None
        if "error" in answer:
            raise error(f"the gateway of the local platform could not do this ({what}): {answer['error']}")
        return answer

    def close(self) -> None:
        """End it, its instances, its folder. May be called again; an interrupt makes it end at once."""
        if self._closed:
            return
        try:
            self._hang_up()
            with contextlib.suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            if not self._over():
                self._process.kill()
                self._over()
        except BaseException:
            self._process.kill()  # its reaper does the rest, whether we wait or not
            raise
        finally:
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._errors.close()
            self._closed = True

    def _over(self) -> bool:
        """Wait until standard output ends; False when it does not in time."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + END_S
        while _readable(output, deadline):
            if not os.read(output, 4096):
                return True
        return False

    def _ready(self) -> dict[str, Any]:
        """What the gateway said when it was ready; waits for it the first time."""
        if self._told is None:
            told = self._first_line()
            if "error" in told:
                raise DeployError(
                    f"the gateway of the local platform could not start: {told['error']}. Choose another port "
                    "(--set port=NUMBER), or 0 for any free one."
                )
            self._told = told
        return self._told

    def _first_line(self) -> dict[str, Any]:
        if self._closed:
            raise DeployError("the gateway of the local platform has been closed. Open a new session.")
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        output = self._process.stdout.fileno()
        deadline = time.monotonic() + START_S
        line = b""
        while not line.endswith(b"\n"):
            if not _readable(output, deadline):
                raise DeployError(f"the gateway of the local platform was not ready within {START_S:g} s{self._last_words()}")
            data = os.read(output, 4096)
            if not data:
                raise DeployError(
                    f"the gateway of the local platform ended while it was starting{self._last_words()}. "
                    "`sebs platform doctor local` tells what is missing."
                )
            line += data
        told: dict[str, Any] = json.loads(line)
        return told

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""

    def _exchanged(self, request: dict[str, Any], error: type[SebsError]) -> dict[str, Any]:
        if self._control is None:
            folder = self.folder
            if self._closed:
                raise error("the gateway of the local platform has been closed. Open a new session.")
            control = socket.socket(socket.AF_UNIX)
            control.settimeout(ASK_S)
            control.connect(f"{folder}/control")
            self._control = control
        self._control.sendall(json.dumps(request).encode() + b"\n")
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            data = self._control.recv(1 << 16)
            if not data:
                raise ConnectionResetError("it has ended")
            parts.append(data)
        answer: dict[str, Any] = json.loads(b"".join(parts))
        return answer

    def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


def _readable(descriptor: int, deadline: float) -> bool:
    """Wait until there is something to read; False when there is nothing by then. select() would end at descriptor 1,023."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(max(0.0, deadline - time.monotonic())))
