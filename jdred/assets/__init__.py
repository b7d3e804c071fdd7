"""What is bundled to try things at once: ten seconds of speech and a loss trace as long (see ``demo.md``)."""

from importlib import resources
from pathlib import Path


def demo_clip_path() -> Path:
    """The demo clip: 504 packets (10.08 s) of one reader, 16 kHz mono, 16-bit FLAC, public domain."""
    return Path(str(resources.files(__name__) / "demo.flac"))


def demo_trace_path() -> Path:
    """The demo loss trace: one digit a line, 1 = lost, one line per packet of the demo clip."""
    return Path(str(resources.files(__name__) / "demo_trace.txt"))
