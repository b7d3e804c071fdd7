"""A few gaps of a comparison close up, before and after repair: what was said, what is heard without and with help."""

import numpy as np

from jdred.config import SAMPLE_RATE_HZ
from jdred.evaluation.compare import Comparison
from jdred.evaluation.pictures import data_uri, spectrogram_png

SHOWN = ("original", "opus_plc", "dred")
"""Configurations side by side, where there are such."""
COUNT = 3
LEAST_PACKETS = 2
AROUND_SECONDS = 0.3
"""Of sound before and after the gap."""


def close_ups(comparison: Comparison, names: dict[str, str]) -> str:
    """Up to three gaps as HTML, the loudest of those that last 40 ms or more; nothing where there is none.

    Args:
      names: of all configurations, in the order of the page's sounds.
    """
    rows = [_row(comparison, names, *gap) for gap in loudest_gaps(comparison)]
    if not rows:
        return ""
    note = "The red line marks what the network lost. Each button plays a second or so around the gap."
    return f'<section><h2>Gaps, close up</h2><p class="note">{note}</p>{"".join(rows)}</section>'


def loudest_gaps(comparison: Comparison) -> list[tuple[int, int]]:
    """First and last sample (exclusive) in the clip of the gaps to show, in the order of time."""
    original = comparison.outcomes["original"].pcm
    edges = np.flatnonzero(np.diff(np.pad(comparison.lost.astype(int), 1)))
    gaps = []
    for first, last in edges.reshape(-1, 2).tolist():
        begin, end = comparison.samples(first, last)
        if last - first >= LEAST_PACKETS and end > begin:
            gaps.append((float(np.mean(original[begin:end] ** 2)), begin, end))
    return sorted((begin, end) for _, begin, end in sorted(gaps, reverse=True)[:COUNT])


def _row(comparison: Comparison, names: dict[str, str], begin: int, end: int) -> str:
    """One gap: a picture and a button a configuration."""
    around = round(AROUND_SECONDS * SAMPLE_RATE_HZ)
    original = comparison.outcomes["original"].pcm
    start, stop = max(0, begin - around), min(len(original), end + around)
    mark = f"left:{100 * (begin - start) / (stop - start):.2f}%;width:{100 * (end - begin) / (stop - start):.2f}%"
    cells = []
    for number, (name, label) in enumerate(names.items()):
        if name in SHOWN:
            picture = spectrogram_png(comparison.outcomes[name].pcm, original, start, stop)
            cells.append(_cell(label, picture, mark, _button(number, label, start, stop)))
    length = round(1000 * (end - begin) / SAMPLE_RATE_HZ)
    return f'<h3>{begin / SAMPLE_RATE_HZ:.2f} s, {length} ms lost</h3><div class="gap">{"".join(cells)}</div>'


def _cell(label: str, picture: bytes, mark: str, button: str) -> str:
    image = f'<img alt="Spectrogram of {label} around the gap" src="{data_uri("image/png", picture)}">'
    wave = f'<div class="wave">{image}<i class="LOST" style="{mark}"></i></div>'
    return f"<figure>{wave}<figcaption>{button} {label}</figcaption></figure>"


def _button(number: int, label: str, start: int, stop: int) -> str:
    """Plays samples of the page's sound of that number."""
    begin, end = (f"{sample / SAMPLE_RATE_HZ:.3f}" for sample in (start, stop))
    place = f'data-sound="{number}" data-begin="{begin}" data-end="{end}"'
    return f'<button class="listen" aria-label="Play {label} here" {place}>&#9654;</button>'
