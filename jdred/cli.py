"""What the user types: one subcommand = one dataclass + one function.

Only the settings are imported here; a command imports what it needs when it runs, so that help comes at once.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from jdred.commands import files, libopus, network
from jdred.config import ModelKind, ReceiverConfig, SenderConfig, TrainConfig

if TYPE_CHECKING:
    import numpy as np

TOTAL = SenderConfig(lbrr_bps=16_000, dred_duration_ms=1040, dred_every=4, level=3, slope=3)
"""What the demo spends; see ``link.plan``."""


@dataclass(frozen=True)
class Demo:
    """Send the bundled clip over a bad network in five configurations and make a page of what is heard."""

    out: Path = Path("jdred-demo")
    """Folder for report.html, summary.json and the sounds."""
    models: str = "default"
    """Set of models: a shipped name or a path."""


@dataclass(frozen=True)
class Simulate:
    """The same with a sound file of your own."""

    file: Positional[Path]
    """Speech of any rate, channel count and format that soundfile reads."""
    out: Path
    """Folder for report.html, summary.json and the sounds."""
    loss: float = 0.2
    """Fraction of packets lost, 0 .. 1."""
    burst_ms: float = 120
    """Mean length of a gap; 0: every packet is lost on its own."""
    trace: Path | None = None
    """Text file of the digits 0 and 1 (1 = lost), one a packet, in place of --loss and --burst-ms."""
    bitrate_bps: int = TOTAL.bitrate_bps
    """Rate of the Opus core alone."""
    lbrr_bps: int = TOTAL.lbrr_bps
    """What LBRR may take on top."""
    duration_ms: int = TOTAL.dred_duration_ms
    """How far redundancy reaches back, 0 .. 1040, in steps of 40."""
    every: int = TOTAL.dred_every
    """One of so many packets carries it."""
    level: int = TOTAL.level
    """Quantiser level of the newest redundancy, 0 (finest) .. 15."""
    slope: int = TOTAL.slope
    """0 .. 7: how fast redundancy becomes coarser with age."""
    max_level: int = TOTAL.max_level
    """The coarsest level."""
    playout_delay_ms: int = ReceiverConfig.playout_delay_ms
    """How long a gap may wait for the packet that repairs it."""
    seed: int = 0
    """Of the loss and of the vocoder."""
    models: str = "default"
    """Set of models: a shipped name or a path."""


@dataclass(frozen=True)
class Doctor:
    """Say what is installed and whether it works."""


@dataclass(frozen=True)
class Fetch:
    """Download the speech of the shipped models: Debian packages, unpacked, not installed."""

    cache: Path | None = None
    """Where to (default: $JDRED_CACHE, else ~/.cache/jdred)."""


@dataclass(frozen=True)
class Build:
    """Clean speech and store it as one array a part."""

    out: Path
    """Folder for the arrays."""
    audio: Path | None = None
    """Folder of audio, its sub-folders named after voices; default: what `corpus fetch` brought."""
    cache: Path | None = None
    """Where `corpus fetch` put it (default: $JDRED_CACHE, else ~/.cache/jdred)."""


@dataclass(frozen=True)
class Prepare:
    """Augment built speech and compute its features, for training."""

    corpus: Path
    """Folder that `corpus build` wrote."""
    out: Path
    """Folder for the training arrays."""
    passes: int = 3
    """How many differently augmented epochs to write."""
    pitch: str | None = None
    """Pitch network of the features, a shipped name or a path; by default the classical tracker."""
    seed: int = 0
    cache: Path | None = None
    """Where `corpus fetch` put its background music, if it did."""


@dataclass(frozen=True)
class Train:
    """Train one of the networks; an interrupted run goes on where it was."""

    kind: Positional[Literal[ModelKind, "lossgen"]]
    config: OmitArgPrefixes[TrainConfig]


def demo(args: Demo) -> None:
    """``jdred demo``."""
    from jdred.assets import demo_clip_path, demo_trace_path
    from jdred.evaluation.clips import read_clip
    from jdred.link.channel import read_trace

    pcm, lost = read_clip(demo_clip_path()), read_trace(demo_trace_path())
    _compare("Sense and Sensibility over a bad network", pcm, lost, args.models, TOTAL, ReceiverConfig(), args.out)


def simulate(args: Simulate) -> None:
    """``jdred simulate``."""
    from jdred.evaluation.clips import read_clip
    from jdred.evaluation.compare import packets_of
    from jdred.link.channel import draw_trace, read_trace

    pcm = read_clip(args.file)
    if args.trace is not None:
        lost = read_trace(args.trace)
    else:
        lost = draw_trace(packets_of(len(pcm)), args.loss, args.burst_ms or None, seed=args.seed)
    sender = SenderConfig(
        bitrate_bps=args.bitrate_bps,
        lbrr_bps=args.lbrr_bps,
        dred_duration_ms=args.duration_ms,
        dred_every=args.every,
        level=args.level,
        slope=args.slope,
        max_level=args.max_level,
    )
    receiver = ReceiverConfig(playout_delay_ms=args.playout_delay_ms, seed=args.seed)
    _compare(args.file.name, pcm, lost, args.models, sender, receiver, args.out)


def _compare(
    title: str,
    pcm: "np.ndarray",
    lost: "np.ndarray",
    models: str,
    sender: SenderConfig,
    receiver: ReceiverConfig,
    out: Path,
) -> None:
    """Run all configurations and write ``out``, whole or not at all."""
    from jdred import load
    from jdred.evaluation.clips import check_folder, wav_bytes, written_whole
    from jdred.evaluation.compare import run_configurations
    from jdred.evaluation.report import page
    from jdred.progress import counter

    check_folder(out)
    comparison = run_configurations(pcm, lost, load(models), sender, receiver, counter)
    with written_whole(out) as folder:
        for name, outcome in comparison.outcomes.items():
            (folder / f"{name}.wav").write_bytes(wav_bytes(outcome.pcm))
        settings = {"models": models, "sender": asdict(sender), "receiver": asdict(receiver)}
        summary = comparison.summary() | {"settings": settings}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
        (folder / "report.html").write_text(page(title, comparison, sender, receiver), encoding="utf-8")
    print(comparison.table())
    print(f"open {out / 'report.html'}")


def doctor(args: Doctor) -> int:
    """``jdred doctor``: status 1 where the demo could not run."""
    from jdred.evaluation.doctor import examine

    lines, well = examine()
    print("\n".join(f"{name:<12}{found}" for name, found in lines))
    return 0 if well else 1


def fetch(args: Fetch) -> None:
    """``jdred corpus fetch``."""
    from jdred.training import sources

    print(sources.fetch(args.cache or sources.cache_folder()))


def build(args: Build) -> None:
    """``jdred corpus build``."""
    from jdred.training import corpus, sources

    packages = (args.cache or sources.cache_folder()) / "packages"
    found = sources.scan_packages(packages) if args.audio is None else sources.scan_folder(args.audio)
    if not found:
        raise FileNotFoundError(f"no speech in {packages}: run `jdred corpus fetch` first, or give --audio")
    for part, counts in corpus.build(found, args.out).items():
        print(f"{part}: " + ", ".join(f"{number} {reason}" for reason, number in counts.items()))


def prepare(args: Prepare) -> None:
    """``jdred corpus prepare``."""
    from jdred.models import load_extractor
    from jdred.training import sources
    from jdred.training.prepare import prepare

    music = sources.music_files((args.cache or sources.cache_folder()) / "packages")
    extractor = load_extractor(args.pitch)
    for folder in prepare(args.corpus, args.out, args.passes, args.seed, music, extractor=extractor):
        print(folder)


def train(args: Train) -> None:
    """``jdred train``."""
    from jdred.training.run import train

    for name, value in train(args.kind, args.config).items():
        print(f"{name}: {value:.5g}")


RUN: dict[type, Callable[[Any], int | None]] = {
    Demo: demo,
    Simulate: simulate,
    Doctor: doctor,
    Fetch: fetch,
    Build: build,
    Prepare: prepare,
    Train: train,
    **files.RUN,
    **libopus.RUN,
    **network.RUN,
}
Corpus = (
    Annotated[Fetch, subcommand("fetch")]
    | Annotated[Build, subcommand("build")]
    | Annotated[Prepare, subcommand("prepare")]
)
Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Simulate, subcommand("simulate")]
    | Annotated[files.Encode, subcommand("encode")]
    | Annotated[files.Decode, subcommand("decode")]
    | Annotated[files.Inspect, subcommand("inspect")]
    | Annotated[network.Send, subcommand("send")]
    | Annotated[network.Receive, subcommand("receive")]
    | Annotated[network.Proxy, subcommand("proxy")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[Corpus, subcommand("corpus", description="Speech to train on: fetch, build, prepare.")]
    | Annotated[Train, subcommand("train")]
    | Annotated[libopus.ImportLibopus, subcommand("import-libopus")]
    | Annotated[libopus.ExportLibopus, subcommand("export-libopus")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0, 1 where it failed (one line on stderr), 2 for wrong usage."""
    try:
        args = _parse(arguments)
    except UsageError as error:
        return _complain(f"{error} (see jdred --help)", 2)
    try:
        return RUN[type(args)](args) or 0
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        return _complain(str(error) or type(error).__name__, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


class UsageError(ValueError):
    """Arguments that make no command."""


def _parse(arguments: Sequence[str] | None) -> Any:
    """The command as its dataclass; tyro's boxed complaint becomes the first sentence of it."""
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(Command, prog="jdred", description="Speech that survives bad networks.", args=arguments)
    except SystemExit as leaving:
        if leaving.code != 2:
            raise
    inside = [line.strip("│ ").strip() for line in boxed.getvalue().splitlines()[1:-1]]
    rule = next((i for i, line in enumerate(inside) if line.startswith("─")), len(inside))
    raise UsageError(" ".join(inside[:rule]))


def _complain(message: str, status: int) -> int:
    print("jdred: " + " ".join(message.split()), file=sys.stderr)
    return status
