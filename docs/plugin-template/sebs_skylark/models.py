"""What can be set, what is kept of a function beside what core keeps of all, and what the platform can do."""

import sys

import sebs_core as sebs
from pydantic import Field, SecretStr


class SkylarkSettings(sebs.Settings):
    endpoint: str = Field(pattern="^https?://", description="Address of the API, without a path.")
    region: str = "north"
    token: SecretStr
    request_timeout_s: float = Field(default=10, gt=0, description="Seconds without an answer after which a call is repeated.")
    of_client = frozenset({"endpoint", "request_timeout_s"})  # a function is the same, however it was reached


class SkylarkFunction(sebs.Function, tag="skylark"):
    url: str = ""  # with a default, so that records of a version without this field can be read


PY = sebs.LanguageSupport("python", ["{}.{}".format(*sys.version_info)])  # the emulator's own; write here what yours has
CAPABILITIES = sebs.Capabilities([PY], ["http"], memory_mb=(128, 4096), timeout_s=(1, 900), cold_start=True, asynchronous=True)
