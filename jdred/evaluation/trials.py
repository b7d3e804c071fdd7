"""Clips through loss traces in any configuration of sender and receiver, measured: the workbench of the experiments.

Packets of a clip are made once and lost by every trace. What libopus does runs in worker processes, clip by clip; what
the networks of a receiver do runs for all clips and traces at once (``link.offline``), or in the processes too where
the receiver splices. The sender is told the loss and the mean gap of each kind of trace.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from jdred.config import PACKETS_PER_SECOND, ReceiverConfig, SenderConfig
from jdred.evaluation import asr, metrics, tables
from jdred.evaluation.compare import stock_receive
from jdred.evaluation.tables import Row
from jdred.link.call import encoded, rate_kbps, redundancy_bytes
from jdred.link.channel import burst_lengths, read_trace, realised_loss
from jdred.link.offline import Heard, receive_all
from jdred.link.receiver import Source
from jdred.link.sender import Sender
from jdred.models import Models, load
from jdred.progress import counter, track

NO_LOSS = "none"
TEXTS = ("clip", "kind", "config", "counting")
"""Columns of rows that are not numbers."""
MEASURES = ("plcmos", "pesq_wb", "estoi", "lsd_4_7k5_db")


@dataclass(frozen=True)
class Parts:
    """Which weights to use."""

    models: str = "default"
    """Set of models: a shipped name or a path."""
    rdovae: str | None = None
    """In place of the set's: shipped name, or .npz file."""
    vocoder: str | None = None
    predictor: str | None = None

    def load(self) -> Models:
        return load(self.models, rdovae=self.rdovae, vocoder=self.vocoder, predictor=self.predictor)


@dataclass(frozen=True)
class Way:
    """One configuration of the link."""

    name: str
    sender: SenderConfig | Mapping[str, SenderConfig]
    """For all kinds of traces, or for each."""
    stock: bool = False
    """Repaired by libopus alone."""
    lossless: bool = False

    def sender_for(self, kind: str) -> SenderConfig:
        """The sender where the traces are of a kind."""
        return self.sender if isinstance(self.sender, SenderConfig) else self.sender[kind]


class Sent(NamedTuple):
    """A clip as packets."""

    packets: list[bytes]
    delay_samples: int

    @property
    def total_kbps(self) -> float:
        return rate_kbps(np.array([len(packet) for packet in self.packets]))

    @property
    def dred_kbps(self) -> float:
        return rate_kbps(np.array([redundancy_bytes(packet) for packet in self.packets]))


class Trial(NamedTuple):
    """A clip through one trace in one configuration."""

    way: str
    clip: str
    kind: str
    pcm: Float[np.ndarray, "samples"]
    """As long as the clip and aligned with it."""
    sources: list[Source]
    sent: Sent


class Told(NamedTuple):
    """What a sender is told of its network."""

    loss: float
    """To the nearest 10 %, at least that."""
    burst_ms: float
    """Mean length of a gap."""


class Bench(NamedTuple):
    """Clips and what is lost of them."""

    clips: Mapping[str, Float[np.ndarray, "samples"]]
    traces: Mapping[str, Mapping[str, Shaped[np.ndarray, "packets"]]]
    """By kind, then by clip; 1 = lost."""
    told: Mapping[str, Told]
    """Of each kind."""


def bench(clips: Mapping[str, np.ndarray], traces: Mapping[str, Mapping[str, np.ndarray]]) -> Bench:
    """Clips with the traces of some of them; see ``read_traces``."""
    return Bench(clips, traces, {kind: _told(list(by_clip.values())) for kind, by_clip in traces.items()})


def _told(traces: Sequence[np.ndarray]) -> Told:
    loss = float(np.mean([realised_loss(trace) for trace in traces]))
    bursts = np.concatenate([burst_lengths(trace) for trace in traces])
    return Told(max(1, round(10 * loss)) / 10, 1000 / PACKETS_PER_SECOND * float(bursts.mean()) if len(bursts) else 0.0)


def read_traces(folder: Path, clips: Iterable[str], kinds: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """The traces ``<clip>_<kind>.txt`` of a folder, by kind and clip; all kinds by default.

    Raises:
      FileNotFoundError: none, or none of a kind that is asked for.
    """
    found: dict[str, dict[str, np.ndarray]] = {}
    for clip in clips:
        for path in sorted(folder.glob(f"{clip}_*.txt")):
            kind = path.stem.removeprefix(f"{clip}_")
            # A clip's name may begin like another's: a_b has the trace a_b_x.txt, which a would take for kind b_x.
            if (kind in kinds) if kinds else ("_" not in kind):
                found.setdefault(kind, {})[clip] = read_trace(path)
    missing = [kind for kind in kinds if kind not in found]
    if missing or not found:
        wanted = ", ".join(missing) or "any kind"
        raise FileNotFoundError(f"expected traces <clip>_<kind>.txt of {wanted} in {folder}, found none")
    return {kind: found[kind] for kind in (kinds or found)}


class Workers:
    """Processes that share out jobs; with one, the work is done here."""

    def __init__(self, parts: Parts, pool: ProcessPoolExecutor | None):
        self.parts, self._pool = parts, pool

    def map(self, function: Callable, jobs: Sequence[tuple], label: str) -> list:
        """``function(*job)`` of each job, in order, with progress."""
        mapped = map if self._pool is None else partial(self._pool.map, chunksize=1)
        return list(track(mapped(partial(_spread, function), jobs), label, len(jobs)))


@contextmanager
def workers(parts: Parts, processes: int):
    """Start ``processes`` of them."""
    with ExitStack() as stack:
        pool = None
        if processes > 1:
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(processes, mp_context=spawn))
        yield Workers(parts, pool)


def _spread(function: Callable, job: tuple) -> object:
    return function(*job)


_models = cache(Parts.load)


def send(parts: Parts, pcm: Float[np.ndarray, "samples"], config: SenderConfig) -> Sent:
    """A clip through the sender."""
    talking = Sender(_models(parts), config)
    return Sent(list(encoded(pcm, talking)), talking.delay_samples)


def _stock(arrived: list[bytes | None]) -> Heard:
    return Heard(*stock_receive(arrived))


def _receive(parts: Parts, arrived: list[bytes | None], config: ReceiverConfig) -> Heard:
    return receive_all(_models(parts), [arrived], config)[0]


def run(stage: Bench, way: Way, staff: Workers, receiver: ReceiverConfig = ReceiverConfig()) -> list[Trial]:
    """All clips and traces in one configuration; one trial a clip, of kind ``none``, where nothing is lost."""
    sent = send_all(stage, way, staff)
    streams = [_arrived(stage, sent[run], *run) for run in sent]
    if way.stock or way.lossless:
        heard = staff.map(_stock, [(stream,) for stream in streams], f"{way.name}: playing")
    elif receiver.splice:  # Then streams do not go side by side; processes do.
        jobs = [(staff.parts, stream, receiver) for stream in streams]
        heard = staff.map(_receive, jobs, f"{way.name}: playing")
    else:
        with counter(f"{way.name}: decoding", len(streams)) as advance:
            heard = receive_all(_models(staff.parts), streams, receiver, advance)
    trials = []
    for ((kind, clip), packets), (pcm, sources) in zip(sent.items(), heard, strict=True):
        pcm = pcm[packets.delay_samples :][: len(stage.clips[clip])]
        trials.append(Trial(way.name, clip, kind, pcm, sources, packets))
    return trials


def send_all(stage: Bench, way: Way, staff: Workers) -> dict[tuple[str, str], Sent]:
    """What is sent, by kind and clip; traces whose loss is told alike share it."""
    if way.lossless:
        configs = {(NO_LOSS, clip): replace(way.sender_for(NO_LOSS), expected_loss=0.0) for clip in stage.clips}
    else:
        pairs = ((kind, clip) for kind, by_clip in stage.traces.items() for clip in by_clip)
        told = {kind: replace(way.sender_for(kind), expected_loss=told.loss) for kind, told in stage.told.items()}
        configs = {(kind, clip): told[kind] for kind, clip in pairs}
    once = list(dict.fromkeys((clip, config) for (_, clip), config in configs.items()))
    jobs = [(staff.parts, stage.clips[clip], config) for clip, config in once]
    sent = dict(zip(once, staff.map(send, jobs, f"{way.name}: sending"), strict=True))
    return {(kind, clip): sent[clip, config] for (kind, clip), config in configs.items()}


def _arrived(stage: Bench, sent: Sent, kind: str, clip: str) -> list[bytes | None]:
    """The packets of a clip that its trace leaves; the trace is repeated from its start where it is too short."""
    if kind == NO_LOSS:
        return list(sent.packets)
    lost = np.resize(stage.traces[kind][clip], len(sent.packets))
    return [None if gone else packet for packet, gone in zip(sent.packets, lost, strict=True)]


def originals(stage: Bench) -> list[Trial]:
    """The clips themselves, at the rate of 16-bit PCM, as a configuration ``original``."""
    return [Trial("original", clip, NO_LOSS, pcm, [], Sent([bytes(640)], 0)) for clip, pcm in stage.clips.items()]


def read_words(stage: Bench, english: Sequence[str], staff: Workers) -> dict[str, list[str]]:
    """What a recogniser reads in the originals of English clips; nothing where there is none."""
    if not asr.available() or not english:
        return {}
    read = staff.map(asr.transcribe, [(stage.clips[clip],) for clip in english], "reading the originals")
    return dict(zip(english, read, strict=True))


def measure(stage: Bench, trials: Sequence[Trial], words: Mapping[str, list[str]], staff: Workers) -> list[Row]:
    """A row of figures a trial: measures, word errors, rates, and how lost packets were repaired."""
    jobs = [(stage.clips[trial.clip], trial.pcm, words.get(trial.clip)) for trial in trials]
    label = f"{trials[0].way}: measuring" if trials else "measuring"
    return [
        _row(trial, scores) for trial, scores in zip(trials, staff.map(score, jobs, label), strict=True)
    ]  # fmt: skip


def score(
    reference: Float[np.ndarray, "samples"], heard: Float[np.ndarray, "samples"], expected: list[str] | None
) -> Row:
    """The measures, and the word errors where words are expected."""
    scores = dict(metrics.score(reference, heard))
    if expected:
        scores |= {"word_errors": asr.word_edits(expected, asr.transcribe(heard)), "words": len(expected)}
    return scores


def _row(trial: Trial, scores: Row) -> Row:
    lost = max(1, sum(source != Source.GOOD for source in trial.sources))
    shares = {
        f"share_lost_by_{source.lower()}": trial.sources.count(source) / lost
        for source in (Source.LBRR, Source.DRED, Source.PLC)
    }
    rates = {"total_kbps": trial.sent.total_kbps, "dred_kbps": trial.sent.dred_kbps}
    loss = float(np.mean([source != Source.GOOD for source in trial.sources])) if trial.sources else 0.0
    return {"clip": trial.clip, "kind": trial.kind, "config": trial.way, **scores, **rates, "loss": loss, **shares}


def summarise(rows: Sequence[Row], reference: str) -> list[Row]:
    """Means by kind and configuration; ``se_<measure>`` is the standard error of the paired difference to another.

    Args:
      reference: that other configuration; pairs are of one clip and one kind.
    """
    by_pair = {(row["config"], row["kind"], row["clip"]): row for row in rows}
    means = []
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    pairs = dict.fromkeys((row["kind"], row["config"]) for row in rows)
    for kind, config in sorted(pairs, key=lambda pair: kinds.index(pair[0])):
        of = [row for row in rows if (row["kind"], row["config"]) == (kind, config)]
        names = [name for name in dict.fromkeys(n for row in of for n in row) if name not in TEXTS]
        mean: Row = {"kind": kind, "config": config, "clips": len(of)}
        mean |= {name: tables.mean(tables.column(of, name)) for name in names if not name.startswith("word")}
        expected = tables.column(of, "words")
        if np.isfinite(expected).any():
            mean |= {"wer": float(np.nansum(tables.column(of, "word_errors")) / np.nansum(expected)),
                     "words": int(np.nansum(expected))}  # fmt: skip
        others = [by_pair.get((reference, kind, row["clip"]), {}) for row in of]
        for name in MEASURES:
            mean[f"se_{name}"] = tables.paired_error(tables.column(of, name), tables.column(others, name))
        means.append(mean)
    return means


def read_peer(path: Path, clips: Iterable[str]) -> dict[tuple[str, str], Row]:
    """Another codec's means on the same traces, by kind and its own configuration.

    Args:
      path: CSV with columns ``trace``, ``config`` and the measures: means (of several ``clip_set`` those of ``all``),
        or a row a ``clip``, of which means over our clips are taken.
    """
    rows, wanted = tables.read_csv(path), set(clips)
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("clip_set", "all") == "all" and ("clip" not in row or row["clip"] in wanted):
            found.setdefault((str(row["trace"]), str(row["config"])), []).append(row)
    return {key: _peer_mean(of) | {"kind": key[0], "config": key[1]} for key, of in found.items()}


def _peer_mean(rows: Sequence[Row]) -> Row:
    loss = "realised_loss" if "realised_loss" in rows[0] else "lossrate"
    mean: Row = {name: tables.mean(tables.column(rows, name)) for name in (*MEASURES, "total_kbps", "dred_kbps", "wer")}
    mean |= {"loss": tables.mean(tables.column(rows, loss)), "clips": rows[0].get("clips", len(rows))}
    errors, words = tables.column(rows, "word_edits"), tables.column(rows, "words")
    if np.isfinite(errors).any():
        mean["wer"] = float(np.nansum(errors) / np.nansum(words[np.isfinite(errors)]))
    return mean


def like_ours(peer: Mapping[tuple[str, str], Row], theirs: Mapping[str, str]) -> dict[tuple[str, str], Row]:
    """The peer's rows by kind and our configuration, where ``theirs`` names the one that each of ours is like."""
    kinds = dict.fromkeys(kind for kind, _ in peer)
    return {(kind, ours): peer[kind, name] for kind in kinds for ours, name in theirs.items() if (kind, name) in peer}


def beside(means: Sequence[Row], peer: Mapping[tuple[str, str], Row]) -> list[Row]:
    """Every row of ours, followed by the peer's where there is one."""
    rows: list[Row] = []
    for row in means:
        rows.append(row)
        if (theirs := peer.get((row["kind"], row["config"]))) is not None:
            rows.append(theirs | {"config": f"libopus {theirs['config']}"})
    return rows
