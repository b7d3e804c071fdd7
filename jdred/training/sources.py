"""Where speech comes from: a closed list of Debian packages, split by speaker and language, or any folder of audio."""

import hashlib
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jdred.training.audio import EXTENSIONS

TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")
_RESERVED = "reserved"

_ASTERISK = {language: f"asterisk-core-sounds-{language}-g722" for language in ("en", "es", "fr", "it", "ru")}
MUSIC_PACKAGE = "asterisk-moh-opsound-g722"
SPEECH_PACKAGES = (
    "festvox-ru", *_ASTERISK.values(), "tuxpaint-stamps-default", "klettres-data", "ktuberling-data", "hedgewars-data",
)  # fmt: skip

LANGUAGES = {
    "festvox-ru": {TRAIN: "ru"},
    _ASTERISK["en"]: {TEST: "en"},
    _ASTERISK["es"]: {TEST: "es"},
    _ASTERISK["fr"]: {TRAIN: "fr"},
    _ASTERISK["it"]: {VALIDATION: "it"},
    _ASTERISK["ru"]: {TRAIN: "ru"},
    "tuxpaint-stamps-default": {TRAIN: "be bg ca es fr ru nl ml pt_BR", VALIDATION: "el da", TEST: "lt"},
    "ktuberling-data": {TRAIN: "ca fr ru uk sl sr wa nn ga", VALIDATION: "el da", TEST: "lt"},
    "klettres-data": {TRAIN: "cs es fr he hu ml nb nl pt_BR ru tn uk", VALIDATION: "it da", TEST: "lt"},
    "hedgewars-data": {TRAIN: "en es pl ru uk"},
}
"""Which languages of a package belong to which part. What is not named is never used."""


@dataclass(frozen=True)
class Utterance:
    """One file of speech by one voice."""

    path: Path
    voice: str
    language: str
    package: str
    part: str
    """``train``, ``validation`` or ``test``."""


def cache_folder() -> Path:
    """Where downloads and prepared data go: ``$JDRED_CACHE``, else ``~/.cache/jdred``."""
    return Path(os.environ.get("JDRED_CACHE") or Path.home() / ".cache" / "jdred").expanduser()


def fetch(cache: Path, packages: Iterable[str] = (*SPEECH_PACKAGES, MUSIC_PACKAGE)) -> Path:
    """Download and unpack the packages (no root needed, nothing is installed); those already there are left alone.

    Returns:
      the folder that holds one sub-folder per package.
    Raises:
      RuntimeError: ``apt-get`` or ``dpkg`` is absent, or fails.
    """
    unpacked, downloads = cache / "packages", cache / "downloads"
    missing = [name for name in packages if not (unpacked / name).is_dir()]
    if missing and not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise RuntimeError("fetch needs apt-get and dpkg (Debian, Ubuntu); elsewhere give a folder of your own audio")
    for name in missing:
        downloads.mkdir(parents=True, exist_ok=True)
        _run(["apt-get", "download", name], downloads)
        archive = next(downloads.glob(f"{name}_*.deb"))
        partial = unpacked / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run(["dpkg", "-x", str(archive.resolve()), str(partial.resolve())], downloads)
        partial.rename(unpacked / name)
        archive.unlink()
    return unpacked


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def scan_packages(folder: Path) -> list[Utterance]:
    """The speech of the unpacked packages in ``folder``, duplicates removed, each file in the part of its language.

    A recording that stands under several languages goes to the most protected of their parts (reserved, test,
    validation, train), so that no part hears what another one holds; reserved speech is not listed.
    """
    found = [item for name in SPEECH_PACKAGES for item in _SCANNERS[name.split("-")[0]](folder / name, name)]
    return _distinct(found)


def scan_folder(folder: Path, validation: float = 0.05) -> list[Utterance]:
    """All audio under ``folder``; the first level of sub-folders names the voices.

    A share ``validation`` of the files, chosen by a hash of their place in the folder, is for validation.

    Raises:
      FileNotFoundError: there is no audio.
    """
    folder = Path(folder)
    utterances = []
    for path in _audio(folder):
        place = path.relative_to(folder)
        voice = place.parts[0] if len(place.parts) > 1 else folder.name
        share = int(hashlib.sha256(place.as_posix().encode()).hexdigest()[:8], 16) / 2**32
        part = VALIDATION if share < validation else TRAIN
        utterances.append(Utterance(path, voice, "", folder.name, part))
    if not utterances:
        raise FileNotFoundError(f"expected audio files ({' '.join(EXTENSIONS)}) under {folder}, found none")
    return _distinct(utterances)


def music_files(folder: Path) -> list[Path]:
    """The background music among the unpacked packages."""
    return list(_audio(folder / MUSIC_PACKAGE))


def _audio(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in EXTENSIONS and path.is_file())


def _distinct(utterances: list[Utterance]) -> list[Utterance]:
    """One utterance for each content, in the most protected part that any copy has; none of the reserved ones."""
    copies = defaultdict(list)
    for utterance in utterances:
        copies[hashlib.sha256(utterance.path.read_bytes()).digest()].append(utterance)
    rank = {part: i for i, part in enumerate((_RESERVED, TEST, VALIDATION, TRAIN))}
    kept = (min(same, key=lambda utterance: rank[utterance.part]) for same in copies.values())
    return [utterance for utterance in kept if utterance.part != _RESERVED]


def _labelled(path: Path, voice: str, language: str, package: str) -> Utterance:
    parts = (part for part, languages in LANGUAGES[package].items() if language in languages.split())
    return Utterance(path, voice, language, package, next(parts, _RESERVED))


def _scan_asterisk(folder: Path, package: str) -> Iterator[Utterance]:
    """Sub-folders are named like ``fr_CA_f_June``; one woman, Allison, speaks two languages."""
    for path in _audio(folder / "usr/share/asterisk/sounds"):
        if path.parent.name != "silence":
            speaker = path.relative_to(folder / "usr/share/asterisk/sounds").parts[0]
            yield _labelled(path, f"asterisk-{speaker.split('_')[-1].lower()}", speaker[:2], package)


def _scan_festvox(folder: Path, package: str) -> Iterator[Utterance]:
    for path in _audio(folder):
        yield _labelled(path, package, "ru", package)


def _scan_tuxpaint(folder: Path, package: str) -> Iterator[Utterance]:
    """Spoken descriptions are named like ``frog_desc_el.ogg``, the English ones ``frog_desc.ogg``."""
    for path in _audio(folder):
        if match := re.search(r"_desc(?:_(\w+))?\.ogg$", path.name):
            language = match[1] or "en"
            yield _labelled(path, f"tuxpaint-{language}", language, package)


def _scan_klettres(folder: Path, package: str) -> Iterator[Utterance]:
    for path in _audio(folder):
        language = path.parts[-3]
        yield _labelled(path, f"klettres-{language}", language, package)


def _scan_ktuberling(folder: Path, package: str) -> Iterator[Utterance]:
    """Folders like ``sr@latin`` hold copies of ``sr``."""
    for path in _audio(folder / "usr/share/ktuberling/sounds"):
        language = path.parent.name
        if "@" not in language:
            yield _labelled(path, f"ktuberling-{language}", language, package)


def _scan_hedgewars(folder: Path, package: str) -> Iterator[Utterance]:
    """Acted voices, one a sub-folder, English unless the name ends in a language; Robot is a machine."""
    for path in _audio(folder / "usr/share/games/hedgewars/Data/Sounds/voices"):
        pack = path.parent.name
        if pack != "Robot":
            language = pack.partition("_")[2] or "en"
            yield _labelled(path, f"hedgewars-{pack.lower()}", language, package)


_SCANNERS = {
    "festvox": _scan_festvox,
    "asterisk": _scan_asterisk,
    "tuxpaint": _scan_tuxpaint,
    "klettres": _scan_klettres,
    "ktuberling": _scan_ktuberling,
    "hedgewars": _scan_hedgewars,
}
