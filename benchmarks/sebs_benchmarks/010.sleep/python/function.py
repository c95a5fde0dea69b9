"""Sleep for as long as the event says."""

import time


def handler(event):
    seconds = event["sleep"]
    begin = time.perf_counter_ns()
    time.sleep(seconds)
    return {"result": seconds, "measurement": {"sleep_us": (time.perf_counter_ns() - begin) // 1000}}
