"""The shim of the fake platform: one line of JSON in, one envelope out. It runs the packaged function for real."""

# mypy: ignore-errors
import json
import os
import sys

channel = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what the function prints is its log, not its answer

from sebs_function.measured import Measured  # noqa: E402

measured = Measured()
for line in sys.stdin.buffer:
    asked = json.loads(line)
    answer = measured.call(asked["event"], asked["request_id"])
    sys.stdout.flush()
    channel.write(answer + b"\n")
    channel.flush()
