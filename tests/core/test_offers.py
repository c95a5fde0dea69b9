"""Capabilities: what a platform cannot do is refused with a sentence that says what it can."""

import pytest

from sebs_core.errors import ConfigError
from sebs_core.models import FunctionConfig
from sebs_core.offers import Capabilities, LanguageSupport

CAN = Capabilities(
    languages=[
        LanguageSupport("python", ["3.12", "3.11"], system_variants=("package", "container"), architectures=("x64", "arm64")),
        LanguageSupport("python", ["3.10"], language_variant="pypy"),
    ],
    triggers=["http"],
    memory_mb=(128, 1024),
    timeout_s=(1, 900),
    cold_start=True,
)
GOOD = {
    "function_name": "f", "language": "python", "language_version": "3.11", "language_variant": "default",
    "system_variant": "container", "architecture": "arm64", "memory_mb": 128, "timeout_s": 900,
}  # fmt: skip


def test_what_the_platform_can_do_is_accepted_with_its_limits_included():
    CAN.check(FunctionConfig(**GOOD), "mine")
    CAN.check(FunctionConfig(**{**GOOD, "memory_mb": 1024, "timeout_s": 1}), "mine")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"language": "cobol"}, "mine does not run cobol (default). It runs: python (default), python (pypy)."),
        ({"language_variant": "jython"}, "mine does not run python (jython). It runs: python (default), python (pypy)."),
        ({"language_version": "2.7"}, "mine has no python version 2.7. It has: 3.12, 3.11."),
        ({"language_variant": "pypy"}, "mine has no python version 3.11. It has: 3.10."),
        ({"system_variant": "gen1"}, "mine has no system variant gen1. It has: package, container."),
        ({"architecture": "mips"}, "mine has no architecture mips. It has: x64, arm64."),
        ({"memory_mb": 127}, "memory of 127 MiB is outside what mine has: 128 to 1024."),
        ({"timeout_s": 900.5}, "timeout of 900.5 s is outside what mine has: 1 to 900."),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_it_can(changes, sentence):
    with pytest.raises(ConfigError) as refused:
        CAN.check(FunctionConfig(**{**GOOD, **changes}), "mine")
    assert str(refused.value) == sentence
