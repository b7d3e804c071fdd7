"""Train the generator of bursty losses on synthetic ones: ``python experiments/train_lossgen.py --out DIR``.

A few minutes. Says how the traces that it draws compare with the share asked for; with ``--ship`` the weights go into
``jdred/weights``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from jdred import weights
from jdred.config import FitConfig, TrainConfig
from jdred.link.channel import burst_lengths, realised_loss
from jdred.link.lossgen import SHIPPED, draw_learned_trace, load
from jdred.training.export import hours
from jdred.training.run import train

SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
PACKETS = 50_000
CARD = """# {name}

Generator of bursty packet losses, packet by packet. {count:,} weights in half precision.

## Training

On **synthetic** losses only: mixtures of Gilbert-Elliott chains of random loss, burst length and share of single
losses, cut at a second. No network was measured, and what it draws says nothing of any. {steps} steps,
{minutes:.1f} minutes on one core; `python experiments/train_lossgen.py`.

Cross-entropy on sequences not trained on: {loss:.4f} nats a packet; independent losses of the same share:
{independent:.4f}.

## What it draws

{packets:,} packets each.

{table}
"""


@dataclass(frozen=True)
class Options:
    out: Path
    """Folder of the run."""
    fit: FitConfig = FitConfig(total_steps=650, validate_every=50, checkpoint_every=50)
    ship: bool = False


def main(options: Options) -> None:
    figures = train("lossgen", TrainConfig(options.out, fit=options.fit))
    best = options.out / "best.npz"
    table = drawn(load(best))
    print(f"loss {figures['loss']:.4f}, independent {figures['independent_loss']:.4f}\n{table}")
    if options.ship:
        ship(best, figures, table, 60 * hours(options.out))


def drawn(generator) -> str:
    """How traces of several shares come out, in Markdown."""
    lines = ["| share asked for | lost | mean burst, packets | 95 % of bursts up to | longest |", "|---" * 5 + "|"]
    for share in SHARES:
        trace = draw_learned_trace(PACKETS, share, generator=generator)
        bursts = burst_lengths(trace)
        lines.append(
            f"| {share} | {realised_loss(trace):.3f} | {bursts.mean():.2f} | {np.percentile(bursts, 95):.0f} "
            f"| {bursts.max()} |"
        )
    return "\n".join(lines)


def ship(best: Path, figures: dict[str, float], table: str, spent: float) -> None:
    """Write the shipped files."""
    arrays, config = weights.read(best)
    path = weights.FOLDER / f"{SHIPPED}.npz"
    weights.write(path, arrays, {"kind": SHIPPED, "model": config["model"], "training": config["settings"]})
    card = CARD.format(
        name=SHIPPED,
        count=sum(array.size for array in arrays.values()),
        steps=config["step"],
        minutes=spent,
        loss=figures["loss"],
        independent=figures["independent_loss"],
        packets=PACKETS,
        table=table,
    )
    path.with_suffix(".md").write_text(card)
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
