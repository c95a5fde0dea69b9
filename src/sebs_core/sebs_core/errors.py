"""Everything that can go wrong, as one tree.

::

    SebsError
    ├── PluginError              a plugin cannot be loaded, or breaks the contract of the hooks
    │   ├── UnknownPlatformError no installed plugin offers this platform
    │   └── StageMissingError    the platform does not implement a stage that was needed
    ├── ConfigError              what a person wrote is wrong: option, setting, benchmark, size, version
    │   └── CredentialsError     the provider refused, or was not given, an identity
    ├── PackagingError           the package could not be built
    ├── DeployError              the platform did not take the function
    │   └── FunctionGoneError    a function we knew cannot be used any more; the message says why
    ├── InvokeError              the function could not be reached at all (a *failing* function is a row, no error)
    ├── MetricsError             the platform's own numbers could not be had
    ├── StorageError             benchmark data could not be stored or read, or a result cannot be opened
    └── CacheError               the cache folder cannot be read or written

Each message names what failed, on what, and what to do next.
"""

from __future__ import annotations

__all__ = [
    "CacheError",
    "ConfigError",
    "CredentialsError",
    "DeployError",
    "FunctionGoneError",
    "InvokeError",
    "MetricsError",
    "PackagingError",
    "PluginError",
    "SebsError",
    "StageMissingError",
    "StorageError",
    "UnknownPlatformError",
]


class SebsError(Exception):
    """The root of all errors that sebs raises on purpose. Its text is meant for the person at the keyboard."""

    exit_status = 3
    """What the command line exits with: 2 for a mistake of the caller, 3 when the platform or machine could not."""


class PluginError(SebsError):
    """A plugin cannot be loaded or does not keep the contract of the hooks."""


class UnknownPlatformError(PluginError):
    """No installed plugin offers the platform that was asked for."""

    exit_status = 2


class StageMissingError(PluginError):
    """Nobody implements a stage that was needed."""


class ConfigError(SebsError):
    """Something a person wrote is wrong: an option, a setting, the name of a benchmark, a size, a version."""

    exit_status = 2


class CredentialsError(ConfigError):
    """The provider was not given an identity, or refused it."""


class PackagingError(SebsError):
    """The package of a benchmark could not be built."""


class DeployError(SebsError):
    """The platform did not take the function."""


class FunctionGoneError(DeployError):
    """A function that was deployed before cannot be used any more; the message is the reason."""


class InvokeError(SebsError):
    """The function could not be reached at all. A function that fails is a row with its error instead."""


class MetricsError(SebsError):
    """The platform's own numbers could not be had."""


class StorageError(SebsError):
    """Data of a benchmark or of a result could not be stored or read."""


class CacheError(SebsError):
    """The cache folder cannot be read or written."""
