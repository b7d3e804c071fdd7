"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], label: str, total: int, done: int = 0, line_seconds: float = 10.0) -> Iterator[Item]:
    """Hand on the items and show how far they are.

    Args:
      total: how many there are in all, those already ``done`` by an earlier run included.
      line_seconds: how often a plain line is printed where there is no terminal.
    """
    with counter(label, total, done, line_seconds) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def counter(label: str, total: int, done: int = 0, line_seconds: float = 10.0) -> Iterator[Callable[[], None]]:
    """The same for work that calls back: a function to call after each of ``total`` steps."""
    with (_bar if sys.stderr.isatty() else _lines)(label, total, done, line_seconds) as advance:
        yield advance


@contextmanager
def board(label: str, line_seconds: float = 10.0) -> Iterator[Callable[[Callable[[], dict[str, str]]], None]]:
    """Figures of something that runs on: a table that is rewritten on a terminal, a plain line now and then elsewhere.

    Yields a function that may be called as often as one likes: it asks for the figures only when they are to be shown.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    terminal = sys.stderr.isatty()
    live = Live(console=Console(stderr=True), auto_refresh=False) if terminal else nullcontext()
    interval, last = 0.25 if terminal else line_seconds, time.monotonic()
    with live:

        def show(figures: Callable[[], dict[str, str]]) -> None:
            nonlocal last
            if time.monotonic() - last < interval:
                return
            last = time.monotonic()
            if terminal:
                table = Table(label, "", box=None, header_style="bold")
                for name, value in figures().items():
                    table.add_row(name, value)
                live.update(table, refresh=True)
            else:
                print(f"{label}: " + "  ".join(f"{k} {v}" for k, v in figures().items()), file=sys.stderr, flush=True)

        yield show


@contextmanager
def _bar(label: str, total: int, done: int, _line_seconds: float) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda: bar.advance(task)


@contextmanager
def _lines(label: str, total: int, done: int, line_seconds: float) -> Iterator[Callable[[], None]]:
    begin = last = time.monotonic()
    first = done + 1

    def advance() -> None:
        nonlocal begin, done, last
        done, now = done + 1, time.monotonic()
        if done == first:
            begin = now  # The first step compiles; it says nothing of the others.
        if now - last >= line_seconds or done == total:
            left = f", {(total - done) * (now - begin) / (done - first):.0f} s left" if done > first else ""
            print(f"{label}: {done}/{total}{left}", file=sys.stderr, flush=True)
            last = now

    yield advance
