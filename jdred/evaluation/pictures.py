"""Pictures inside a page: spectrograms as PNG files, and files as data URIs."""

import base64
import io

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from PIL import Image

from jdred.evaluation.metrics import WINDOW, spectrogram

RANGE_DB = 70.0
"""Spectrograms go so far below the loudest point of the original."""
LEAST_TOP_DB = -60.0
"""Silence is to look like silence."""
MAX_COLUMNS = 4000
"""Of a spectrogram picture."""


def data_uri(kind: str, data: bytes) -> str:
    """A file of a MIME type, for ``src``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def spectrogram_png(
    pcm: Float[np.ndarray, "samples"],
    reference: Float[np.ndarray, "samples"],
    begin: int = 0,
    end: int | None = None,
) -> bytes:
    """A picture without axes, 0 to 8 kHz upwards, as wide as the clip; levels relative to the reference's loudest.

    Args:
      begin, end: samples of the clip to show.
    """
    top = max(10 * np.log10(spectrogram(_centred(reference)).max() + 1e-12), LEAST_TOP_DB)
    shown = _centred(pcm)[begin : WINDOW + (len(pcm) if end is None else end)]
    level = 10 * np.log10(_narrowed(spectrogram(shown)) + 1e-12)
    shade = np.uint8(255 * np.clip((level.T - top) / RANGE_DB + 1, 0, 1))
    # With a palette the file is a third as large; the picture's first row is the highest frequency.
    picture, file = Image.fromarray(np.ascontiguousarray(shade[::-1])), io.BytesIO()
    picture.putpalette(colormaps["magma"](np.arange(256), bytes=True)[:, :3].tobytes())
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _centred(pcm: np.ndarray) -> np.ndarray:
    """With half a window on both sides, so that column k shows what is around its own time."""
    return np.pad(pcm, WINDOW // 2)


def _narrowed(power: Float[np.ndarray, "columns bins"]) -> Float[np.ndarray, "fewer bins"]:
    """Maximum over neighbouring columns where the picture would be too wide."""
    together = -(-len(power) // MAX_COLUMNS)
    power = np.pad(power, ((0, -len(power) % together), (0, 0)))
    return power.reshape(-1, together, power.shape[1]).max(1)
