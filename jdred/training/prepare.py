"""A built corpus to training arrays: augmented PCM with its features, in sequences of equal length."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int16
from numpy.lib.format import open_memmap

from jdred.config import FRAME_SAMPLES, NUM_BURG, NUM_FEATURES, SAMPLE_RATE_HZ
from jdred.dsp.burg import burg_features
from jdred.dsp.features import EXTRACTOR, FeatureExtractor, extract
from jdred.progress import track
from jdred.training.audio import decode, to_int16
from jdred.training.augment import augment
from jdred.training.corpus import CAP_MINUTES, Corpus

SEQUENCE_FRAMES = 1500
"""15 s."""
BATCH = 8
"""Sequences per compiled call."""


def prepare(
    corpus_folder: Path,
    out: Path,
    passes: int = 3,
    seed: int = 0,
    music: list[Path] | None = None,
    sequence_frames: int = SEQUENCE_FRAMES,
    cap_minutes: float = CAP_MINUTES,
    extractor: FeatureExtractor = EXTRACTOR,
) -> list[Path]:
    """Write ``out/validation`` (as it is) and ``out/train-0``, ``train-1``, ... (each augmented differently).

    A folder holds ``pcm.npy`` int16 [sequences, frames * 160], ``features.npy`` float32 [sequences, frames, 20],
    ``burg.npy`` float32 [sequences, frames, 36], all to be memory-mapped, and a file ``complete`` at the end. Sequence
    number i depends on corpus, arguments, pass and i alone; an interrupted run goes on with the batch it was at, a
    complete folder is left alone. Read them with ``corpus.Prepared``.

    Args:
      passes: how many epochs of training speech to write.
      music: audio files taken as background now and then.
      cap_minutes: what a voice counts for at most in an epoch.
      extractor: the features that networks are trained on.
    Returns:
      the folders.
    Raises:
      ValueError: ``out`` holds what other settings made.
    """
    samples, out = sequence_frames * FRAME_SAMPLES, Path(out)
    _settle(out / "settings.json", {"seed": seed, "cap_minutes": cap_minutes, "extractor": _digest(extractor)})
    validation = np.stack(list(Corpus(corpus_folder, "validation").blocks(samples)))
    _write(out / "validation", len(validation), samples, lambda i: validation[i], extractor)
    folders = [out / "validation"]

    corpus = Corpus(corpus_folder, "train")
    background = _background(music or [], samples)
    count = max(1, int(corpus.epoch_minutes(cap_minutes) * 60 * SAMPLE_RATE_HZ / samples))
    for number in range(passes):

        def sequence(i: int, number: int = number) -> Float[np.ndarray, "{samples}"]:
            rng = np.random.default_rng([seed, number, i])
            return augment(corpus.crop(rng, samples, cap_minutes), rng, background)

        folders.append(out / f"train-{number}")
        _write(folders[-1], count, samples, sequence, extractor)
    return folders


def _settle(path: Path, settings: dict[str, Any]) -> None:
    """Write settings down, or find that they are those of before."""
    if path.exists() and (before := json.loads(path.read_text())) != settings:
        raise ValueError(f"{path}: expected {settings}, found {before} of another run; take another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


def _digest(extractor: FeatureExtractor) -> str:
    """The kind of tracker, and a hash of its weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(extractor):
        digest.update(np.asarray(leaf).tobytes())
    return f"{type(extractor.tracker).__name__} {digest.hexdigest()[:12]}"


def _background(files: list[Path], samples: int) -> np.ndarray | None:
    music = np.concatenate([np.zeros(0, np.float32), *map(decode, files)])
    return music if len(music) >= samples else None


@jax.jit
def analyse(
    pcm: Int16[Array, "batch samples"], extractor: FeatureExtractor = EXTRACTOR
) -> tuple[Float[Array, "batch frames 20"], Float[Array, "batch frames 36"]]:
    """Features and Burg features of 16-bit PCM."""
    pcm = pcm / 32768
    return extract(pcm, extractor), burg_features(pcm.reshape(len(pcm), -1, FRAME_SAMPLES))


def _write(
    folder: Path, count: int, samples: int, sequence: Callable[[int], np.ndarray], extractor: FeatureExtractor
) -> None:
    """Fill one folder with ``sequence(i)``, i = 0 .. count - 1, and its features, batch by batch."""
    if (folder / "complete").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    frames = samples // FRAME_SAMPLES
    pcm = _array(folder / "pcm.npy", (count, samples), np.int16)
    features = _array(folder / "features.npy", (count, frames, NUM_FEATURES), np.float32)
    burg = _array(folder / "burg.npy", (count, frames, NUM_BURG), np.float32)
    progress = folder / "progress"
    done = int(progress.read_text()) if progress.exists() else 0
    for start in track(range(done, count, BATCH), f"preparing {folder.name}", -(-count // BATCH), done // BATCH):
        stop = min(start + BATCH, count)
        pcm[start:stop] = [to_int16(sequence(i)) for i in range(start, stop)]
        whole = np.pad(pcm[start:stop], ((0, BATCH - (stop - start)), (0, 0)))
        rows = analyse(whole, extractor)
        features[start:stop], burg[start:stop] = (np.asarray(part)[: stop - start] for part in rows)
        for array in (pcm, features, burg):
            array.flush()
        progress.write_text(str(stop))
    (folder / "complete").touch()


def _array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """The array of an interrupted run, or a new one."""
    if path.exists():
        array = np.load(path, mmap_mode="r+")
        if array.shape == shape:
            return array
        raise ValueError(f"{path}: expected shape {shape}, found {array.shape} of another corpus or setting; remove it")
    return open_memmap(path, "w+", dtype, shape)
