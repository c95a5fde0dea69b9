"""Servers on loopback that do exactly what a test says, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any


def answer(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> bytes:
    """An HTTP answer with a length."""
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body


class Talk:
    """One request on one connection."""

    def __init__(self, connection: int, nth: int, head: bytes, body: bytes, sock: socket.socket) -> None:
        self.connection = connection
        """Number of the connection, from 0."""
        self.nth = nth
        """Number of the request on this connection, from 0."""
        self.head, self.body, self.socket = head, body, sock
        self.closed = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        """End of file for the client."""
        self.closed = True

    def reset(self) -> None:
        """A reset for the client."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.closed = True


class LoopbackServer:
    """Calls ``respond(talk)`` for each request, each connection in a thread of its own."""

    def __init__(self, respond: Callable[[Talk], Any], host: str = "127.0.0.1") -> None:
        self._respond = respond
        self.connections = 0
        self.requests: list[bytes] = []
        """Bodies, in the order of arrival."""
        self.most_at_once = 0
        self.arrivals_ns: list[int] = []
        self._now = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((host, 0), backlog=256)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                number = self.connections
                self.connections += 1
                self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        nth, buffer = 0, b""
        try:
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = connection.recv(65536)
                    if not more:
                        return
                    buffer += more
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                length = 0
                for line in head.split(b"\r\n"):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                while len(buffer) < length:
                    more = connection.recv(1 << 20)
                    if not more:
                        return
                    buffer += more
                body, buffer = buffer[:length], buffer[length:]
                talk = Talk(number, nth, head, body, connection)
                with self._lock:
                    self.arrivals_ns.append(time.monotonic_ns())
                    self.requests.append(body)
                    self._now += 1
                    self.most_at_once = max(self.most_at_once, self._now)
                try:
                    sent = self._respond(talk)
                    if isinstance(sent, bytes):
                        talk.send(sent)
                finally:
                    with self._lock:
                        self._now -= 1
                if talk.closed:
                    return
                nth += 1
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> LoopbackServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
