"""libopus's weights to a set of models of ours, and our weights to a file that libopus loads."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from jdred import weights
from jdred.bitstream.wire import LIBOPUS
from jdred.dsp.features import FeatureExtractor
from jdred.libopus import LibopusError, networks, quantizers
from jdred.libopus.networks import Network
from jdred.libopus.records import read_arrays, write_blob
from jdred.models import TABLES, Models, load_pitch, load_predictor, load_rdovae, load_vocoder, read_set

SET = "libopus.json"
_NOTE = """# Networks of libopus

Imported from `{source}` by `jdred import-libopus`. libopus's weights are under its licence (BSD, three clauses): keep
its COPYING with them.
"""


def import_models(path: Path | str, tables: Path | str | None = None) -> Models:
    """libopus 1.6's networks as a set of models.

    Args:
      path: anything that ``records.read_arrays`` reads.
      tables: where else the tables of the quantisers are (a C file, ``.npz``, or ``.json`` from ``export``), as a
        weights blob has none.
    Raises:
      LibopusError: not libopus 1.6, arrays missing or of another size.
    """
    arrays = read_arrays(path)
    latent, state = quantizers.find(arrays if tables is None else _read_tables(Path(tables)))
    rdovae = networks.rdovae_network(latent.scale.shape[1], state.scale.shape[1])
    layers = networks.load_layers(arrays, (*networks.WITHOUT_TABLES, rdovae))
    model, coding = networks.rdovae(layers, latent, state)
    extractor = FeatureExtractor(networks.pitch_network(layers))
    return Models(model, coding, networks.fargan(layers), networks.predictor(layers), extractor, LIBOPUS)


def _read_tables(path: Path) -> dict[str, np.ndarray]:
    if path.suffix != ".json":
        return read_arrays(path)
    try:
        return quantizers.from_json(json.loads(path.read_text()), str(path))
    except ValueError as error:
        raise LibopusError(f"{path}: {error}") from error


def write_models(models: Models, out: Path, source: str) -> Path:
    """Write imported models as weight files, in float32, and the set that ``jdred.load`` takes; returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {TABLES + field: value for field, value in models.tables._asdict().items()}
    files = {
        "rdovae": ("rdovae", models.rdovae, tables, {"wire": models.wire.name}),
        "vocoder": ("fargan", models.vocoder, {}, {}),
        "predictor": ("plc", models.predictor, {}, {}),
        "pitch": ("pitch", models.extractor.tracker, {}, {}),
    }
    for kind, module, extra, more in files.values():
        config = {"kind": kind, "model": asdict(module.config), "source": source} | more
        weights.write(out / f"{kind}.npz", weights.flatten(module) | extra, config, half=False)
    (out / "README.md").write_text(_NOTE.format(source=source))
    (out / SET).write_text(json.dumps({part: kind for part, (kind, *_) in files.items()}, indent=2) + "\n")
    return out / SET


def export(name: str, out: Path) -> dict[str, float]:
    """Write weights as a blob that libopus loads, and beside it the tables of an RDO-VAE's quantisers as ``.json``.

    Args:
      name: a weight file (shipped name or path) of an RDO-VAE, a FARGAN, a predictor or a pitch tracker, or the
        ``.json`` of a set: then all of them.
    Returns:
      the relative RMS error of each network's weights by their rounding to 8 bits.
    Raises:
      LibopusError: a network that libopus does not have.
      CheckpointError: no such weights.
    """
    parts, tables = _parts(name)
    arrays: dict[str, np.ndarray] = {}
    loss = {}
    for module, network in parts:
        _check(module, network, name)
        stored = networks.store_module(module, network)
        arrays |= stored
        loss[network.kind] = networks.rounding_loss(module, network, stored)
    out.write_bytes(write_blob(arrays))
    if tables is not None:
        out.with_suffix(".json").write_text(json.dumps(quantizers.to_json(*tables)) + "\n")
    return loss


def _parts(name: str) -> tuple[list[tuple[nnx.Module, Network]], tuple[Any, Any] | None]:
    """The networks of a file or set in the order of libopus's files, and the quantisers' tables."""
    kinds = _kinds(name)
    parts, tables = [], None
    if "pitch" in kinds:
        parts.append((load_pitch(kinds["pitch"]), networks.PITCH_1_6))
    if "fargan" in kinds:
        parts.append((load_vocoder(kinds["fargan"]), networks.FARGAN_1_6))
    if "plc" in kinds:
        parts.append((load_predictor(kinds["plc"]), networks.PREDICTOR_1_6))
    if "rdovae" in kinds:
        model, coding = load_rdovae(kinds["rdovae"])
        _check(model, networks.RDOVAE_1_6, kinds["rdovae"])
        model, *tables = quantizers.of_model(model, coding)
        parts.append((model, networks.rdovae_network(model.config.latent_dim, model.config.state_dim)))
    return parts, tables


def _kinds(name: str) -> dict[str, str]:
    """Weight files by their kind."""
    path = Path(name)
    is_set = path.suffix == ".json" and not path.with_suffix(".npz").is_file()
    files = read_set(path).values() if is_set else [name]
    kinds = {weights.read(file)[1].get("kind"): file for file in files}
    if unknown := sorted(str(kind) for kind in kinds.keys() - {"pitch", "fargan", "plc", "rdovae"}):
        raise LibopusError(f"{name}: libopus 1.6 has no network of kind {unknown[0]!r}")
    return kinds


def _check(module: Any, network: Network, source: str) -> None:
    """Raise unless libopus has this architecture; its sizes are compiled in, but for those of latents and states."""
    config, expected = module.config, network.config
    if network.kind == "rdovae":
        free = ("latent_dim", "state_dim", "integer_tables")
        expected = replace(expected, **{field: getattr(config, field) for field in free})
    if config != expected:
        raise LibopusError(f"{source}: libopus 1.6 has {expected}, found {config}")
