"""The event of the conformance checks: an echo."""

SIZES = ("test",)


def generate_input(size):
    """An event that is answered with its value."""
    return {"value": size}


def check_output(payload, output):
    """Whether the value came back."""
    return None if output["result"] == payload["value"] else f"{output['result']!r} came back, not {payload['value']!r}"
