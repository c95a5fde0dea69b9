"""What is known of the machine that a client ran on, for the manifest."""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import sys
import uuid
from pathlib import Path
from typing import Any

__all__ = ["machine_facts", "machine_identity"]


def machine_identity() -> str:
    """The same on this machine from boot to boot, and another on every other one; tells nothing else about it."""
    known = _text("/etc/machine-id") or _text("/var/lib/dbus/machine-id")
    text = known or f"{platform.node()} {uuid.getnode()}"
    # machine-id(5): the id itself is not to be shown, a keyed hash of it may be.
    return hmac.new(text.encode(), b"sebs", hashlib.sha256).hexdigest()[:16]


def machine_facts() -> dict[str, Any]:
    """Kernel, processor, cores, memory, governor, SMT and steal, as far as the system tells; unknown ones are None."""
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _first_value("/proc/cpuinfo", "model name") or platform.processor() or None,
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_kb": _number((_first_value("/proc/meminfo", "MemTotal") or "").split(" ")[0]),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "smt": _text("/sys/devices/system/cpu/smt/control"),
        "steal_ticks": _steal_ticks(),
        "load_average": os.getloadavg(),
        "python": sys.version.split()[0],
    }


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _first_value(path: str, key: str) -> str | None:
    for line in (_text(path) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _steal_ticks() -> int | None:
    fields = (_text("/proc/stat") or "").partition("\n")[0].split()
    return int(fields[8]) if len(fields) > 8 else None
