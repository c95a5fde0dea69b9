"""The tree of errors."""

import re

import pytest

from sebs_core import errors
from sebs_core.errors import SebsError

CLASSES = {name: thing for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, Exception)}


def drawn_tree():
    """Class → parent, as the docstring of the module draws it."""
    parents, path = {}, {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path[depth] = found[2]
            parents[found[2]] = path[depth - 1] if depth else None
    return parents


def test_the_tree_in_the_docstring_is_the_real_tree():
    real = {name: thing.__base__.__name__ if thing is not SebsError else None for name, thing in CLASSES.items()}
    assert drawn_tree() == real


def test_every_error_is_exported_and_explained():
    assert sorted(errors.__all__) == sorted(CLASSES)
    for thing in CLASSES.values():
        assert thing.__doc__


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_mistakes_of_the_caller_exit_with_2_and_all_others_with_3(name):
    of_the_caller = {"ConfigError", "CredentialsError", "UnknownPlatformError"}
    assert CLASSES[name].exit_status == (2 if name in of_the_caller else 3)
