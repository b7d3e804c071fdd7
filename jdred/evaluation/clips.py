"""Sound files at the edge: any that soundfile reads in, 16-bit WAV out, and folders that are whole or not there."""

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from jdred.config import SAMPLE_RATE_HZ
from jdred.dsp.resample import AudioError, to_16k

SHORTEST_S = 0.5
"""Measures need so much."""


def read_clip(path: str | Path) -> Float[np.ndarray, "samples"]:
    """A file of any rate, channel count and format that soundfile reads, as 16 kHz mono in [-1, 1].

    Raises:
      AudioError: no such file, not sound, values that are not finite, or less than half a second.
    """
    path = Path(path)
    if not path.is_file():
        raise AudioError(f"{path}: expected a sound file, found {'a folder' if path.is_dir() else 'nothing'}")
    try:
        pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless formats
        raise AudioError(f"{path}: expected a sound file that soundfile reads, found something else") from error
    try:
        clip = to_16k(pcm, rate)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from error
    if len(clip) < SHORTEST_S * SAMPLE_RATE_HZ:
        found = f"{len(clip)} samples ({len(clip) / SAMPLE_RATE_HZ:.3g} s) at 16 kHz"
        raise AudioError(f"{path}: expected at least {SHORTEST_S} s of sound, found {found}")
    return clip


def clips_in(folder: Path, only: Sequence[str] = ()) -> dict[str, Float[np.ndarray, "samples"]]:
    """The wav files of a folder by name, in order: all, or those whose names match one of the patterns.

    Raises:
      AudioError: none, or one that cannot be used.
    """
    files = [f for f in sorted(folder.glob("*.wav")) if not only or any(fnmatch(f.stem, wanted) for wanted in only)]
    if not files:
        wanted = f" that match {', '.join(only)}" if only else ""
        raise AudioError(f"expected wav files{wanted} in {folder}, found none")
    return {file.stem: read_clip(file) for file in files}


def wav_bytes(pcm: Float[np.ndarray, "samples"]) -> bytes:
    """A 16-bit WAV file of 16 kHz mono PCM in [-1, 1]."""
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def check_folder(out: Path) -> None:
    """Raise ``FileExistsError`` where ``out`` is or lies under something that is not a folder: before long work."""
    for place in (out, *out.absolute().parents):
        if place.exists():
            if not place.is_dir():
                raise FileExistsError(f"cannot write into {out}: {place} is not a folder")
            return


def write_file(path: str | Path, data: bytes) -> None:
    """Write a file, whole or not at all; folders on the way are made."""
    path = Path(path).absolute()
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``; what is in it moves to ``out`` at the end, and only if nothing failed.

    Other files in ``out`` stay; those of the same name are replaced.
    """
    out = out.absolute()
    check_folder(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    temporary.mkdir()
    try:
        yield temporary
        out.mkdir(exist_ok=True)
        for file in temporary.iterdir():
            file.replace(out / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
