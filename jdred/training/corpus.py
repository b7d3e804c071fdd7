"""Speech on disk: one memory-mapped int16 array per part and an index of who speaks where.

``build`` makes the folder, ``Corpus`` reads it, ``prepare`` turns it into features, ``Prepared`` feeds training.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16

from jdred.config import FRAME_SAMPLES, SAMPLE_RATE_HZ
from jdred.progress import track
from jdred.training.audio import AudioError, decode, speech, to_int16
from jdred.training.sources import PARTS, Utterance

CAP_MINUTES = 10.0
"""A voice counts for at most so much of an epoch."""
PAUSE_S = (0.05, 0.4)
"""Silence between utterances that are joined, shortest and longest."""


def build(utterances: list[Utterance], out: Path) -> dict[str, dict[str, int]]:
    """Decode, clean and store the utterances: ``out/<part>.npy`` (int16) and ``out/<part>.json`` for every part.

    A part that is complete is left alone; one that was interrupted goes on where it stopped. Files that hold no
    usable speech are skipped and counted by reason.

    Returns:
      for each part the number of utterances ``kept`` and of those skipped, by reason.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    counts = {}
    for part in PARTS:
        chosen = [utterance for utterance in utterances if utterance.part == part]
        if chosen and not (out / f"{part}.json").exists():
            _build_part(chosen, out, part)
        if chosen:
            counts[part] = json.loads((out / f"{part}.json").read_text())["counts"]
    return counts


def _build_part(utterances: list[Utterance], out: Path, part: str) -> None:
    samples, lines = out / f"{part}.partial.raw", out / f"{part}.partial.jsonl"
    rows = _resume(samples, lines)
    with samples.open("ab") as pcm_file, lines.open("a") as row_file:
        rest = track(utterances[len(rows) :], f"building {part}", len(utterances), done=len(rows))
        position = pcm_file.tell() // 2
        for utterance in rest:
            row = {"voice": utterance.voice, "language": utterance.language, "package": utterance.package}
            try:
                pcm = to_int16(speech(decode(utterance.path)))
                pcm_file.write(pcm.tobytes())
                row |= {"start": position, "length": len(pcm)}
                position += len(pcm)
            except AudioError as error:
                row["skipped"] = error.reason
            row_file.write(json.dumps(row) + "\n")
            rows.append(row)
    np.save(out / f"{part}.npy", np.fromfile(samples, np.int16))
    counts = Counter(row.get("skipped", "kept") for row in rows)
    index = {"counts": counts, "utterances": [row for row in rows if "skipped" not in row]}
    (out / f"{part}.json.new").write_text(json.dumps(index))
    (out / f"{part}.json.new").rename(out / f"{part}.json")
    samples.unlink()
    lines.unlink()


def _resume(samples: Path, lines: Path) -> list[dict]:
    """What an interrupted run wrote completely; the rest of both files is cut off."""
    rows = []
    end = 0
    stored = samples.stat().st_size // 2 if samples.exists() else 0
    for line in lines.read_text().splitlines(keepends=True) if lines.exists() else ():
        row = json.loads(line) if line.endswith("\n") else None
        if row is None or row.get("start", 0) + row.get("length", 0) > stored:
            break
        rows.append(row)
        end = row["start"] + row["length"] if "start" in row else end
    with samples.open("ab") as file:
        file.truncate(2 * end)
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


class Corpus:
    """Reads one part of a built folder; the samples stay on disk until they are asked for."""

    def __init__(self, folder: Path, part: str = "train"):
        """
        Raises:
          FileNotFoundError: the part was not built.
        """
        self.part = part
        index = Path(folder) / f"{part}.json"
        if not index.exists():
            raise FileNotFoundError(f"expected a built corpus, found no {index}")
        self.utterances: list[dict] = json.loads(index.read_text())["utterances"]
        self._pcm = np.load(index.with_suffix(".npy"), mmap_mode="r")

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, number: int) -> Float[np.ndarray, "samples"]:
        """One utterance, float32 in [-1, 1]."""
        row = self.utterances[number]
        return self._pcm[row["start"] : row["start"] + row["length"]].astype(np.float32) / 32768

    @cached_property
    def voices(self) -> dict[str, list[int]]:
        """The utterances of each voice."""
        voices = defaultdict(list)
        for number, row in enumerate(self.utterances):
            voices[row["voice"]].append(number)
        return dict(voices)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([row["length"] for row in self.utterances])

    @property
    def minutes(self) -> float:
        """Of all voices."""
        return sum(self.minutes_by_voice().values())

    def minutes_by_voice(self) -> dict[str, float]:
        """How long each voice speaks."""
        scale = 60 * SAMPLE_RATE_HZ
        return {voice: float(self._lengths[numbers].sum()) / scale for voice, numbers in self.voices.items()}

    def epoch_minutes(self, cap_minutes: float = CAP_MINUTES) -> float:
        """Of all voices, none counted for more than the cap."""
        return sum(min(minutes, cap_minutes) for minutes in self.minutes_by_voice().values())

    def crop(
        self, rng: np.random.Generator, samples: int, cap_minutes: float = CAP_MINUTES
    ) -> Float[np.ndarray, "{samples}"]:
        """``samples`` of one random voice: part of an utterance, or several joined by short pauses.

        A voice comes as often as it is long, but never as if it were longer than ``cap_minutes``.
        """
        by_voice = self.minutes_by_voice()
        weights = np.minimum(list(by_voice.values()), cap_minutes)
        numbers = np.array(self.voices[list(by_voice)[rng.choice(len(weights), p=weights / weights.sum())]])
        chances = self._lengths[numbers] / self._lengths[numbers].sum()
        first = self[rng.choice(numbers, p=chances)]
        parts = [first[rng.integers(len(first)) :] if len(first) < samples else _cut(first, rng, samples)]
        while sum(map(len, parts)) < samples:
            pause = int(rng.uniform(*PAUSE_S) * SAMPLE_RATE_HZ)
            parts += [np.zeros(pause, np.float32), self[rng.choice(numbers, p=chances)]]
        return np.concatenate(parts)[:samples]

    def blocks(self, samples: int) -> Iterator[Float[np.ndarray, "{samples}"]]:
        """All speech in order, voice after voice, in blocks of ``samples``; zeros fill the last one of a voice."""
        pause = np.zeros(int(sum(PAUSE_S) / 2 * SAMPLE_RATE_HZ), np.float32)
        for numbers in self.voices.values():
            voice = np.concatenate([part for number in numbers for part in (self[number], pause)])
            voice = np.pad(voice, (0, -len(voice) % samples))
            yield from voice.reshape(-1, samples)


def _cut(pcm: np.ndarray, rng: np.random.Generator, samples: int) -> np.ndarray:
    start = rng.integers(len(pcm) - samples + 1)
    return pcm[start : start + samples]


class Prepared:
    """Random aligned crops of PCM and features from the folders that ``prepare`` wrote."""

    def __init__(self, *folders: Path):
        """
        Args:
          folders: complete ones of equal sequence length, as ``train-0``, ``train-1``.
        Raises:
          FileNotFoundError: a folder is absent or not complete.
        """
        self._parts = []
        for folder in map(Path, folders):
            if not (folder / "complete").exists():
                raise FileNotFoundError(f"expected a completely prepared folder, found {folder} without 'complete'")
            names = ("pcm", "features", "burg")
            self._parts.append({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})
        self._ends = np.cumsum([len(part["features"]) for part in self._parts])
        self.frames = self._parts[0]["features"].shape[1]
        """Frames of one sequence."""

    def __len__(self) -> int:
        """Number of sequences."""
        return int(self._ends[-1])

    @property
    def minutes(self) -> float:
        return len(self) * self.frames * FRAME_SAMPLES / SAMPLE_RATE_HZ / 60

    def sequence(self, number: int) -> dict[str, np.ndarray]:
        """One whole sequence: ``pcm`` int16 [frames * 160], ``features`` [frames, 20], ``burg`` [frames, 36]."""
        part = int(np.searchsorted(self._ends, number, side="right"))
        begin = self._ends[part] - len(self._parts[part]["features"])
        return {name: array[number - begin] for name, array in self._parts[part].items()}

    def crops(
        self, rng: np.random.Generator, batch: int, frames: int, past: int = 0
    ) -> dict[str, np.ndarray | Int16[np.ndarray, "batch samples"]]:
        """Random crops, each inside one sequence.

        Args:
          past: samples of PCM wanted before the first frame as well.
        Returns:
          ``pcm`` int16 [batch, past + frames * 160], ``features`` float32 [batch, frames, 20] and ``burg`` float32
          [batch, frames, 36]. Row k of the features is computed from samples [160 k - 160, 160 k + 160) of the crop,
          counted after ``past``.
        Raises:
          ValueError: the crop is longer than a sequence.
        """
        first = -(-past // FRAME_SAMPLES)
        if first + frames > self.frames:
            raise ValueError(f"expected at most {self.frames} frames with the past, found {first + frames}")
        crops = []
        for number, start in zip(
            rng.integers(len(self), size=batch), rng.integers(first, self.frames - frames + 1, size=batch), strict=True
        ):
            sequence = self.sequence(number)
            crop = {name: sequence[name][start : start + frames] for name in ("features", "burg")}
            crop["pcm"] = sequence["pcm"][start * FRAME_SAMPLES - past : (start + frames) * FRAME_SAMPLES]
            crops.append(crop)
        return {name: np.stack([crop[name] for crop in crops]) for name in ("pcm", "features", "burg")}

    def speech(self, rng: np.random.Generator, batch: int, frames: int, past: int = 0) -> dict[str, np.ndarray]:
        """``crops`` of what vocoders learn from: ``pcm`` and ``features``."""
        crops = self.crops(rng, batch, frames, past)
        return {"features": crops["features"], "pcm": crops["pcm"]}
