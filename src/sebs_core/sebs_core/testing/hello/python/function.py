"""Does what its event says."""

import os
import time

VERSION = 1


def handler(event):
    """Sleep, print, fail or end as told; answer with the value, the version of this code, and parts of the environment."""
    time.sleep(event.get("sleep_ms", 0) / 1000)
    if "print" in event:
        print(event["print"], flush=True)
    if "fail" in event:
        raise ValueError(event["fail"])
    if "crash" in event:
        os._exit(event["crash"])
    environment = {name: os.environ.get(name) for name in event.get("environment", [])}
    return {"result": event.get("value"), "version": VERSION, "environment": environment}
