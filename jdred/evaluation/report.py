"""A comparison as one self-contained HTML page: players, spectrograms, timelines, figures, bit rates.

Template, style and script are ``jdred/assets/report.*``; sounds and pictures are inside the page as data URIs.
"""

from collections.abc import Iterator
from html import escape
from importlib import resources
from itertools import groupby
from string import Template

import numpy as np
from jaxtyping import Float

from jdred.config import SAMPLE_RATE_HZ, ReceiverConfig, SenderConfig
from jdred.evaluation.clips import wav_bytes
from jdred.evaluation.compare import Comparison, Outcome
from jdred.evaluation.gaps import close_ups
from jdred.evaluation.pictures import data_uri, spectrogram_png
from jdred.link.channel import burst_lengths
from jdred.link.receiver import Source

NAMES = {
    "original": ("Original", "what was said; red: packets that will be lost"),
    "clean": ("Opus, nothing lost", "what the codec alone does"),
    "opus_plc": ("Opus PLC", "stock libopus, no redundancy"),
    "lbrr": ("LBRR", "stock libopus with in-band FEC"),
    "neural_plc": ("Neural PLC", "no redundancy, our prediction and vocoder"),
    "dred": ("DRED", "neural redundancy, no LBRR"),
    "dred_lbrr": ("DRED + LBRR", "both: LBRR where it reaches, DRED elsewhere"),
}
LEGEND = {
    "GOOD": "GOOD: arrived",
    "LBRR": "LBRR: coarse copy in the next packet",
    "DRED": "DRED: spoken from redundancy",
    "PLC": "PLC: guessed",
    "LOST": "lost by the network",
}
RATES = {"CORE": "core_kbps", "LBRR": "lbrr_kbps", "DRED": "dred_kbps"}
COLUMNS = (("ESTOI", "estoi"), ("STOI", "stoi"), ("PESQ-WB", "pesq_wb"), ("PLCMOS", "plcmos"))


def page(title: str, comparison: Comparison, sender: SenderConfig, receiver: ReceiverConfig) -> str:
    """The whole page.

    Args:
      title: of the clip.
      sender, receiver: of the configuration ``dred_lbrr``, named in a note.
    """
    outcomes = comparison.outcomes
    return Template(_asset("report.html")).substitute(
        clip=escape(title),
        duration=f"{_seconds(comparison):.4f}",
        facts=_facts(comparison),
        style=_asset("report.css"),
        script=_asset("report.js"),
        choices="".join(_choice(number, name) for number, name in enumerate(outcomes, 1)),
        legend=_legend(LEGEND),
        tracks="\n".join(_track(name, comparison) for name in outcomes),
        gaps=close_ups(comparison, {name: NAMES[name][0] for name in outcomes}),
        table=_table(outcomes),
        rate_legend=_legend({"CORE": "Opus core", "LBRR": "LBRR", "DRED": "DRED"}),
        bars=_bars(outcomes),
        settings=_settings(sender, receiver),
        audio="\n".join(_audio(outcome.pcm) for outcome in outcomes.values()),
    )


def _settings(sender: SenderConfig, receiver: ReceiverConfig) -> str:
    share = "every packet" if sender.dred_every == 1 else f"one packet of {sender.dred_every}"
    return (
        f"Core of {sender.bitrate_bps / 1000:g} kb/s, redundancy of {sender.dred_duration_ms / 1000:g} s in {share}, "
        f"levels {sender.level} to {sender.max_level}, playout delay {receiver.playout_delay_ms / 1000:g} s."
    )


def gathered(title: str, pages: dict[str, str], tables: dict[str, str], pictures: dict[str, bytes]) -> str:
    """Several comparisons in one page, each in a frame of its own, under pictures and tables of figures.

    Args:
      pages: by the name of the clip, as ``page`` makes them.
      tables: plain text by heading.
      pictures: PNG files by heading.
    """
    figures = [
        f'<h2>{escape(name)}</h2><img class="figure" alt="{escape(name)}" src="{data_uri("image/png", data)}">'
        for name, data in pictures.items()
    ]
    texts = [
        f'<h2>{escape(name)}</h2><div class="scroll"><pre>{escape(text)}</pre></div>' for name, text in tables.items()
    ]
    frames = [
        f"<details{' open' if number == 0 else ''}><summary>{escape(name)}</summary>"
        f'<iframe title="{escape(name)}" srcdoc="{escape(content)}"></iframe></details>'
        for number, (name, content) in enumerate(pages.items())
    ]
    return Template(_asset("gathered.html")).substitute(
        title=escape(title), style=_asset("report.css"), figures="\n".join(figures + texts), clips="\n".join(frames)
    )


def _asset(name: str) -> str:
    return (resources.files("jdred.assets") / name).read_text(encoding="utf-8")


def _seconds(comparison: Comparison) -> float:
    return len(comparison.outcomes["original"].pcm) / SAMPLE_RATE_HZ


def _facts(comparison: Comparison) -> str:
    lost = comparison.lost
    facts = [
        f"{_seconds(comparison):.1f} s",
        f"{len(lost)} packets",
        f"{lost.sum()} lost ({100 * lost.mean():.1f} %)",
    ]
    bursts = 20 * burst_lengths(lost)
    if len(bursts):
        facts.append(f"{len(bursts)} gaps of {bursts.mean():.0f} ms on average, the longest {bursts.max()} ms")
    return " &middot; ".join(facts)


def _choice(number: int, name: str) -> str:
    return f"<button><kbd>{number}</kbd>{NAMES[name][0]}</button>"


def _legend(labels: dict[str, str]) -> str:
    return "".join(f'<span class="{kind}">{label}</span>' for kind, label in labels.items())


def _audio(pcm: Float[np.ndarray, "samples"]) -> str:
    return f'<audio preload="auto" src="{data_uri("audio/wav", wav_bytes(pcm))}"></audio>'


def _track(name: str, comparison: Comparison) -> str:
    outcome, reference = comparison.outcomes[name], comparison.outcomes["original"]
    label, what = NAMES[name]
    picture = data_uri("image/png", spectrogram_png(outcome.pcm, reference.pcm))
    rate = "16-bit PCM" if name == "original" else f"{outcome.total_kbps:.1f} kb/s"
    figures = f"ESTOI {_figure(outcome.scores['estoi'], 2)} &middot; {rate}"
    return f"""<article class="track">
<div class="head"><button class="listen" aria-label="Play {label}">&#9654;</button><h3>{label}</h3>
<span class="what">{what}</span><span class="figures">{figures}</span></div>
<div class="wave"><img alt="Spectrogram of {label}" src="{picture}">
<span class="khz">8 kHz</span><span class="khz middle">4 kHz</span>
{_timeline(_kinds(name, comparison), comparison)}<div class="cursor"></div></div>
<div class="seconds">{_ticks(_seconds(comparison))}</div>
</article>"""


def _kinds(name: str, comparison: Comparison) -> list[str]:
    """What to show of each packet: its source, or in the original what will be lost."""
    if name == "original":
        return ["LOST" if lost else "GOOD" for lost in comparison.lost]
    return [source.value for source in comparison.outcomes[name].sources]


def _timeline(kinds: list[str], comparison: Comparison) -> str:
    """One strip of colours, in seconds of the clip."""
    seconds = _seconds(comparison)
    rects = "".join(
        f'<rect class="{kind}" x="{begin:.4f}" width="{end - begin:.4f}" height="1"><title>{kind}, {begin:.2f} s: '
        f"{1000 * (end - begin):.0f} ms</title></rect>"
        for kind, begin, end in _runs(kinds, comparison)
    )
    return f'<svg viewBox="0 0 {seconds:.4f} 1" preserveAspectRatio="none" shape-rendering="crispEdges">{rects}</svg>'


def _runs(kinds: list[str], comparison: Comparison) -> Iterator[tuple[str, float, float]]:
    """``(kind, begin, end)`` of every run of equal packets, in seconds, cut to the clip."""
    first = 0
    for kind, run in groupby(kinds):
        last = first + sum(1 for _ in run)
        begin, end = comparison.samples(first, last)
        yield kind, begin / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ
        first = last


def _ticks(seconds: float) -> str:
    step = next(step for step in (0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 10**9) if seconds / step <= 11)
    # The last label would stick out.
    times = np.arange(0, 0.98 * seconds, step)
    return "".join(f'<span style="left:{100 * t / seconds:.3f}%">{t:g} s</span>' for t in times)


def _figure(value: float | None, digits: int) -> str:
    return "&ndash;" if value is None else f"{value:.{digits}f}"


def _table(outcomes: dict[str, Outcome]) -> str:
    groups = {
        "measures": [label for label, _ in COLUMNS],
        "kb/s": ["total", "core", "LBRR", "DRED"],
        "packets by source": [source.value for source in Source],
    }
    top = "".join(f'<th class="group" colspan="{len(columns)}">{group}</th>' for group, columns in groups.items())
    head = f"<tr><th></th>{top}</tr><tr><th></th>{_cells('th', tuple(groups.values()))}</tr>"
    rows = "".join(f"<tr><th>{NAMES[name][0]}</th>{_cells('td', _row(name, o))}</tr>" for name, o in outcomes.items())
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _row(name: str, outcome: Outcome) -> tuple[list[str], list[str], list[str]]:
    scores = [_figure(outcome.scores[key], 2) for _, key in COLUMNS]
    rates = [outcome.total_kbps, *(getattr(outcome, key) for key in RATES.values())]
    counts = outcome.summary()["sources"]
    if name == "original":
        return scores, [_figure(outcome.total_kbps, 0), *[""] * 3], [""] * len(Source)
    return scores, [_figure(rate, 1) for rate in rates], [str(counts[source.value]) for source in Source]


def _cells(tag: str, groups: tuple[list[str], ...]) -> str:
    cells = []
    for group in groups:
        cells += [f'<{tag} class="group">{group[0]}</{tag}>', *(f"<{tag}>{cell}</{tag}>" for cell in group[1:])]
    return "".join(cells)


def _bars(outcomes: dict[str, Outcome]) -> str:
    sent = {name: outcome for name, outcome in outcomes.items() if name != "original"}
    longest = max(outcome.total_kbps for outcome in sent.values())
    return "\n".join(_bar(NAMES[name][0], outcome, longest) for name, outcome in sent.items())


def _bar(label: str, outcome: Outcome, longest: float) -> str:
    """Parts by width; room is left for the number behind the longest bar."""
    parts = "".join(
        f'<i class="{kind}" style="width:{78 * rate / longest:.2f}%" title="{kind} {rate:.2f} kb/s"></i>'
        for kind, key in RATES.items()
        if (rate := max(getattr(outcome, key), 0.0)) > 0
    )
    return f'<div class="bar"><span>{label}</span><div>{parts}<b>{outcome.total_kbps:.1f} kb/s</b></div></div>'
