"""The gateway's control side: JSON lines over a Unix socket in its private folder, one answer for each request.

========== ============================================= ===========================================================
``ask``    with                                           answer
========== ============================================= ===========================================================
put        the fields of `instance.Spec`                  ``generation``
remove     ``name``                                       ``removed``: whether it was there
enforce    ``names``                                      ``generations``: name → new generation
functions                                                 ``functions``: name → what there is now
metrics    ``name``                                       ``path`` of the function's numbers, up to date; or null
logs       ``request_id``                                 ``text``; null when it is not known (any more)
========== ============================================= ===========================================================

What cannot be done is answered with ``{"error": sentence}``.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from sebs_local.gateway.instance import Spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sebs_local.gateway.service import Service

__all__ = ["LINE_LIMIT", "Control"]

LINE_LIMIT = 16 * 1024 * 1024


class Control:
    """Carries out what the client asks."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._known: dict[str, Callable[..., dict[str, Any]]] = {
            "put": self._put,
            "remove": self._remove,
            "enforce": self._enforce,
            "functions": self._functions,
            "metrics": self._metrics,
            "logs": self._logs,
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it goes."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError):  # gone; too long a line; the end
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            return self._known[request.pop("ask")](**request)
        except LookupError as error:
            return {"error": str(error)}
        except (ValueError, TypeError, AttributeError) as error:
            return {"error": f"the gateway does not understand this request ({type(error).__name__}: {error})"}
        except OSError as error:
            return {"error": str(error)}

    def _put(self, **fields: Any) -> dict[str, Any]:
        return {"generation": self._service.put(Spec(**fields))}

    def _remove(self, name: str) -> dict[str, Any]:
        return {"removed": self._service.remove(name)}

    def _enforce(self, names: list[str]) -> dict[str, Any]:
        return {"generations": {name: self._service.enforce_cold_start(name) for name in names}}

    def _functions(self) -> dict[str, Any]:
        return {"functions": self._service.described()}

    def _metrics(self, name: str) -> dict[str, Any]:
        path = self._service.numbers.flush(name)
        return {"path": None if path is None else str(path)}

    def _logs(self, request_id: str) -> dict[str, Any]:
        return {"text": self._service.logs.text(request_id)}
