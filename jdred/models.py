"""The networks of one link, together, and how they are restored."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jdred import weights
from jdred.bitstream.codec import PayloadCodec
from jdred.bitstream.wire import JDRED, WIRES, Wire
from jdred.config import FARGANConfig, LPCNetConfig, PitchNetworkConfig, PredictorConfig, RDOVAEConfig
from jdred.dsp.features import EXTRACTOR, FeatureExtractor
from jdred.dsp.pitchnet import PitchNetwork
from jdred.plc.concealer import Concealer
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE
from jdred.rdovae.deploy import deploy
from jdred.rdovae.tables import CodingTables
from jdred.vocoder import Vocoder
from jdred.vocoder.fargan import FARGAN
from jdred.vocoder.lpcnet import LPCNet, fold

TABLES = "tables/"


class Models(NamedTuple):
    """Everything that a sender and a receiver must share. A pytree, so it goes into compiled functions as it is."""

    rdovae: RDOVAE
    tables: CodingTables
    """8-bit probabilities of the payload's symbols."""
    vocoder: Vocoder
    predictor: Predictor
    extractor: FeatureExtractor = EXTRACTOR
    """The features that the networks were trained on; pitch trackers differ."""
    wire: Wire = JDRED
    """Whose payloads are written and read."""

    @property
    def payloads(self) -> PayloadCodec:
        """Writer and reader of the payloads."""
        return PayloadCodec(self.tables, self.wire)

    @property
    def concealer(self) -> Concealer:
        return Concealer(self.predictor, self.vocoder, self.extractor)


def load(
    name: str = "default", *, rdovae: str | None = None, vocoder: str | None = None, predictor: str | None = None
) -> Models:
    """Restore a set of models.

    Args:
      name: a shipped set, or the path of a ``.json`` that names one weight file a part: ``rdovae``, ``vocoder``,
        ``predictor``, and perhaps ``pitch``. Files are looked for beside it, then among the shipped ones.
      rdovae, vocoder, predictor: other weights for a part, by shipped name or path.
    Raises:
      CheckpointError: no such set, or a file that does not fit.
    """
    path = Path(name) if name.endswith(".json") else weights.FOLDER / f"{name}.json"
    parts = read_set(path)
    if missing := sorted({"rdovae", "vocoder", "predictor"} - parts.keys()):
        raise weights.CheckpointError(f"{path}: expected files of rdovae, vocoder and predictor, found no {missing}")
    parts |= {k: v for k, v in {"rdovae": rdovae, "vocoder": vocoder, "predictor": predictor}.items() if v}
    coder, tables = load_rdovae(parts["rdovae"])
    return Models(
        coder,
        tables,
        load_vocoder(parts["vocoder"]),
        load_predictor(parts["predictor"]),
        load_extractor(parts.get("pitch")),
        load_wire(parts["rdovae"]),
    )


def read_set(path: Path) -> dict[str, str]:
    """The weight files of a set by part, those beside it as paths, the shipped ones by name.

    Raises:
      CheckpointError: no such file, or not a set.
    """
    if not path.is_file():
        raise weights.CheckpointError(f"no model set at {path}")
    try:
        return {part: _beside(path.parent, file) for part, file in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise weights.CheckpointError(f"{path} is not a set of models: {error}") from error


def _beside(folder: Path, file: str) -> str:
    stem = file.removesuffix(".npz")
    path = folder / f"{stem}.npz"
    return str(path) if path.is_file() else stem


def load_wire(name: str) -> Wire:
    """The wire that an RDO-VAE's payloads go over, by shipped name or path."""
    wire = _read(name, "rdovae")[1].get("wire", JDRED.name)
    if wire not in WIRES:
        raise weights.CheckpointError(f"{name}: expected a wire of {sorted(WIRES)}, found {wire!r}")
    return WIRES[wire]


def load_pitch(name: str) -> PitchNetwork:
    """A neural pitch tracker, by shipped name or path."""
    arrays, config = _read(name, "pitch")
    return _restore(name, PitchNetwork, _sizes(name, PitchNetworkConfig, config), arrays)


def load_extractor(pitch: str | None) -> FeatureExtractor:
    """The features that go with a pitch network, by shipped name or path; without one the classical tracker's."""
    return FeatureExtractor(load_pitch(pitch)) if pitch else EXTRACTOR


def load_rdovae(name: str) -> tuple[RDOVAE, CodingTables]:
    """An RDO-VAE and its coding tables, by shipped name or path; one fresh from training is deployed on the way."""
    arrays, config = _read(name, "rdovae")
    tables = {k[len(TABLES) :]: np.asarray(arrays.pop(k)) for k in list(arrays) if k.startswith(TABLES)}
    rdovae = _restore(name, RDOVAE, _sizes(name, RDOVAEConfig, config), arrays)
    if not tables:
        return deploy(rdovae)
    if sorted(tables) != sorted(CodingTables._fields):
        raise weights.CheckpointError(f"{name}: expected coding tables {CodingTables._fields}, found {sorted(tables)}")
    return rdovae, CodingTables(**tables)


def load_vocoder(name: str) -> Vocoder:
    """A vocoder ready to speak, by shipped name or path."""
    arrays, config = _read(name, "lpcnet", "fargan")
    if config["kind"] == "fargan":
        return _restore(name, FARGAN, _sizes(name, FARGANConfig, config), arrays)
    return fold(_restore(name, LPCNet, _sizes(name, LPCNetConfig, config), arrays))


def load_predictor(name: str) -> Predictor:
    """A PLC predictor, by shipped name or path."""
    arrays, config = _read(name, "plc")
    return _restore(name, Predictor, _sizes(name, PredictorConfig, config), arrays)


def _read(name: str, *kinds: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, config = weights.read(name)
    if config.get("kind") not in kinds:
        raise weights.CheckpointError(
            f"{name}: expected weights of kind {' or '.join(kinds)}, found {config.get('kind')!r}"
        )
    return arrays, config


def _sizes(name: str, kind: type, config: dict[str, Any]) -> Any:
    """The architecture that a weight file tells."""
    try:
        return kind(**config["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise weights.CheckpointError(f"{name}: expected the sizes of a {kind.__name__}, found {error}") from error


def _restore(name: str, module: type, config: Any, arrays: dict[str, np.ndarray]) -> Any:
    template = weights.abstract(lambda: module(config, rngs=nnx.Rngs(0)))
    weights.check(template, arrays, name)
    return weights.unflatten(template, {k: jnp.asarray(v) for k, v in arrays.items()})
