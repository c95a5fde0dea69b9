"""Inputs and output check of 110.dynamic-html."""

import re

LENGTHS = {"test": 10, "small": 1_000, "large": 100_000}
SIZES = tuple(LENGTHS)


def generate_input(size):
    return {"username": "testname", "random_len": LENGTHS[size], "seed": 42}


def check_output(payload, output):
    page = output.get("result") if isinstance(output, dict) else None
    if not isinstance(page, str):
        return f"the result should be a page, the output is {output!r:.100}"
    if f"Welcome, {payload['username']}!" not in page:
        return "the greeting is missing"
    if not re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page):
        return "the time is missing"
    found = [int(number) for number in re.findall(r"<li>(\d+)</li>", page)]
    expected = numbers(payload.get("seed", 42), payload["random_len"])
    if len(found) != len(expected):
        return f"the page lists {len(found)} numbers instead of {len(expected)}"
    return None if found == expected else "the numbers are not those of this seed"


def numbers(seed, count):
    """The generator of the workload: the same sequence in every language (Park, Miller and Stockmeyer 1993)."""
    made, state = [], seed
    for _ in range(count):
        state = state * 48271 % 2147483647
        made.append(state % 1_000_000)
    return made
