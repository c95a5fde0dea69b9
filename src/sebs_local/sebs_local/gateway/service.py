"""The gateway as a whole: functions by name, both servers, its beginning and its end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sebs_local.gateway.control import LINE_LIMIT, Control
from sebs_local.gateway.http import Connection
from sebs_local.gateway.instance import House
from sebs_local.gateway.pool import Pool
from sebs_local.gateway.records import Logs, Numbers

if TYPE_CHECKING:
    from sebs_local.gateway.instance import Spec
    from sebs_local.gateway.reaper import Reaper

__all__ = ["Service", "serve"]

DESCRIPTORS = 10240
PATIENCE_S = 3.0
"""How long killed processes are waited for at the end."""


class Service:
    """What this gateway serves."""

    def __init__(self, house: House, settings: dict[str, Any]) -> None:
        self.house = house
        self.logs = Logs()
        self.numbers = Numbers(house.folder / "numbers")
        self.request_limit = int(settings["request_limit_mb"]) << 20
        self.connections: set[Connection] = set()
        self._max_instances = int(settings["max_instances"])
        self._keep_alive_s = float(settings["keep_alive_s"])
        self._pools: dict[bytes, Pool] = {}
        self.name = os.urandom(6).hex()
        """Tells this gateway from all others; begins each request id."""
        self._count = itertools.count()

    def pool(self, name: bytes) -> Pool | None:
        """The instances of the function of this name."""
        return self._pools.get(name)

    def new_request_id(self) -> str:
        """An id that no other request has, of this gateway or another."""
        return f"{self.name}-{next(self._count):x}"

    def put(self, spec: Spec) -> str:
        """Serve a function, in the place of what had its name; an equal one stays with its instances."""
        old = self._pools.get(spec.name.encode())
        if old is not None and old.spec == spec:
            return old.generation
        new = Pool(
            self.house,
            spec,
            max_instances=self._max_instances,
            keep_alive_s=self._keep_alive_s,
            logs=self.logs,
            numbers=self.numbers,
        )
        self._pools[spec.name.encode()] = new
        for call in old.close() if old is not None else ():
            new.submit(call)
        return new.generation

    def remove(self, name: str) -> bool:
        """Serve it no more; False when it was not served."""
        pool = self._pools.pop(name.encode(), None)
        if pool is None:
            return False
        for call in pool.close():
            call.client.answer(call, None, "refused", f"function {name} was removed while the call waited", None)
        return True

    def enforce_cold_start(self, name: str) -> str:
        """The next call of this function starts a new instance; returns the new generation. Raises `LookupError`."""
        pool = self._pools.get(name.encode())
        if pool is None:
            raise LookupError(f"this gateway serves no function {name}")
        return pool.enforce_cold_start()

    def described(self) -> dict[str, Any]:
        """Each function: folder, generation, instances, waiting calls."""
        return {
            pool.spec.name: {
                "folder": pool.spec.folder,
                "generation": pool.generation,
                "waiting": len(pool.queue),
                "instances": [
                    {"pid": instance.pid, "state": instance.state, "generation": instance.generation}
                    for instance in pool.instances
                ],
            }
            for pool in self._pools.values()
        }

    def wait_for_children(self) -> None:
        """Take the exit status of every process that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            instance = self.house.children.pop(pid, None)
            if instance is not None:
                instance.exited(status)

    def close(self) -> None:
        """End all instances and connections."""
        for connection in list(self.connections):
            connection.abort()
        for instance in list(self.house.children.values()):
            instance.kill()
        deadline = time.monotonic() + PATIENCE_S
        while self.house.children and time.monotonic() < deadline:
            self.wait_for_children()
            time.sleep(0.001)


def serve(settings: dict[str, Any], folder: Path, reaper: Reaper) -> int:
    """Run until standard input ends or SIGTERM comes; returns the exit status."""
    return asyncio.run(_serve(settings, folder, reaper))


async def _serve(settings: dict[str, Any], folder: Path, reaper: Reaper) -> int:
    _allow_many_descriptors()
    loop = asyncio.get_running_loop()
    house = House(
        loop=loop,
        reaper=reaper,
        folder=folder,
        init_timeout_s=float(settings["init_timeout_s"]),
        response_limit=int(settings["response_limit_mb"]) << 20,
    )
    service = Service(house, settings)
    port = int(settings["port"])
    try:
        server = await loop.create_server(lambda: Connection(service, loop), "127.0.0.1", port, backlog=1024)
    except OSError as error:
        _say({"error": f"port {port} of 127.0.0.1 cannot be used: {error.strerror or error}"})
        return 1
    control = await asyncio.start_unix_server(Control(service).serve, folder / "control", limit=LINE_LIMIT)
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, service.wait_for_children)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_reader(0, lambda: None if os.read(0, 4096) else end.set())
    _say({"port": server.sockets[0].getsockname()[1], "folder": str(folder), "name": service.name, "pid": os.getpid()})
    await end.wait()
    loop.remove_reader(0)
    server.close()
    control.close()
    service.close()
    return 0


def _allow_many_descriptors() -> None:
    """Each connection takes one descriptor, each instance three; the usual limit is 1024, on macOS 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _say(told: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client has gone already: standard input tells
        os.write(1, json.dumps(told).encode() + b"\n")
