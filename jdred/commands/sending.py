"""What ``jdred encode`` and ``send`` have in common: how the bits are split."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes

from jdred.config import SenderConfig

if TYPE_CHECKING:
    from jdred.models import Models


@dataclass(frozen=True)
class Sending:
    """A sender as it is told, or as a total rate and the network ask for."""

    sender: OmitArgPrefixes[SenderConfig] = SenderConfig()
    total_kbps: float | None = None
    """Of whole packets. LBRR, DRED and what is left for the core are then chosen by --expected-loss and
    --expected-burst-ms, in place of the rates, levels and duration."""
    expected_burst_ms: float = 0.0
    """Mean length of a gap; 0: every packet is lost on its own."""
    expected_delay_ms: float = 1040.0
    """Playout delay of the receiver: longer repairs come too late."""
    models: str = "default"
    """Set of models: a shipped name or a path."""


def sender_config(args: Sending, models: "Models") -> SenderConfig:
    """The sender that is asked for. Raises ``ValueError`` for a rate, loss or burst out of range."""
    from jdred.link.plan import plan

    if args.total_kbps is None:
        return args.sender
    network = args.sender.expected_loss, args.expected_burst_ms, args.expected_delay_ms
    return plan(models, round(1000 * args.total_kbps), *network)
