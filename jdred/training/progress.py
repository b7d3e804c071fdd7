"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], label: str, total: int, done: int = 0, line_seconds: float = 10.0) -> Iterator[Item]:
    """Hand on the items and show how far they are.

    Args:
      total: how many there are in all, those already ``done`` by an earlier run included.
      line_seconds: how often a plain line is printed where there is no terminal.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, label, total=total, completed=done, console=Console(stderr=True))
        return
    begin = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= line_seconds or done + count == total:
            left = (total - done - count) * (now - begin) / count
            print(f"{label}: {done + count}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
            last = now
