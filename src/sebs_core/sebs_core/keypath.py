"""Values in nested mappings by key path: ``("registry", "host")``. Pure: nothing given is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["merged", "value_at", "with_value", "without"]


def value_at(values: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What stands there; None where nothing does."""
    found: Any = values
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return None
        found = found[key]
    return found


def merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mapping by mapping; where both have a value that is no mapping, that of `more`."""
    result = dict(values)
    for key, value in more.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def with_value(values: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """The values with this one at the path, merged into what stands there."""
    for key in reversed(path):
        value = {key: value}
    return merged(values, value)


def without(values: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The values without what stands at the path; no error when nothing does."""
    if not path:
        return {}
    result = dict(values)
    if len(path) == 1:
        result.pop(path[0], None)
    elif isinstance(result.get(path[0]), dict):
        result[path[0]] = without(result[path[0]], path[1:])
    return result
