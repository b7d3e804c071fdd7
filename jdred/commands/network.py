"""``jdred send``, ``receive`` and ``proxy``: a call over UDP."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import OmitArgPrefixes, Positional

from jdred.commands.sending import Sending, sender_config
from jdred.config import NetworkConfig, ReceiverConfig

if TYPE_CHECKING:
    from jdred.link.network import Network
    from jdred.link.receiver import Receiver
    from jdred.link.transport import Received, Sent


@dataclass(frozen=True)
class Send:
    """Send a sound file as a call: RTP over UDP, one packet every 20 ms."""

    file: Positional[Path]
    """Speech of any rate, channel count and format that soundfile reads."""
    to: Positional[str]
    """HOST:PORT."""
    minutes: float = 0.0
    """Repeat the file until so much was sent; 0: once."""
    sending: OmitArgPrefixes[Sending] = Sending()


@dataclass(frozen=True)
class Receive:
    """Receive a call, repair it as it comes, and write what is heard."""

    port: Positional[int]
    """UDP port."""
    out: Path
    """The .wav file, 16 kHz mono."""
    stats: Path | None = None
    """JSON file for the final statistics."""
    idle_s: float = 2.0
    """The call is over when nothing came for so long."""
    receiver: OmitArgPrefixes[ReceiverConfig] = ReceiverConfig()
    models: str = "default"
    """Set of models: a shipped name or a path."""


@dataclass(frozen=True)
class Proxy:
    """Stand between the two and be a bad network."""

    port: Positional[int]
    """UDP port to listen on."""
    to: Positional[str]
    """HOST:PORT to hand packets on to."""
    idle_s: float = 2.0
    """Over when nothing came for so long after the first packet."""
    network: OmitArgPrefixes[NetworkConfig] = NetworkConfig()


def send(args: Send) -> None:
    """``jdred send``."""
    from itertools import cycle, islice

    from jdred import load
    from jdred.evaluation.clips import read_clip
    from jdred.link import transport
    from jdred.link.call import packetize, warm_up
    from jdred.link.sender import Sender
    from jdred.progress import board

    address, blocks, models = (
        transport.parse_address(args.to),
        packetize(read_clip(args.file)),
        load(args.sending.models),
    )
    config = sender_config(args.sending, models)
    warm_up(models, config, receiver=None)
    sender, count = Sender(models, config), round(args.minutes * 60 * 50) or len(blocks)
    packets = (sender.send(block) for block in islice(cycle(blocks), count))
    with board("sent") as show:
        sent = transport.send(
            packets, address, transport.fresh_numbering(), on_slot=lambda sent: show(lambda: _sent(sent))
        )
    print("sent " + _line(_sent(sent)))


def receive(args: Receive) -> None:
    """``jdred receive``."""
    import soundfile

    from jdred import load
    from jdred.config import SAMPLE_RATE_HZ
    from jdred.evaluation.clips import check_folder, write_file
    from jdred.link import transport
    from jdred.link.call import warm_up
    from jdred.link.receiver import Receiver
    from jdred.progress import board

    check_folder(args.out.absolute().parent)
    args.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    transport.listen_on(args.port).close()  # Say so at once if it cannot be had.
    models = load(args.models)
    warm_up(models, sender=None, receiver=args.receiver)
    receiver, got = Receiver(models, args.receiver), transport.Received()
    # Written as it comes, so that a long call needs no memory and an interrupted one is not lost.
    with (
        transport.listen_on(args.port) as listening,
        soundfile.SoundFile(args.out, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="WAV") as file,
        board("call") as show,
        contextlib.suppress(KeyboardInterrupt),
    ):
        transport.receive(
            listening,
            receiver,
            file.write,
            idle_s=args.idle_s,
            on_slot=lambda got: show(lambda: _received(got, receiver)),
            got=got,
        )
    print("received " + _line(_received(got, receiver)))
    if args.stats is not None:
        write_file(args.stats, (json.dumps(statistics(got, receiver), indent=2) + "\n").encode())


def proxy(args: Proxy) -> None:
    """``jdred proxy``."""
    from jdred.link import transport
    from jdred.link.network import Network
    from jdred.progress import board

    address, network = transport.parse_address(args.to), Network(args.network)
    with transport.listen_on(args.port) as listening, board("network") as show:
        transport.relay(
            listening, address, network, args.idle_s, on_datagram=lambda network: show(lambda: _network(network))
        )
    print("network " + _line(_network(network)))


def statistics(got: "Received", receiver: "Receiver") -> dict[str, Any]:
    """All figures of a received call; what is played with nothing in hand at its end is no concealment."""
    from jdred.link.receiver import Source

    counts = receiver.counts - Counter({Source.PLC: got.idle_slots})
    sources = {str(source): counts[source] for source in sorted(counts)}
    return {
        "datagrams": got.datagrams,
        "malformed": got.malformed,
        "slots": got.slots,
        "idle_slots": got.idle_slots,
        "kbps": _kbps(got),
        "sources": sources,
        "packets": asdict(receiver.timeline.counts),
        "unreadable": receiver.unreadable,
        "waiting": receiver.waiting,
        "timing": got.timing.figures(),
    }


def _kbps(got: "Received") -> float:
    """Of what arrived, over the time that was played."""
    return 8 * got.bytes / 1000 / (0.02 * max(1, got.heard_slots))


def _received(got: "Received", receiver: "Receiver") -> dict[str, str]:
    told, timing = statistics(got, receiver), got.timing.figures()
    shares = {source: f"{count} ({count / max(1, got.heard_slots):.1%})" for source, count in told["sources"].items()}
    return {
        "seconds": f"{0.02 * got.heard_slots:.1f}",
        "kb/s": f"{told['kbps']:.1f}",
        **shares,
        **{name: str(told["packets"][name]) for name in ("late", "duplicate", "reordered", "restarts")},
        "unreadable": str(told["unreadable"]),
        "waiting": f"{20 * told['waiting']} ms",
        "work": f"{timing['work_p50_ms']:.1f} ms, p99 {timing['work_p99_ms']:.1f}, worst {timing['work_worst_ms']:.1f}",
        "behind": f"p99 {timing['late_p99_ms']:.1f} ms, worst {timing['late_worst_ms']:.1f}",
        "overruns": str(timing["overruns"]),
    }


def _sent(sent: "Sent") -> dict[str, str]:
    timing = sent.timing.figures()
    return {
        "packets": str(sent.packets),
        "kb/s": f"{sent.kbps:.1f}",
        "work": f"{timing['work_p50_ms']:.1f} ms, p99 {timing['work_p99_ms']:.1f}, worst {timing['work_worst_ms']:.1f}",
        "behind": f"p99 {timing['late_p99_ms']:.1f} ms, worst {timing['late_worst_ms']:.1f}",
        "overruns": str(timing["overruns"]),
    }


def _network(network: "Network") -> dict[str, str]:
    total = max(1, network.carried + network.lost)
    return {
        "carried": str(network.carried),
        "lost": f"{network.lost} ({network.lost / total:.1%})",
        "doubled": str(network.doubled),
    }


def _line(figures: dict[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in figures.items())


RUN: dict[type, Callable[[Any], int | None]] = {Send: send, Receive: receive, Proxy: proxy}
