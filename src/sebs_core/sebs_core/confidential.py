"""Secrets of one session: known so that they are never stored, and hashed so that a change is noticed."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

from sebs_core.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Confidential", "hidden", "hidden_bytes", "hidden_values", "keyed_hash"]

SHORTEST = 6
"""Shorter texts are found by chance in anything, and are no secrets."""
_known: dict[str, str] = {}
"""All secrets of this process: an error is told when its session is over."""


def hidden(text: str) -> str:
    """The text with ``***`` where a secret of any session stands; for what others wrote: errors, logs, raw answers."""
    return functools.reduce(lambda told, secret: told.replace(secret, "***"), _longest_first(), text)


def hidden_values(value: Any) -> Any:
    """The same of every text in a JSON value; numbers and names stay."""
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, dict):
        return {key: hidden_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(hidden_values, value))
    return value


def hidden_bytes(content: bytes) -> bytes:
    """The same of an answer as it came."""
    secrets = (secret.encode("utf-8", "surrogateescape") for secret in _longest_first())
    return functools.reduce(lambda told, secret: told.replace(secret, b"***"), secrets, content)


def _longest_first() -> list[str]:
    return sorted(_known, key=len, reverse=True)  # one may begin with another


class Confidential:
    """What must not be written: values of secret settings, and secrets given to functions."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        """Each as it is, and as the two kinds of JSON have it."""

    def add(self, what: str, value: str) -> None:
        """Know a secret; `what` says what it is, in messages."""
        if len(value) >= SHORTEST:
            forms = (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
            self._values |= dict.fromkeys(forms, what)
            _known.update(dict.fromkeys(forms, what))

    def refuse(self, text: str, where: str) -> None:
        """Raise `PluginError` when a JSON text that is about to be stored holds a secret."""
        for value, what in self._values.items():
            if value in text:
                raise PluginError(
                    f"{hidden(where)} would hold {what}, and records are stored and published. A plugin must keep secrets out "
                    "of what it returns and records; what is no secret is given as environment or as a plain setting."
                )


def keyed_hash(key: bytes, name: str, secrets: Mapping[str, str]) -> str | None:
    """HMAC-SHA256 of the secrets of one function, None for none: shows a change, and nothing else to who lacks the key."""
    if not secrets:
        return None
    return hmac.new(key, json.dumps([name, sorted(secrets.items())]).encode(), hashlib.sha256).hexdigest()
