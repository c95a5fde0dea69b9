"""Render a page from a template."""

import datetime
import time
from pathlib import Path

from jinja2 import Template

TEMPLATE = Path(__file__).parent / "templates" / "page.html"


def handler(event):
    begin = time.perf_counter_ns()
    template = Template(TEMPLATE.read_text())
    page = template.render(
        username=event["username"],
        cur_time=datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        random_numbers=numbers(event.get("seed", 42), event["random_len"]),
    )
    return {"result": page, "measurement": {"compute_us": (time.perf_counter_ns() - begin) // 1000}}


def numbers(seed, count):
    made, state = [], seed
    for _ in range(count):
        state = state * 48271 % 2147483647
        made.append(state % 1_000_000)
    return made
