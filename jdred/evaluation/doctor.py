"""What of jdred's surroundings is there: for ``jdred doctor``."""

import platform
from collections.abc import Iterator
from importlib import metadata

import jax

from jdred import opus, weights
from jdred.evaluation import asr
from jdred.models import load

PACKAGES = ("jdred", "jax", "flax", "numpy", "soundfile", "matplotlib")
MEASURES = {"pystoi": "pystoi", "pesq": "pesq", "plcmos": "speechmos"}
"""Distribution behind each measure."""


def examine() -> tuple[list[tuple[str, str]], bool]:
    """``(name, what was found)`` line by line, and whether the demo can run (libopus and default models are there)."""
    codec, codec_found = _opus()
    models, models_found = _models()
    lines = [
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        *((name, metadata.version(name)) for name in PACKAGES),
        ("devices", ", ".join(f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices())),
        *codec,
        *_measures(),
        *models,
    ]
    return lines, codec_found and models_found


def _opus() -> tuple[list[tuple[str, str]], bool]:
    try:
        found = opus.describe()
    except opus.OpusError as error:
        return [("libopus", str(error))], False
    abilities = {"its own DRED": found.dred, "deep PLC": found.deep_plc, "enhancement": found.osce}
    has = ", ".join(name for name, there in abilities.items() if there) or "none of its networks (none is needed)"
    return [("libopus", f"{found.version}, {found.source}: {found.path}"), ("", f"built with {has}")], True


def _measures() -> Iterator[tuple[str, str]]:
    for name, distribution in MEASURES.items():
        try:
            yield name, metadata.version(distribution)
        except metadata.PackageNotFoundError:
            yield name, "not installed (pip install 'jdred[metrics]')"
    yield "recogniser", "available" if asr.available() else "not installed (only experiments use it)"


def _models() -> tuple[list[tuple[str, str]], bool]:
    shipped = ", ".join(sorted(path.stem for path in weights.FOLDER.glob("*.npz"))) or "none"
    try:
        load("default")
    except weights.CheckpointError as error:
        return [("weights", shipped), ("models", str(error))], False
    return [("weights", shipped), ("models", "default loads")], True
