"""One clip and one loss trace through five configurations of the link, each measured: what the demo shows.

``original`` is what was said; ``opus_plc`` and ``lbrr`` are stock libopus without and with its in-band FEC; ``dred``
and ``dred_lbrr`` repair with redundancy. All spend the same rate on the Opus core.
"""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jdred import opus
from jdred.config import PACKET_SAMPLES, SAMPLE_RATE_HZ, ReceiverConfig, SenderConfig
from jdred.evaluation import metrics
from jdred.link.call import Call, call, encoded
from jdred.link.receiver import Source
from jdred.link.sender import Sender
from jdred.models import Models

CONFIGURATIONS = ("original", "opus_plc", "lbrr", "dred", "dred_lbrr")
MEASURES = ("estoi", "stoi", "pesq_wb", "plcmos")
PCM_KBPS = 16 * SAMPLE_RATE_HZ / 1000

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Shows progress: label and number of steps to a context that gives a function to call after each step."""


class Outcome(NamedTuple):
    """What one configuration made of the clip."""

    pcm: Float[np.ndarray, "samples"]
    """As long as the original and aligned with it."""
    sources: list[Source]
    """Of every packet."""
    total_kbps: float
    """Of the original: 16-bit PCM."""
    lbrr_kbps: float
    """What the Opus core takes more than without LBRR."""
    dred_kbps: float
    scores: dict[str, float | None]
    """By the names in ``MEASURES``; None where a measure is not installed or finds nothing to measure."""

    @property
    def core_kbps(self) -> float:
        return self.total_kbps - self.lbrr_kbps - self.dred_kbps

    def summary(self) -> dict[str, Any]:
        """As it stands in ``summary.json``."""
        counts = Counter(self.sources)
        rates = {name: getattr(self, name) for name in ("total_kbps", "lbrr_kbps", "dred_kbps")}
        packets = {"packets": len(self.sources), "lost": len(self.sources) - counts[Source.GOOD]}
        return {**self.scores, **rates, **packets, "sources": {source.value: counts[source] for source in Source}}


class Comparison(NamedTuple):
    """All configurations side by side."""

    lost: Bool[np.ndarray, "packets"]
    delay_samples: int
    """Packet k is heard from sample 320 k - delay on."""
    outcomes: dict[str, Outcome]
    """By the names in ``CONFIGURATIONS``, in their order."""

    def samples(self, first: int, last: int) -> tuple[int, int]:
        """Where packets ``first`` to ``last`` (exclusive) are heard, cut to the clip."""
        begin, end = (PACKET_SAMPLES * packet - self.delay_samples for packet in (first, last))
        return max(begin, 0), min(end, len(self.outcomes["original"].pcm))

    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds."""
        return {"configs": {name: outcome.summary() for name, outcome in self.outcomes.items()}}

    def table(self) -> str:
        """The figures as plain text."""
        lines = ["".join(f"{head:>10}" for head in ("", *MEASURES, "kb/s", *Source))]
        for name, outcome in self.outcomes.items():
            scores = ("-" if outcome.scores[key] is None else f"{outcome.scores[key]:.3f}" for key in MEASURES)
            cells = name, *scores, f"{outcome.total_kbps:.1f}", *(str(outcome.sources.count(s)) for s in Source)
            lines.append("".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)


def codec_delay() -> int:
    """Samples by which decoded sound comes late."""
    with opus.Encoder() as encoder:
        return encoder.lookahead


def packets_of(samples: int) -> int:
    """How many packets a clip takes, the codec's delay included."""
    return -(-(samples + codec_delay()) // PACKET_SAMPLES)


def run_configurations(
    pcm: Float[np.ndarray, "samples"],
    lost: Shaped[np.ndarray, "trace"],
    models: Models,
    sender: SenderConfig,
    receiver: ReceiverConfig,
    progress: Progress = lambda label, total: nullcontext(lambda: None),
) -> Comparison:
    """Send a clip in every configuration and measure what is heard.

    Args:
      pcm: mono, 16 kHz, in [-1, 1], at least half a second.
      lost: 1 = lost, one entry a packet; repeated from its start where the clip is longer.
      sender: of ``dred_lbrr``; the others leave parts of it out.
      progress: shows it.
    Raises:
      ValueError: an empty trace, or settings out of range.
    """
    if len(lost) == 0:
        raise ValueError("the loss trace is empty")
    packets = packets_of(len(pcm))
    calls = {}
    for name, run in _runs(pcm, lost, models, sender, receiver).items():
        with progress(name, packets) as advance:
            calls[name] = run(advance)
    core = {name: heard.total_kbps - heard.dred_kbps for name, heard in calls.items()}
    with progress("measuring", len(CONFIGURATIONS)) as advance:
        outcomes = {"original": Outcome(pcm, [Source.GOOD] * packets, PCM_KBPS, 0.0, 0.0, measure(pcm, pcm))}
        advance()
        for name, heard in calls.items():
            lbrr_kbps = core[name] - core["opus_plc"] if "lbrr" in name else 0.0
            rates = heard.total_kbps, lbrr_kbps, heard.dred_kbps
            outcomes[name] = Outcome(heard.pcm, heard.sources, *rates, measure(pcm, heard.pcm))
            advance()
    return Comparison(np.resize(np.asarray(lost, bool), packets), codec_delay(), outcomes)


def _runs(
    pcm: np.ndarray, lost: np.ndarray, models: Models, sender: SenderConfig, receiver: ReceiverConfig
) -> dict[str, Callable[[Callable[[], None]], Call]]:
    without_dred, without_lbrr = {"dred_duration_ms": 0}, {"lbrr_bps": 0}
    return {
        "opus_plc": lambda tick: stock_call(pcm, lost, models, replace(sender, **without_dred, **without_lbrr), tick),
        "lbrr": lambda tick: stock_call(pcm, lost, models, replace(sender, **without_dred), tick),
        "dred": lambda tick: call(pcm, lost, models, replace(sender, **without_lbrr), receiver, tick),
        "dred_lbrr": lambda tick: call(pcm, lost, models, sender, receiver, tick),
    }


def stock_call(
    pcm: Float[np.ndarray, "samples"],
    lost: Shaped[np.ndarray, "trace"],
    models: Models,
    sender: SenderConfig,
    on_packet: Callable[[], None] = lambda: None,
) -> Call:
    """``call`` as libopus alone would do it: LBRR from the packet behind, else its own concealment, no networks."""
    talking = Sender(models, replace(sender, dred_duration_ms=0))
    packets = list(encoded(pcm, talking))
    arrived = [None if gone else packet for packet, gone in zip(packets, np.resize(lost, len(packets)), strict=True)]
    heard, sources = stock_receive(arrived, on_packet)
    sizes = np.array([len(packet) for packet in packets])
    return Call(heard[talking.delay_samples :][: len(pcm)], sources, sizes, np.zeros_like(sizes))


def stock_receive(
    arrived: Sequence[bytes | None], on_packet: Callable[[], None] = lambda: None
) -> tuple[Float[np.ndarray, "samples"], list[Source]]:
    """Packets, None = lost, as stock libopus plays them, the codec's delay still in."""
    heard, sources = [], []
    with opus.Decoder(complexity=0) as decoder:
        for packet, following in zip(arrived, [*arrived[1:], None], strict=True):
            samples, source = _play(decoder, packet, following)
            heard.append(samples)
            sources.append(source)
            on_packet()
    return np.concatenate(heard), sources


def _play(decoder: opus.Decoder, packet: bytes | None, following: bytes | None) -> tuple[np.ndarray, Source]:
    if packet is not None:
        return decoder.decode(packet), Source.GOOD
    if following is not None and opus.has_lbrr(following):
        return decoder.decode_lbrr(following, PACKET_SAMPLES), Source.LBRR
    return decoder.conceal(PACKET_SAMPLES), Source.PLC


def measure(original: Float[np.ndarray, "samples"], heard: Float[np.ndarray, "samples"]) -> dict[str, float | None]:
    """The scores of one clip by the names in ``MEASURES``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the packages, about clips with hardly any speech in them.
        scores = metrics.score(original, heard)
    return {
        name: scores[name] if scores[name] is not None and math.isfinite(scores[name]) else None for name in MEASURES
    }
