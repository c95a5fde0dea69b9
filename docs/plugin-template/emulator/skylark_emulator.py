"""The provider on this machine, in one file: for tests, and to try things by hand.

    python emulator/skylark_emulator.py --port 8600 --token open-sesame

It keeps everything in memory, listens on 127.0.0.1 only, and runs functions for real, with the Python that it runs on itself:
one process per instance, one request at a time in each. All calls but invocations need ``authorization: Bearer TOKEN``. A
refusal is a status and a sentence::

    GET    /v1/REGION/account                   {account, region}
    POST   /v1/REGION/roles                     {name, tags}; 409: it is there
    DELETE /v1/REGION/roles/NAME                404: it is not there; 409: a function uses it
    POST   /v1/REGION/functions                 {name, tags, …: FIELDS}; 409: it is there
    PATCH  /v1/REGION/functions/NAME?TAG=VALUE  what shall change; 404: it is not there; 412: it is not tagged so
    GET    /v1/REGION/functions/NAME            everything, of secrets only the names; 404
    DELETE /v1/REGION/functions/NAME            404
    POST   /v1/REGION/functions/NAME/metrics    {requests: […]} -> {REQUEST: {duration_us, init_us}} of those known by now
    GET    /v1/REGION/functions/NAME/logs?id=R  {text}; 404: it is not known (yet)
    GET    /v1/REGION/resources?tag=T&cursor=C  {items: [{kind, name, value, uses}], next}: what bears the tag, page by page
    POST   /run/ACCOUNT/REGION/NAME[?async]     invokes, and answers with the result; with async 202 at once

A function that was made or changed is ``pending`` for a moment, then ``active`` or ``failed``. Until then the instances of
before answer, and never again afterwards. A change without a ``label`` empties the label: so it names code and configuration of
him who gave it. A new ``generation`` replaces the instances and changes nothing else.

Invocations tell in headers what happened: ``x-request-id``, ``x-skylark-start`` (cold or warm), and, when the function gave no
answer, ``x-skylark-error``: busy, exited, failed, not-active, timed-out, too-large or unknown.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
INIT_LIMIT_S, LARGEST_EVENT = 10, 6 << 20
FIELDS = {
    **{"role": str, "language_version": str, "entry_point": str, "memory_mb": int, "timeout_s": (int, float)},
    **{"environment": dict, "secrets": dict, "label": str, "code": str},
}
"""What can be given of a function, all of it when it is made; ``code`` is a zip in base64, and may come later."""
RANGES = {"memory_mb": (128, 4096), "timeout_s": (1, 900)}

RUNTIME = """
import builtins, importlib, os, sys, traceback
from _sitebuiltins import Quitter

builtins.exit = Quitter("exit", "")  # the module site, which this process starts without, would bring it
requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)  # what a function prints is its log
sys.path.insert(0, os.getcwd())

def answer(kind, text):
    sys.stdout.flush()
    sys.stderr.flush()
    answers.write(b"%s %d\\n" % (kind, len(text)) + text)
    answers.flush()

try:
    module, _, name = sys.argv[1].rpartition(".")
    handler = getattr(importlib.import_module(module), name)
except Exception as error:
    traceback.print_exc()
    answer(b"failed", f"it cannot be started: {error!r}".encode())
    sys.exit(1)
answer(b"ready", b"")
for line in requests:
    request, size = line.split()
    try:
        kind, text = b"done", handler(requests.read(int(size)), request.decode())
    except Exception as error:
        traceback.print_exc()
        kind, text = b"failed", repr(error).encode()
    answer(kind, text)
"""
"""The program of an instance: what this provider's Python does around a handler."""


class Refused(Exception):
    """Ends a call with a status, a sentence, perhaps a code for invocations, and headers."""

    def __init__(self, status: int, text: str, code: str = "", **headers: str) -> None:
        super().__init__(text)
        self.status, self.headers = status, {**headers, **({"x-skylark-error": code} if code else {})}


class Instance:
    """One process that serves one state of a function, one request after the other."""

    def __init__(self, name: str, served: dict[str, Any]) -> None:
        self.served = served
        self._log, self._log_read, self._out_of_time = tempfile.TemporaryFile(), 0, False  # noqa: SIM115
        own = {"FUNCTION_NAME": name, "FUNCTION_GENERATION": served["generation"], "PATH": os.environ.get("PATH", "")}
        command = [sys.executable, "-I", "-S", "-B", "-c", RUNTIME, served["entry_point"]]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log, "start_new_session": True}
        begun_ns = time.monotonic_ns()
        environment = {**served["environment"], **served["secrets"], **own}
        self._process: Any = subprocess.Popen(command, cwd=served["folder"], env=environment, **pipes)
        self.started, self.why = self._exchange(b"", INIT_LIMIT_S)
        self.init_us = (time.monotonic_ns() - begun_ns) // 1000

    def call(self, request: str, event: bytes) -> tuple[str, bytes]:
        """How it ended (``done`` or a kind of error), and the text that goes with it."""
        if self.started != "ready":
            return self.started, self.why
        return self._exchange(b"%s %d\n%s" % (request.encode(), len(event), event), self.served["timeout_s"])

    def _exchange(self, sent: bytes, limit_s: float) -> tuple[str, bytes]:
        timer = threading.Timer(limit_s, self._end_for_time)
        timer.start()
        try:
            self._process.stdin.write(sent)
            self._process.stdin.flush()
            kind, size = self._process.stdout.readline().split()
            text = self._process.stdout.read(int(size))
            if len(text) == int(size):
                return kind.decode(), text
        except (OSError, ValueError):
            pass  # no answer, or half of one: the process ended
        finally:
            timer.cancel()
            timer.join()
        if self._out_of_time:
            return "timed-out", b"the function did not end within %g s" % limit_s
        return "exited", b"the function's process ended with status %d" % self._process.wait()

    def _end_for_time(self) -> None:
        self._out_of_time = True
        self.end()

    @property
    def alive(self) -> bool:
        """Whether it can take another request."""
        return self.started == "ready" and not self._out_of_time and self._process.poll() is None

    def new_log(self) -> str:
        """What was printed since this was asked last. The process shares the file's position, so it stays where it is."""
        text = os.pread(self._log.fileno(), 1 << 20, self._log_read)
        self._log_read += len(text)
        return text.decode(errors="replace")

    def end(self) -> None:
        """End the process and all that it started. Somebody else may still wait for its answer, so nothing is closed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it; nobody waits for its answer."""
        self.end()
        for file in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                file.close()


@dataclass
class Function:
    """A function as it was given, and what serves it."""

    name: str
    tags: dict[str, str]
    given: dict[str, Any]
    generation: str = "initial"
    folder: Path | None = None
    state: str = "pending"
    reason: str = ""
    changed_at: float = 0
    served: dict[str, Any] | None = None
    """What new instances are started from."""
    instances: list[Instance] = field(default_factory=list)
    idle: list[Instance] = field(default_factory=list)
    starting: int = 0
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)

    def settle(self, ready_s: float) -> None:
        """Bring what was changed to life, once its time has come."""
        if self.state != "pending" or time.monotonic() < self.changed_at + ready_s:
            return
        module = self.given["entry_point"].rpartition(".")[0].replace(".", "/") + ".py"
        if self.folder is not None and (self.folder / module).is_file():
            self.state, self.reason = "active", ""
            self.served = {**self.given, "generation": self.generation, "folder": self.folder}
        else:
            self.state, self.served = "failed", None
            self.reason = f"its code has no {module}" if self.folder else "it has no code"
        while self.idle:
            self.drop(self.idle.pop())

    def drop(self, instance: Instance) -> None:
        """Close an instance."""
        instance.close()
        self.instances = [one for one in self.instances if one is not instance]

    def known(self, delay_s: float) -> dict[str, dict[str, Any]]:
        """The invocations of which is told by now."""
        return {request: known for request, known in self.requests.items() if known["ended_at"] + delay_s <= time.monotonic()}


class Emulator:
    """The provider: ``with Emulator() as emulator: emulator.url, emulator.token``."""

    ready_s = 0.05
    """How long a change takes."""
    metrics_delay_s = 0.0
    """How late metrics and logs arrive."""
    page_size = 50
    max_instances = 32
    throttled, retry_after = 0, "0"
    """So many of the next calls of the API are answered with 429, and with this header."""

    def __init__(self, port: int = 0, token: str | None = None) -> None:
        self.token, self.account = token or secrets.token_hex(16), secrets.token_hex(6)
        self.calls: list[tuple[str, str, int]] = []
        """Method, path and status of the API's calls so far."""
        self._roles: dict[str, dict[str, dict[str, str]]] = {"north": {}, "south": {}}
        self._functions: dict[str, dict[str, Function]] = {region: {} for region in self._roles}
        self._folder = tempfile.TemporaryDirectory(prefix="emulator-")
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        """End everything that was started."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for functions in self._functions.values():
                while functions:
                    self._remove(functions.popitem()[1])
        self._folder.cleanup()

    def answer(self, method: str, target: str, token: str, body: bytes) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body that answer one HTTP request."""
        address = urlsplit(target)
        path, query = address.path.split("/")[1:], dict(parse_qsl(address.query, keep_blank_values=True))
        match (method, *path):
            case ("POST", "run", self.account, region, name) if name in self._functions.get(region, {}):
                return self._invocation(self._functions[region][name], query, body)
            case (_, "run", *_):
                raise Refused(404, "there is no such function", "unknown")
        if token != f"Bearer {self.token}":
            raise Refused(401, "the token is missing, or not valid")
        with self._lock:
            if self.throttled:
                self.throttled -= 1
                raise Refused(429, "too many calls: slow down", **{"retry-after": self.retry_after})
            if path[0] != "v1" or len(path) < 3 or path[1] not in self._roles:
                raise Refused(404, f"there is no {address.path}; regions are {', '.join(self._roles)}")
            try:
                given = json.loads(body or b"{}")
            except ValueError as error:
                raise Refused(400, f"the body is no JSON: {error}") from error
            return 200, {}, self._call(path[1], (method, *path[2:]), query, given)

    def _call(self, region: str, call: tuple[str, ...], query: dict[str, str], given: dict[str, Any]) -> Any:
        roles, functions = self._roles[region], self._functions[region]
        for function in functions.values():
            function.settle(self.ready_s)
        match call:
            case ("GET", "account"):
                return {"account": self.account, "region": region}
            case ("GET", "resources"):
                return self._page(region, **_checked(query, {"tag": str, "cursor": str}, "tag", "cursor"))
            case ("POST", ("roles" | "functions") as kind):
                more: dict[str, Any] = FIELDS if kind == "functions" else {}
                _checked(given, {"name": str, "tags": dict, **more}, "name", "tags", *(more.keys() - {"code"}))
                name, tags = given.pop("name"), given.pop("tags")
                if name in (functions if more else roles):
                    raise Refused(409, f"{kind} has a {name} already")
                if not more:
                    roles[name] = tags
                    return {"name": name, "tags": tags}
                made = self._changed(Function(name, tags, {}), roles, given)
                return self._described(region, functions.setdefault(name, made))
            case ("DELETE", "roles", name) if name in roles:
                users = [function.name for function in functions.values() if function.given["role"] == name]
                if users:
                    raise Refused(409, f"the role {name} is used by the functions {', '.join(users)}")
                return {"name": name, "tags": roles.pop(name)}
            case (_, _, name, *_) if name not in functions:
                raise Refused(404, f"there is no {name} here")
            case ("GET", "functions", name):
                return self._described(region, functions[name])
            case ("PATCH", "functions", name):
                if not query.items() <= functions[name].tags.items():
                    raise Refused(412, f"the function {name} is not tagged {query}: it is somebody else's")
                changed = self._changed(functions[name], roles, _checked(given, {**FIELDS, "generation": str}))
                return self._described(region, changed)
            case ("DELETE", "functions", name):
                return self._described(region, self._remove(functions.pop(name)))
            case ("POST", "functions", name, "metrics"):
                asked, known = (
                    _checked(given, {"requests": list}, "requests")["requests"],
                    functions[name].known(self.metrics_delay_s),
                )
                return {request: known[request]["metrics"] for request in asked if request in known}
            case ("GET", "functions", name, "logs") if query.get("id") in functions[name].known(self.metrics_delay_s):
                return {"text": functions[name].requests[query["id"]]["log"]}
        raise Refused(404, f"nothing is known of {' '.join(call)} {query}")

    def _changed(self, function: Function, roles: dict[str, Any], given: dict[str, Any]) -> Function:
        wanted = {**function.given, "label": "", **given} if given.keys() - {"generation"} else {**function.given, **given}
        generation, code = wanted.pop("generation", function.generation), wanted.pop("code", None)
        if wanted["role"] not in roles:
            raise Refused(400, f"there is no role {wanted['role']}")
        if wanted["language_version"] != VERSION:
            raise Refused(400, f"there is no Python {wanted['language_version']} here, only {VERSION}")
        if code is not None:
            folder = Path(tempfile.mkdtemp(dir=self._folder.name))
            try:
                zipfile.ZipFile(io.BytesIO(base64.b64decode(code))).extractall(folder)
            except (ValueError, zipfile.BadZipFile) as error:
                raise Refused(400, f"code must be a zip in base64: {error}") from error
            function.folder = folder
        function.given, function.generation = wanted, generation
        function.state, function.reason, function.changed_at = "pending", "it is being changed", time.monotonic()
        return function

    def _described(self, region: str, function: Function) -> dict[str, Any]:
        own = {key: getattr(function, key) for key in ("name", "tags", "generation", "state", "reason")}
        url = f"{self.url}/run/{self.account}/{region}/{function.name}"
        return {**function.given, **own, "secrets": sorted(function.given["secrets"]), "url": url}

    def _page(self, region: str, tag: str, cursor: str) -> dict[str, Any]:
        there: list[Any] = [("role", name, tags, []) for name, tags in self._roles[region].items()]
        there += [("function", one.name, one.tags, [f"role/{one.given['role']}"]) for one in self._functions[region].values()]
        found = sorted((kind, name, tags[tag], uses) for kind, name, tags, uses in there if tag in tags)
        items = [dict(zip(("kind", "name", "value", "uses"), one, strict=True)) for one in found]
        left = [item for item in items if "{kind}/{name}".format(**item) > cursor]
        page = left[: self.page_size]
        return {"items": page, "next": "{kind}/{name}".format(**page[-1]) if len(left) > len(page) else None}

    def _remove(self, function: Function) -> Function:
        function.state, function.served = "removed", None
        while function.idle:
            function.drop(function.idle.pop())
        for instance in function.instances:
            instance.end()
        return function

    def _invocation(self, function: Function, query: dict[str, str], event: bytes) -> tuple[int, dict[str, str], Any]:
        request = secrets.token_hex(8)
        if len(event) > LARGEST_EVENT:
            raise Refused(413, f"an event has at most {LARGEST_EVENT} bytes, and this has {len(event)}", "too-large")
        if "async" not in query:
            return self._invoke(function, request, event)

        def later() -> None:
            with contextlib.suppress(Refused):
                self._invoke(function, request, event)

        threading.Thread(target=later, daemon=True).start()
        return 202, {"x-request-id": request}, {}

    def _invoke(self, function: Function, request: str, event: bytes) -> tuple[int, dict[str, str], Any]:
        with self._lock:
            function.settle(self.ready_s)
            if function.served is None:
                raise Refused(503, f"{function.name} is {function.state}: {function.reason}", "not-active")
            served, instance = function.served, function.idle.pop() if function.idle else None
            if instance is None and len(function.instances) + function.starting >= self.max_instances:
                raise Refused(429, f"all {self.max_instances} instances are busy", "busy", **{"retry-after": "1"})
            function.starting += instance is None
        cold = instance is None
        if instance is None:
            instance = Instance(function.name, served)
            with self._lock:
                function.starting -= 1
                function.instances.append(instance)
                if function.state == "removed":
                    instance.end()
        begun_ns = time.monotonic_ns()
        how, text = instance.call(request, event)
        metrics = {"duration_us": (time.monotonic_ns() - begun_ns) // 1000, "init_us": instance.init_us if cold else None}
        known = {"metrics": metrics, "log": instance.new_log(), "ended_at": time.monotonic()}
        with self._lock:
            function.settle(self.ready_s)
            function.requests[request] = known
            if instance.alive and instance.served is function.served:
                function.idle.append(instance)
            else:
                function.drop(instance)
        headers = {"x-request-id": request, "x-skylark-start": "cold" if cold else "warm"}
        failed = {} if how == "done" else {"x-skylark-error": how}
        return {"done": 200, "failed": 500, "timed-out": 504}.get(how, 502), {**headers, **failed}, text


def _checked(given: dict[str, Any], fields: dict[str, Any], *needed: str) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Refused(400, "the body must be one JSON object")
    for name, value in given.items():
        if name not in fields:
            raise Refused(400, f"there is no {name} here; there are: {', '.join(fields)}")
        texts = [text for pair in value.items() for text in pair] if isinstance(value, dict) else []
        if not isinstance(value, fields[name]) or not all(isinstance(text, str) for text in texts):
            raise Refused(400, f"{name} must be of type {fields[name]}, with texts only")
        if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
            raise Refused(400, f"{name} must be from {RANGES[name][0]} to {RANGES[name][1]}")
    if not given.keys() >= set(needed):
        raise Refused(400, f"needed: {', '.join(needed)}")
    return given


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def __init__(self, address: tuple[str, int], emulator: Emulator) -> None:
        super().__init__(address, _Handler)
        self.emulator = emulator

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1
    server: _Server

    def _serve(self) -> None:
        emulator, body = self.server.emulator, self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            status, headers, answer = emulator.answer(self.command, self.path, self.headers.get("authorization", ""), body)
        except Refused as refused:
            status, headers, answer = refused.status, refused.headers, str(refused).encode()
        if self.path.startswith("/v1/"):
            emulator.calls.append((self.command, self.path, status))
        sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(sent))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def log_message(self, *_: Any) -> None:
        """Nothing: `Emulator.calls` has it."""


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="The provider on this machine; all that it started ends with it.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--token", help="default: a new one")
    with contextlib.suppress(KeyboardInterrupt), Emulator(**vars(parser.parse_args())) as emulator:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"endpoint={emulator.url} token={emulator.token}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
