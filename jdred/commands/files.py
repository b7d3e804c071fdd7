"""``jdred encode``, ``decode`` and ``inspect``: Ogg Opus files that carry redundancy."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from jdred.commands.sending import Sending, sender_config
from jdred.config import ReceiverConfig

if TYPE_CHECKING:
    from jdred.link.inspect import PacketInfo


@dataclass(frozen=True)
class Encode:
    """Write an Ogg Opus file that any player plays and that carries redundancy."""

    file: Positional[Path]
    """Speech of any rate, channel count and format that soundfile reads."""
    out: Positional[Path]
    """The .opus file."""
    sending: OmitArgPrefixes[Sending] = Sending()


@dataclass(frozen=True)
class Decode:
    """Play an Ogg Opus file of any encoder's through a loss, repair it, and write what is heard."""

    file: Positional[Path]
    """The .opus file."""
    out: Positional[Path]
    """The .wav file, 16 kHz mono."""
    trace: Path | None = None
    """Text file of the digits 0 and 1 (1 = lost), one a packet, not --loss and --burst-ms; repeated if need be."""
    loss: float = 0.0
    """Fraction of packets lost, 0 .. 1."""
    burst_ms: float = 0.0
    """Mean length of a gap; 0: every packet is lost on its own."""
    loss_seed: int = 0
    receiver: OmitArgPrefixes[ReceiverConfig] = ReceiverConfig()
    models: str = "default"
    """Set of models: a shipped name or a path."""


@dataclass(frozen=True)
class Inspect:
    """List what is in each packet of an Ogg Opus file, whoever wrote it."""

    file: Positional[Path]
    """The .opus file."""
    json: bool = False
    """JSON in place of the table."""
    models: str = "default"
    """Set of models (a shipped name or a path) whose payloads are expected."""


def encode(args: Encode) -> None:
    """``jdred encode``."""
    from jdred import load
    from jdred.evaluation.clips import read_clip, write_file
    from jdred.evaluation.compare import packets_of
    from jdred.link import files
    from jdred.progress import counter

    pcm, models = read_clip(args.file), load(args.sending.models)
    config = sender_config(args.sending, models)
    with counter("encode", packets_of(len(pcm))) as advance:
        data = files.encode(pcm, models, config, advance)
    write_file(args.out, data)
    print(f"{args.out}: {8 * len(data) / 1000 / (len(pcm) / 16_000):.1f} kb/s with the file's own headers")


def decode(args: Decode) -> None:
    """``jdred decode``."""
    from collections import Counter

    from jdred import load
    from jdred.evaluation.clips import wav_bytes, write_file
    from jdred.link import files
    from jdred.link.channel import draw_trace, read_trace
    from jdred.opus.packet import duration_ms
    from jdred.progress import counter

    opus = files.read_opus(args.file)
    if args.trace is not None:
        lost = read_trace(args.trace)
    else:
        packet_ms = duration_ms(opus.packets[0])
        lost = draw_trace(len(opus.packets), args.loss, args.burst_ms or None, packet_ms=packet_ms, seed=args.loss_seed)
    with counter("decode", len(opus.packets)) as advance:
        heard = files.decode(opus, lost, load(args.models), args.receiver, advance)
    write_file(args.out, wav_bytes(heard.pcm))
    told = Counter(heard.sources)
    print(f"{args.out}: " + ", ".join(f"{told[source]} x 20 ms {source}" for source in files.Source))


def inspect(args: Inspect) -> None:
    """``jdred inspect``."""
    from jdred import load
    from jdred.link.files import read_opus
    from jdred.link.inspect import inspect_all, totals

    opus = read_opus(args.file)
    infos = list(inspect_all(opus.packets, load(args.models).payloads))
    if args.json:
        found = {"file": str(args.file), "head": opus.head._asdict(), "totals": totals(infos)}
        print(json.dumps(found | {"packets": [info.as_dict() for info in infos]}, indent=2, allow_nan=False))
        return
    _show(infos)
    print("  ".join(f"{name} {value:.4g}" for name, value in totals(infos).items()))


COLUMNS: dict[str, Callable[["PacketInfo"], str]] = {
    "packet": lambda p: str(p.number),
    "s": lambda p: f"{p.time_ms / 1000:.2f}",
    "mode": lambda p: f"{p.mode} {p.bandwidth}" if p.valid else "invalid",
    "ms": lambda p: f"{p.duration_ms:g}",
    "bytes": lambda p: str(p.bytes),
    "kb/s": lambda p: f"{p.kbps:.1f}",
    "LBRR": lambda p: "yes" if p.lbrr else "",
    "DRED bytes": lambda p: str(p.redundancy.bytes) if p.redundancy else "unreadable" if p.unreadable else "",
    "covers ms": lambda p: f"{p.redundancy.from_ms:g} .. {p.redundancy.to_ms:g}" if p.redundancy else "",
    "q0 dQ qmax": lambda p: f"{p.redundancy.q0} {p.redundancy.slope} {p.redundancy.qmax}" if p.redundancy else "",
    "state bits": lambda p: f"{p.redundancy.state_bits:.0f}" if p.redundancy else "",
    "bits a chunk": lambda p: " ".join(f"{bits:.0f}" for bits in p.redundancy.chunk_bits) if p.redundancy else "",
}


def _show(infos: list["PacketInfo"]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, box=None, header_style="bold")
    for info in infos:
        table.add_row(*(column(info) for column in COLUMNS.values()))
    console = Console()
    # A file or a pipe has no width: nothing is to be folded there.
    (console if console.is_terminal else Console(width=240)).print(table)


RUN: dict[type, Callable[[Any], int | None]] = {Encode: encode, Decode: decode, Inspect: inspect}
