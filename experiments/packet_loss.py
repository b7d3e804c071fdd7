"""The paper's experiment: what survives a lossy network, in every configuration of redundancy.

``python experiments/packet_loss.py --clips DIR --traces DIR --out DIR [--peer CSV]`` counts in two ways. The paper's:
an Opus core of 24 kb/s, LBRR and DRED on top. Equal totals: LBRR and DRED are taken out of the core, so that all take
what plain Opus takes, and our receiver predicts what nothing repairs; there ``chosen`` is the kind of redundancy that
``jdred.plan`` takes for the loss it is told. Writes ``packet_loss.csv`` (a row a clip, loss pattern and configuration),
``packet_loss_means.csv``, tables in ``packet_loss.md``, bars (``packet_loss.png``), quality against total rate
(``rates.png``), and ``report.html`` with some clips to hear. Words are counted on English clips where there is a
recogniser. Rows measured so far are in ``OUT-unfinished.csv`` while it runs.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import tyro

from jdred.config import ReceiverConfig, SenderConfig
from jdred.evaluation import budget, compare, figures, report, tables, trials
from jdred.evaluation.clips import check_folder, clips_in, written_whole
from jdred.evaluation.patterns import PATTERNS
from jdred.evaluation.trials import Way
from jdred.link import plan
from jdred.link.receiver import Source

PAPER, EQUAL = "paper", "equal"
CORE = SenderConfig(bitrate_bps=24_000, dred_duration_ms=0)
NAMES = {
    "original": "original", "clean": "Opus, nothing lost", "opus_plc": "Opus PLC", "lbrr": "LBRR",
    "neural_plc": "neural PLC", "dred": "DRED", "dred_lbrr": "DRED + LBRR",
}  # fmt: skip
MEASURES = ("plcmos", "pesq_wb", "estoi", "wer")
COLUMNS = {
    "kind": None, "config": None, "clips": 0, "loss": 3, "total_kbps": 1, "dred_kbps": 1, "plcmos": 2, "pesq_wb": 2,
    "estoi": 3, "wer": 3, "lsd_4_7k5_db": 2, "se_plcmos": 3, "se_pesq_wb": 3, "se_estoi": 4, "share_lost_by_lbrr": 2,
    "share_lost_by_dred": 2,
}  # fmt: skip
PEER = {"original": ("original",), "clean": ("clean24",), "opus_plc": ("classic24",), "neural_plc": ("deep24",),
        "lbrr": ("lbrr24_deep", "lbrr40_deep"), "dred": ("dred24", "dred32", "dred40", "dred64"),
        "dred_lbrr": ("dred_lbrr40", "dred_lbrr64")}  # fmt: skip
"""Configurations of libopus that are like ours; of several the one of the nearest total rate."""
CURVES = ("rand20", "ge20", "ge20l")
"""Patterns of the figure over total rates, where there are such traces."""


@dataclass(frozen=True)
class Options:
    clips: Path
    """Folder of wav files."""
    traces: Path
    """Folder of loss traces ``<clip>_<kind>.txt``, one digit a packet, 1 = lost."""
    out: Path
    peer: Path | None = None
    """libopus's figures on the same clips and traces, means or by clip: ``trace``, ``config``, ``plcmos``, ..."""
    counting: tuple[str, ...] = (PAPER, EQUAL)
    totals_kbps: tuple[int, ...] = (24, 32, 40, 64)
    only: tuple[str, ...] = ()
    """Names or patterns of the clips to take; all by default."""
    kinds: tuple[str, ...] = ()
    """Kinds of traces; all by default."""
    english: str = "*_en_*"
    """Pattern of the clips whose words are counted."""
    hear: int = 3
    """Clips in the page."""
    hear_kind: str = "ge20"
    """Their loss pattern, or the last where there is no such trace."""
    processes: int = 2
    lbrr_bps: int = 16_000
    """What LBRR gets on top in the paper's count."""
    dred: SenderConfig = SenderConfig()
    """Duration and levels of the redundancy in the paper's count."""
    parts: trials.Parts = field(default_factory=trials.Parts)
    receiver: ReceiverConfig = ReceiverConfig()


def main(options: Options) -> None:
    if unknown := set(options.counting) - {PAPER, EQUAL}:
        raise SystemExit(f"expected counting {PAPER} or {EQUAL}, found {', '.join(sorted(unknown))}")
    check_folder(options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    clips = clips_in(options.clips, options.only)
    stage = trials.bench(clips, trials.read_traces(options.traces, clips, options.kinds))
    rows: list[tables.Row] = []
    kept: dict[tuple[str, str], trials.Trial] = {}
    begin, unfinished = time.perf_counter(), options.out.with_name(f"{options.out.name}-unfinished.csv")
    with trials.workers(options.parts, options.processes) as staff:
        words = trials.read_words(stage, [name for name in clips if fnmatch(name, options.english)], staff)
        for counting, total, way in ways(options, stage, staff):
            mark = time.perf_counter()
            done = trials.originals(stage) if way is None else trials.run(stage, way, staff, options.receiver)
            named = {"counting": counting, "asked_kbps": total}
            rows += [named | row for row in trials.measure(stage, done, words, staff)]
            tables.write_csv(unfinished, rows)
            print(f"{done[0].way}: {len(done)} sounds in {time.perf_counter() - mark:.0f} s", flush=True)
            if counting == PAPER:
                kept |= {(trial.way, trial.clip): trial for trial in done if is_kept(options, stage, trial)}
    print(f"{len(rows)} sounds made and measured in {time.perf_counter() - begin:.0f} s")
    write(options, stage, rows, kept)
    unfinished.unlink(missing_ok=True)


def ways(options: Options, stage: trials.Bench, staff: trials.Workers) -> Iterator[tuple[str, int, Way | None]]:
    """Way of counting, rate asked for in kb/s, and configuration (None: the clips themselves), one after another."""
    if PAPER in options.counting:
        core, lbrr = CORE, replace(CORE, lbrr_bps=options.lbrr_bps)
        redundancy = {name: getattr(options.dred, name) for name in ("dred_duration_ms", "level", "slope", "max_level")}
        yield PAPER, 256, None
        yield PAPER, 24, Way("clean", core, lossless=True)
        yield PAPER, 24, Way("opus_plc", core, stock=True)
        yield PAPER, 24, Way("lbrr", lbrr, stock=True)
        yield PAPER, 24, Way("neural_plc", core)
        yield PAPER, 24, Way("dred", replace(core, **redundancy))
        yield PAPER, 24, Way("dred_lbrr", replace(lbrr, **redundancy))
    if EQUAL in options.counting:
        for total in options.totals_kbps:
            for name in plan.KINDS:
                splits = {kind: plan.choose(total, *told, name) for kind, told in stage.told.items()}
                senders = budget.at_total_by_kind(stage, total, splits, staff)
                for sender in dict.fromkeys(senders.values()):
                    print(f"{name} at {total} kb/s: {sender}", flush=True)
                yield EQUAL, total, Way(f"{name} {total}", senders)


def is_kept(options: Options, stage: trials.Bench, trial: trials.Trial) -> bool:
    """Whether the page lets hear it."""
    kind = options.hear_kind if options.hear_kind in stage.traces else list(stage.traces)[-1]
    return trial.clip in list(stage.clips)[: options.hear] and trial.kind in (kind, trials.NO_LOSS)


def write(
    options: Options,
    stage: trials.Bench,
    rows: list[tables.Row],
    kept: dict[tuple[str, str], trials.Trial],
) -> None:
    """All files, and the tables printed."""
    by_counting = {name: [row for row in rows if row["counting"] == name] for name in options.counting}
    by_counting[EQUAL] = (equal := by_counting.get(EQUAL, [])) + budget.chosen(stage, equal)
    means = {
        PAPER: trials.summarise(by_counting.get(PAPER, []), "opus_plc"),
        EQUAL: trials.summarise(by_counting.get(EQUAL, []), f"dred {options.totals_kbps[-1]}"),
    }
    peer = {} if options.peer is None else trials.read_peer(options.peer, stage.clips)
    like = nearest(peer, means[PAPER])
    texts = {}
    if means[PAPER]:
        texts["24 kb/s core, redundancy on top"] = tables.markdown(trials.beside(means[PAPER], like), COLUMNS)
    if means[EQUAL]:
        equal = trials.beside(means[EQUAL], nearest(peer, means[EQUAL]))
        texts["Equal totals, redundancy out of the core"] = tables.markdown(equal, COLUMNS)
        texts["Best at a total rate"] = tables.markdown(budget.best(means[EQUAL]), budget.BEST_COLUMNS)
    with written_whole(options.out) as folder:
        tables.write_csv(folder / "packet_loss.csv", rows)
        tables.write_csv(folder / "packet_loss_means.csv", means[PAPER] + means[EQUAL])
        (folder / "packet_loss.md").write_text("\n".join(f"## {head}\n\n{text}" for head, text in texts.items()))
        pictures = draw(folder, stage, means, peer, like)
        pages = {clip: page(options, stage, clip, rows, kept) for clip in list(stage.clips)[: options.hear] if kept}
        (folder / "report.html").write_text(report.gathered("Packet loss", pages, texts, pictures))
    for head, text in texts.items():
        print(f"\n{head}\n\n{text}")


def nearest(peer: dict[tuple[str, str], tables.Row], means: list[tables.Row]) -> dict[tuple[str, str], tables.Row]:
    """The peer's row of each of ours: that of its like configurations with the nearest total rate."""
    found = {}
    for row in means:
        kind, config = str(row["kind"]), str(row["config"])
        alike = [peer[kind, theirs] for theirs in PEER.get(budget.base(config), ()) if (kind, theirs) in peer]
        if alike:
            found[kind, config] = min(alike, key=lambda theirs: abs(theirs["total_kbps"] - row["total_kbps"]))
    return found


def draw(
    folder: Path,
    stage: trials.Bench,
    means: dict[str, list[tables.Row]],
    peer: dict[tuple[str, str], tables.Row],
    like: dict[tuple[str, str], tables.Row],
) -> dict[str, bytes]:
    """The two pictures, where there is something to draw; their bytes by heading."""
    pictures = {}
    if means[PAPER]:
        figures.bars(folder / "packet_loss.png", means[PAPER], MEASURES, NAMES, like)
        pictures["Quality by loss pattern"] = (folder / "packet_loss.png").read_bytes()
    if means[EQUAL]:
        patterns = {kind: PATTERNS[kind].title for kind in CURVES if kind in stage.traces}
        patterns = patterns or {kind: kind for kind in list(stage.traces)[:2]}
        ours = [row | {"config": budget.base(row["config"])} for row in means[EQUAL]]
        theirs = {name: [row for (_, config), row in peer.items() if config in PEER[name]] for name in plan.KINDS}
        names = {name: NAMES[name] for name in plan.KINDS} | {budget.CHOSEN: "as the sender chooses"}
        figures.curves(folder / "rates.png", ours, MEASURES, patterns, names, theirs)
        pictures["Quality by total rate"] = (folder / "rates.png").read_bytes()
    return pictures


def page(
    options: Options,
    stage: trials.Bench,
    clip: str,
    rows: list[tables.Row],
    kept: dict[tuple[str, str], trials.Trial],
) -> str:
    """One clip in all configurations of the paper's count."""
    scores = {(row["config"], row["kind"]): row for row in rows if row["clip"] == clip}
    outcomes, plain = {}, kept["opus_plc", clip].sent.total_kbps
    packets = len(kept["opus_plc", clip].sources)
    for name in NAMES:
        trial = kept[name, clip]
        rates = trial.sent.total_kbps, trial.sent.dred_kbps
        lbrr = rates[0] - rates[1] - plain if "lbrr" in name else 0.0
        figures_of = {measure: scores[name, trial.kind][measure] for measure in compare.MEASURES}
        sources = trial.sources or [Source.GOOD] * packets
        outcomes[name] = compare.Outcome(trial.pcm, sources, rates[0], lbrr, rates[1], figures_of)
    lost = np.resize(np.asarray(stage.traces[kept["opus_plc", clip].kind][clip], bool), packets)
    comparison = compare.Comparison(lost, kept["opus_plc", clip].sent.delay_samples, outcomes)
    return report.page(clip, comparison, options.dred, options.receiver)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
