"""Inputs and output check of 010.sleep."""

SECONDS = {"test": 0.1, "small": 1.0, "large": 10.0}
SIZES = tuple(SECONDS)
CLOCK_GRAIN_US = 1000


def generate_input(size):
    return {"sleep": SECONDS[size]}


def check_output(payload, output):
    if not isinstance(output, dict) or output.get("result") != payload["sleep"]:
        return f"the result should be {payload['sleep']!r}, the output is {output!r:.100}"
    slept_us = output["measurement"]["sleep_us"]
    if slept_us < payload["sleep"] * 1e6 - CLOCK_GRAIN_US:
        return f"it slept {slept_us} us instead of {payload['sleep']} s"
    return None
