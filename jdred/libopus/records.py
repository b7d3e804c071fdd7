"""Named arrays as libopus writes them down: a blob of records, or the C source of a release."""

import io
import re
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jdred.libopus import LibopusError

DRED_VERSION = 12
"""Of the payloads of libopus 1.6, and so of its RDO-VAE."""
SOURCES = tuple(
    f"{name}_data.c"
    for name in ("pitchdnn", "fargan", "plc", "dred_rdovae_enc", "dred_rdovae_dec", "dred_rdovae_stats")
)
"""Files of a release's ``dnn`` folder that hold what jdred has a use for."""
_CONFIG = "dred_config.h"
_MAGIC = b"DNNw"
_HEADER = struct.Struct("<4s4i44s")
_TYPES = {0: np.dtype("<f4"), 1: np.dtype("<i4"), 3: np.dtype("int8")}
_C_TYPES = {
    "float": np.float32,
    "int": np.int32,
    "opus_int32": np.int32,
    "opus_int8": np.int8,
    "opus_uint8": np.uint8,
}
_C_ARRAY = re.compile(r"\bconst\s+(\w+)\s+(\w+)\s*((?:\[[^\]]*\]\s*)+)=\s*\{(.*?)\}\s*;", re.DOTALL)
_C_VERSION = re.compile(r"#define\s+DRED_EXPERIMENTAL_VERSION\s+(\d+)")
_TABLE = re.compile(r"(?P<part>latent|state)/(?P<field>quant_scales_q8|dead_zone_q8|r_q8|p0_q8)$")


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Arrays by libopus's names, from a blob, a release (unpacked or ``.tar.*``), a C file, or an ``.npz``.

    Sizes are not looked at; arrays of a blob and of C sources are flat. A blob never holds tables of quantisers.

    Raises:
      LibopusError: nothing of that kind, damaged, or of another version of libopus.
      OSError: the file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return _from_sources(path.name, ((p.name, p.read_text()) for p in sorted(path.rglob("*")) if _wanted(p.name)))
    data = path.read_bytes()
    if data[:4] == _MAGIC:
        return read_blob(data)
    if path.suffix == ".npz":
        return _from_npz(path)
    if path.suffix in (".c", ".h"):
        return _from_sources(path.name, [(path.name, data.decode(errors="replace"))])
    if tarfile.is_tarfile(io.BytesIO(data)):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return _from_sources(path.name, _members(archive))
    raise LibopusError(f"{path}: expected a folder or archive of libopus's sources, or a weights blob ({_MAGIC!r} ...)")


def _wanted(name: str) -> bool:
    return name in SOURCES or name == _CONFIG


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str]]:
    for member in archive:
        name = Path(member.name).name
        if member.isfile() and _wanted(name):
            yield name, archive.extractfile(member).read().decode(errors="replace")


def _from_sources(source: str, files) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for name, text in files:
        version = _C_VERSION.search(text)
        if version and int(version[1]) != DRED_VERSION:
            raise LibopusError(f"{source}: expected DRED version {DRED_VERSION} (libopus 1.6), found {version[1]}")
        arrays |= {} if name == _CONFIG else parse_c(text)
    if not arrays:
        raise LibopusError(f"{source}: none of {', '.join(SOURCES)} in it")
    return arrays


def parse_c(text: str) -> dict[str, np.ndarray]:
    """The constant arrays of a C file, flat. Raises ``LibopusError`` where one is not what it says it is."""
    found = {}
    for kind, name, sizes, numbers in _C_ARRAY.findall(text):
        if kind not in _C_TYPES:
            continue
        plain = re.sub(r"(?<=[\d.])f\b|[{}]|/\*.*?\*/", " ", numbers, flags=re.DOTALL)
        try:
            values = np.array([float(number) for number in plain.replace(",", " ").split()])
            size = int(np.prod([int(size) for size in re.findall(r"\[\s*(\d+)\s*\]", sizes)]))
        except ValueError as error:
            raise LibopusError(f"array {name}: {error}") from error
        array = values.astype(_C_TYPES[kind])
        if len(array) != size or (kind != "float" and np.any(array != values)):
            raise LibopusError(f"array {name}: expected {size} values of type {kind}, found {len(array)}")
        found[name] = array
    return found


def _from_npz(path: Path) -> dict[str, np.ndarray]:
    """Keys ``model/layer/field``, quantiser tables ``.../latent/quant_scales_q8`` and so on."""
    arrays: dict[str, np.ndarray] = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            if table := _TABLE.search(key):
                arrays[f"dred_{table['part']}_{table['field']}"] = file[key]
            elif key.count("/") == 2:
                _, layer, field = key.split("/")
                field = "weight_float" if layer.startswith("conv2d") and field == "weights_float" else field
                arrays[f"{layer}_{field}"] = file[key]
    return arrays


def read_blob(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a weights blob in their order. Raises ``LibopusError`` for a damaged one."""
    arrays, position = {}, 0
    while position < len(data):
        head = data[position : position + _HEADER.size]
        if len(head) < _HEADER.size or head[:4] != _MAGIC:
            raise LibopusError(f"weights blob: expected a record at byte {position} of {len(data)}, found {head[:4]!r}")
        _, version, kind, size, block, name = _HEADER.unpack(head)
        name = name.split(b"\0")[0].decode("ascii", errors="replace")
        position += _HEADER.size
        if version != 0 or kind not in _TYPES or not 0 <= size <= block <= len(data) - position:
            raise LibopusError(
                f"weights blob: record {name!r} has version {version} (expected 0), type {kind} (expected "
                f"{sorted(_TYPES)}), {size} bytes in a block of {block}, with {len(data) - position} left"
            )
        if size % _TYPES[kind].itemsize:
            raise LibopusError(f"weights blob: record {name!r} of type {kind} has {size} bytes")
        arrays[name] = np.frombuffer(data, _TYPES[kind], size // _TYPES[kind].itemsize, position)
        position += block
    return arrays


def write_blob(arrays: dict[str, np.ndarray]) -> bytes:
    """A blob that libopus loads: float32, int32 and int8 arrays in the order given."""
    kinds = {dtype: number for number, dtype in _TYPES.items()}
    records = []
    for name, array in arrays.items():
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        block = -(-len(data) // _HEADER.size) * _HEADER.size
        kind = kinds[array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype]
        header = _HEADER.pack(_MAGIC, 0, kind, len(data), block, name.encode())
        records.append(header + data.ljust(block, b"\0"))
    return b"".join(records)
