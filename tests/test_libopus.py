"""libopus: its files, its layers in our modules and back, its networks, packets and choices against its own outputs."""

import json
import os
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import load_golden
from flax import nnx

import jdred
from jdred import weights
from jdred.bitstream.wire import JDRED, LIBOPUS
from jdred.cli import main
from jdred.config import FARGANConfig, PredictorConfig, RDOVAEConfig
from jdred.evaluation import parity, parity_link
from jdred.layers import Dense, round_activations
from jdred.libopus import LibopusError, files, networks, places, quantizers, records, storage
from jdred.libopus.places import Place
from jdred.libopus.storage import Linear
from jdred.link.redundancy import RedundancyReader
from jdred.opus import extension, ogg
from jdred.opus import packet as opus_packet
from jdred.opus.marker import EXTENSION_ID, attach_redundancy, find_redundancy
from jdred.plc.predictor import Predictor
from jdred.rdovae import RDOVAE, Quantizer
from jdred.rdovae.deploy import deploy
from jdred.rdovae.quantizer import dequantize, raw_parameters, symbols
from jdred.rdovae.tables import QuantizerTables
from jdred.vocoder.fargan import FARGAN

WEIGHTS = Path(os.environ.get("JDRED_LIBOPUS_WEIGHTS", Path(__file__).parents[2] / "shared" / "libopus"))


def weights_file(name: str) -> Path:
    if not (path := WEIGHTS / name).is_file():
        pytest.skip(f"libopus's weights absent: {path} (set JDRED_LIBOPUS_WEIGHTS)")
    return path


@pytest.fixture(scope="module")
def libopus():
    return files.import_models(weights_file("weights_1_6_1.npz"))


@pytest.fixture(scope="module")
def packets():
    return dict(load_golden("packets"))


def check(figures) -> None:
    rows = list(figures)
    assert rows
    assert not [row for row in rows if not row.holds]


# --- storage of layers


def linear(rng, outputs: int = 16, inputs: int = 24) -> Linear:
    return Linear(rng.normal(size=(outputs, inputs)).astype(np.float32), rng.normal(size=outputs).astype(np.float32))


@pytest.mark.parametrize("kind", ["int8", "sparse", "float"])
def test_layers_are_stored_and_read_back(rng, kind):
    layer = linear(rng)
    layer.W[:8, 4:12] = layer.W[8:, :20] = 0
    place = Place("layer", "kernel", kind)
    stored = storage.store(layer, place)
    back = storage.load(stored, place, 24, 16)
    np.testing.assert_array_equal(back.b, layer.b)
    if kind == "float":
        np.testing.assert_array_equal(back.W, layer.W)
        np.testing.assert_array_equal(stored["layer_weights_float"].reshape(24, 16), layer.W.T)
        return
    scale = stored["layer_scale"]
    assert np.all(np.abs(back.W - layer.W) <= 127 * scale[:, None] * 1.51)
    assert storage.store(back, place)["layer_weights_int8"].tobytes() == stored["layer_weights_int8"].tobytes()
    if kind == "sparse":
        np.testing.assert_array_equal(stored["layer_weights_idx"], [4, 0, 12, 16, 20, 1, 20])
        assert stored["layer_weights_int8"].size == 5 * 32
    first = stored["layer_weights_int8"][:32].reshape(8, 4)
    np.testing.assert_array_equal(first, np.round(back.W[:8, :4] / (127 * scale[:8, None])))


def test_neighbouring_weights_never_overflow(rng):
    """libopus adds products of two neighbours in 16 bits."""
    W = rng.normal(size=(64, 32))
    W[:, 1::2] = W[:, 0::2]
    rows, _ = storage.quantize(W)
    assert np.abs(rows).max() <= 127
    sums = rows[:, 0::2].astype(int) + rows[:, 1::2]
    assert np.abs(sums).max() in (128, 129)


def test_padding_is_zero_and_ignored(rng):
    layer, place = linear(rng, 13, 8), Place("layer", "kernel")
    stored = storage.store(layer, place)
    assert stored["layer_scale"].shape == (16,)
    assert not stored["layer_scale"][13:].any()
    assert storage.load(stored, place, 8, 13).W.shape == (13, 8)


def test_missing_and_misshapen_arrays_are_named(rng):
    place = Place("layer", "kernel", "sparse")
    stored = storage.store(linear(rng), place)
    for name in ("layer_scale", "layer_weights_int8", "layer_bias"):
        with pytest.raises(LibopusError, match=f"no array {name}"):
            storage.load({k: v for k, v in stored.items() if k != name}, place, 24, 16)
    with pytest.raises(LibopusError, match="layer_scale: expected 24 values, found 16"):
        storage.load(stored, place, 24, 24)
    with pytest.raises(LibopusError, match="does not fit"):
        storage.load(stored, place, 16, 16)
    place = Place("layer", "kernel", "float")
    stored = storage.store(linear(rng, 8, 16), place)
    with pytest.raises(LibopusError, match="layer_weights_float: expected 144 values, found 128"):
        storage.load(stored, place, 18, 8)


# --- files


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {
        "a_bias": np.float32([0.25, -1e-8, 3e7]),
        "a_weights_int8": np.int8([-127, 0, 5, 127]),
        "a_weights_idx": np.int32([1, 0]),
    }


def c_source(arrays: dict[str, np.ndarray]) -> str:
    """As libopus's exporter writes them: guards, defines, comments, rows of 8 numbers."""
    names = {"float32": "float", "int8": "opus_int8", "int32": "int", "uint8": "opus_uint8"}
    text = ["/* generated */", "#ifndef USE_WEIGHTS_FILE"]
    for name, array in arrays.items():
        text += [f"#define WEIGHTS_{name}_DEFINED", f"static const {names[array.dtype.name]} {name}[{array.size}] = {{"]
        numbers = [f"{x:.9g}f" if array.dtype.kind == "f" and k % 2 else f"{x:.9g}" for k, x in enumerate(array.flat)]
        text += [
            ",".join(numbers[k : k + 8]) + ("," if k + 8 < len(numbers) else "") for k in range(0, len(numbers), 8)
        ]
        text += ["};", ""]
    return "\n".join([*text, "const WeightArray list[] = {", '  {"a_bias", 0, 1},', "  {NULL, 0, 0}", "};"])


def test_blob_there_and_back(arrays):
    data = records.write_blob(arrays)
    assert len(data) == 3 * 128
    assert data[:4] == b"DNNw"
    back = records.read_blob(data)
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    for damaged in (data[:-1], data[:100], data + b"xx", b"DNNx" + data[4:], data[:8] + b"\x07" + data[9:]):
        with pytest.raises(LibopusError, match="weights blob"):
            records.read_blob(damaged)


def test_c_sources_are_read_from_folders_and_archives(arrays, tmp_path):
    folder = tmp_path / "opus-1.6.1" / "dnn"
    folder.mkdir(parents=True)
    (folder / "fargan_data.c").write_text(c_source(arrays))
    (folder / "other_data.c").write_text(c_source({"other": np.zeros(3, np.float32)}))
    (folder / "dred_config.h").write_text("#define DRED_EXPERIMENTAL_VERSION 12\n")
    with tarfile.open(tmp_path / "opus.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "opus-1.6.1", "opus-1.6.1")
    for path in (tmp_path / "opus-1.6.1", tmp_path / "opus.tar.gz", folder / "fargan_data.c"):
        back = records.read_arrays(path)
        assert list(back) == list(arrays)
        for name, array in arrays.items():
            assert back[name].dtype == array.dtype
            np.testing.assert_array_equal(back[name], array)
    (folder / "dred_config.h").write_text("#define DRED_EXPERIMENTAL_VERSION 10\n")
    with pytest.raises(LibopusError, match="expected DRED version 12 .*, found 10"):
        records.read_arrays(tmp_path / "opus-1.6.1")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("static const float x[3] = {1,2};", "x: expected 3 values of type float, found 2"),
        ("static const opus_int8 x[1] = {300};", "x: expected 1 values of type opus_int8"),
        ("static const float x[1] = {one};", "array x"),
    ],
)
def test_damaged_c_sources(text, complaint):
    with pytest.raises(LibopusError, match=complaint):
        records.parse_c(text)


def test_what_is_no_libopus(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "some.bin").write_bytes(b"nothing")
    for path, complaint in ((tmp_path / "empty", "none of"), (tmp_path / "some.bin", "expected a folder or archive")):
        assert main(["import-libopus", str(path), "--out", str(tmp_path / "out")]) == 1
        assert complaint in capsys.readouterr().err
    assert main(["export-libopus", "lpcnet", str(tmp_path / "x.bin")]) == 1
    assert "no network of kind 'lpcnet'" in capsys.readouterr().err


# --- modules


def test_a_module_survives_the_journey():
    """Every layer is in its place with its gates and taps in order: all weights come back, but for rounding."""
    module = Predictor(PredictorConfig(), rngs=nnx.Rngs(3))
    stored = networks.store_module(module, networks.PREDICTOR_1_6)
    back = networks.predictor(networks.load_layers(stored, (networks.PREDICTOR_1_6,)))
    loss = networks.rounding_loss(module, networks.PREDICTOR_1_6, stored)
    assert 0.001 < loss < 0.01
    for (name, ours), theirs in zip(weights.flatten(module).items(), weights.flatten(back).values(), strict=True):
        assert parity.relative(theirs, np.asarray(ours)) < 0.01 if np.any(ours) else not np.any(theirs), name


def test_every_array_has_one_place():
    for network in networks.NETWORKS:
        placed = [name for place in network.places for name in (place.kernel, place.bias) if name]
        names = [name for name in network.shapes() if not name.endswith("quantizer/raw")]
        assert sorted(placed) == sorted(names)


def test_layers_that_are_missing_or_have_a_bias_that_we_lack():
    with pytest.raises(LibopusError, match="Predictor of libopus 1.6: 6 layers are missing"):
        networks.predictor({})
    zeros = {p.layer: _zeros(networks.FARGAN_1_6, p) for p in places.FARGAN}
    networks.fargan(zeros)
    zeros["sig_net_skip_dense"].b[3] = 0.5
    with pytest.raises(LibopusError, match="sig_net_skip_dense: expected a bias of zeros, found values up to 0.5"):
        networks.fargan(zeros)


def _zeros(network, place: Place) -> Linear:
    shape = network.shapes()[place.kernel]
    return Linear(np.zeros(shape if place.kind == "table" else shape[::-1]), np.zeros(shape[-1]))


def test_rounded_activations():
    x = jnp.asarray([-2.0, -1.0, -0.4 / 127, 0.6 / 127, 1.0, 2.0])
    np.testing.assert_allclose(round_activations(x) * 127, [-127, -127, 0, 1, 127, 128], atol=1e-4)
    np.testing.assert_array_equal(jax.grad(lambda x: round_activations(x).sum())(x), 1)
    model = Predictor(PredictorConfig(), rngs=nnx.Rngs(0))
    rounded = networks.rounded(model, networks.PREDICTOR_1_6)
    assert (rounded.first.rounded, rounded.dense_in.rounded, model.first.rounded) == (True, False, False)
    xs = jax.random.normal(jax.random.key(0), (6, 57))
    (_, ys), (_, exact) = rounded.scan(rounded.init_state(), xs), model.scan(model.init_state(), xs)
    assert 1e-4 < np.abs(ys - exact).max() < 0.1
    step, y = rounded.init_state(), None
    for x in xs:
        step, y = rounded.step(step, x)
    np.testing.assert_allclose(y, ys[-1], atol=1e-5)
    layer = Dense(4, 2, rngs=nnx.Rngs(0))
    layer.rounded = True
    np.testing.assert_array_equal(layer(jnp.full(4, 0.3)), layer(jnp.full(4, 38 / 127)))


# --- quantisers


def test_tables_of_bytes_are_held_exactly(rng):
    tables = QuantizerTables(*rng.integers(0, 256, (4, 16, 7), np.uint8))
    tables.scale[0, :2] = 0, 255
    quantizer = Quantizer(16, 7, integer=True)
    quantizer.raw[...] = jnp.asarray(raw_parameters(tables))
    at = quantizer.at(jnp.arange(16))
    np.testing.assert_array_equal(256 * at.scale, tables.scale)
    np.testing.assert_array_equal(256 * at.dead_zone, tables.dead_zone)
    values = jnp.asarray(rng.normal(size=(16, 7)) * 9, jnp.float32)
    q = symbols(values, at)
    assert not q[0, 0]
    assert np.all(np.isfinite(dequantize(q, at)))
    slope = jax.grad(lambda raw: Quantizer.at(_with(quantizer, raw), jnp.arange(16)).scale.sum())(quantizer.raw[...])
    assert np.all(np.abs(slope[:, 0]) > 0)


def _with(quantizer: Quantizer, raw) -> Quantizer:
    return jax.tree.map(lambda _: raw, quantizer)


def test_float_quantisers_become_bytes_with_the_same_symbols_and_rows(rng):
    """Scales beyond what a byte holds go into the layers around them."""
    config = RDOVAEConfig(latent_dim=6, state_dim=5, blocks=2, encoder_width=8, encoder_gru=8, encoder_conv=8,
                          decoder_width=8, decoder_gru=8, decoder_conv=8, state_hidden=8)  # fmt: skip
    trained = RDOVAE(config, rngs=nnx.Rngs(0))
    trained.latent_quantizer.raw[...] = jnp.asarray(rng.normal(3, 0.5, trained.latent_quantizer.raw.shape))
    model, coding = deploy(trained)
    folded, latent, state = quantizers.of_model(model, coding)
    assert latent.scale.max(axis=0).min() == state.scale.max(axis=0).min() == 255
    x = jnp.asarray(rng.normal(size=(9, 40)), jnp.float32)
    before, after = (m.encoder.scan(m.encoder.init_state(), x)[1] for m in (model, folded))
    quantizer = Quantizer(16, latent.scale.shape[1], integer=True)
    quantizer.raw[...] = jnp.asarray(raw_parameters(latent))
    ours, theirs = model.latent_quantizer.at(0), quantizer.at(0)
    q = symbols(before.latent, ours)
    assert np.mean(q != symbols(after.latent, theirs)) < 0.1
    started = [m.decoder.start(s[0]) for m, s in ((model, before.state), (folded, after.state))]
    np.testing.assert_allclose(*(np.concatenate(s.grus) for s in started), atol=1e-5)
    level = jnp.zeros(9, int)
    rows = [
        m.decoder.scan(s, jdred.rdovae.DecoderInput(dequantize(q, at), level))[1]
        for m, s, at in zip((model, folded), started, (ours, theirs), strict=True)
    ]
    np.testing.assert_allclose(*rows, atol=0.02)


# --- whole sets


def test_imported_set_is_written_loaded_and_exported_again(libopus, tmp_path, capsys):
    """The blob of the imported networks is libopus's own, byte for byte; but for the bias of other machines."""
    path = files.write_models(libopus, tmp_path / "set", "libopus 1.6.1")
    loaded = jdred.load(str(path))
    assert (loaded.wire, libopus.wire) == (LIBOPUS, LIBOPUS)
    assert jax.tree.structure(loaded) == jax.tree.structure(libopus)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(libopus), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert main(["export-libopus", str(path), str(tmp_path / "out.bin")]) == 0
    assert capsys.readouterr().out.count("error 0 %") == 4
    ours, theirs = (records.read_arrays(p) for p in (tmp_path / "out.bin", weights_file("weights_blob.bin")))
    assert list(ours) == list(theirs)
    for name, array in theirs.items():
        if name.startswith("dense_final_upsampler"):  # Its padding has weights that nothing reads.
            continue
        if name.endswith("_subias"):
            np.testing.assert_allclose(ours[name], array, atol=1e-5)
        else:
            assert ours[name].tobytes() == array.tobytes(), name
    with pytest.raises(LibopusError, match="dred_rdovae_stats_data.c"):
        files.import_models(tmp_path / "out.bin")
    again = files.import_models(tmp_path / "out.bin", tmp_path / "out.json")
    for ours, theirs in zip(jax.tree.leaves(again), jax.tree.leaves(libopus), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fine_tuned_network_goes_back(libopus, tmp_path):
    """A gradient step in JAX, with activations as libopus has them, then a blob of the new weights."""
    model = networks.rounded(libopus.predictor, networks.PREDICTOR_1_6)
    xs = jax.random.normal(jax.random.key(0), (4, 57))
    slope = jax.grad(lambda m: jnp.sum(m.scan(m.init_state(), xs)[1] ** 2))(model)
    tuned = jax.tree.map(lambda w, g: w - 1e-3 * g, libopus.predictor, jax.tree.unflatten(
        jax.tree.structure(libopus.predictor), jax.tree.leaves(slope)))  # fmt: skip
    weights.write(
        tmp_path / "plc.npz", weights.flatten(tuned), {"kind": "plc", "model": vars(tuned.config)}, half=False
    )
    loss = files.export(str(tmp_path / "plc.npz"), tmp_path / "plc.bin")["plc"]
    assert 0 < loss < 0.01
    layers = networks.load_layers(records.read_arrays(tmp_path / "plc.bin"), (networks.PREDICTOR_1_6,))
    back = networks.predictor(layers)
    moved = np.abs(back.dense_out.kernel[...] - libopus.predictor.dense_out.kernel[...]).max()
    assert moved > 1e-4
    np.testing.assert_allclose(back.first.kernel[...], tuned.first.kernel[...], atol=0.02)


def test_other_architectures_are_refused(tmp_path):
    half = FARGAN(FARGANConfig.half(), rngs=nnx.Rngs(0))
    config = {"kind": "fargan", "model": json.loads(json.dumps(vars(half.config)))}
    config["model"]["grus"] = tuple(config["model"]["grus"])
    weights.write(tmp_path / "half.npz", weights.flatten(half), config)
    with pytest.raises(ValueError, match="libopus 1.6 has FARGANConfig"):
        files.export(str(tmp_path / "half.npz"), tmp_path / "half.bin")
    assert not (tmp_path / "half.bin").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("[1]", "not a set"), ("{", "not a set"), ('{"rdovae": "rdovae"}', "found no"), ("{}", "found no")],
)
def test_sets_that_are_none(tmp_path, content, complaint):
    (tmp_path / "set.json").write_text(content)
    with pytest.raises(weights.CheckpointError, match=complaint):
        jdred.load(str(tmp_path / "set.json"))
    with pytest.raises(weights.CheckpointError, match="no model set"):
        jdred.load(str(tmp_path / "absent.json"))


# --- marks


def test_who_reads_what_is_told_by_letter_and_version():
    packet = attach_redundancy(attach_redundancy(b"\x48speech", b"\x0ctheirs", LIBOPUS), b"\x05ours")
    assert find_redundancy(packet, LIBOPUS) == b"\x0ctheirs"
    assert find_redundancy(packet) == find_redundancy(packet, JDRED) == b"\x05ours"
    newer = attach_redundancy(packet, b"\x0dfuture", LIBOPUS)
    assert find_redundancy(newer, LIBOPUS) == b"\x0ctheirs"
    assert (LIBOPUS.announced(12), LIBOPUS.announced(13), JDRED.announced(25), JDRED.announced(26)) == (
        0,
        None,
        26,
        None,
    )
    assert LIBOPUS.version_byte(7) == 12


def test_a_payload_counts_from_the_frame_that_carries_it(libopus, packets):
    """The same payload on the second frame of 20 ms: its rows are two frames of 10 ms later."""
    stream = parity_link.packets_of(packets, "it_m_0/64k_fec0_dred100")
    payload = find_redundancy(stream[60], LIBOPUS)
    single = extension.strip(stream[60], EXTENSION_ID)
    parts = opus_packet.parse(single)
    entry = bytes([EXTENSION_ID << 1]) + b"D" + payload
    twice = parts._replace(frames=parts.frames * 2, padding=bytes([1 << 1]) + entry)
    reader = RedundancyReader(libopus)
    first = reader.read(attach_redundancy(single, payload, LIBOPUS), 20)
    second = reader.read(opus_packet.build(twice), 20)
    assert second.newest == first.newest + 2
    assert second.count >= first.count > 8
    np.testing.assert_array_equal(first.rows[:8], second.rows[:8])


# --- against libopus's outputs


def test_linear_layers(libopus):
    check(parity.linear_layers(libopus, np.load(weights_file("layer_check_1_6_1.npz"))))


@pytest.mark.parametrize("name", parity.NETWORKS)
def test_networks(libopus, name):
    check(parity.NETWORKS[name](libopus, dict(load_golden(name))))


@pytest.mark.parametrize("compare", parity_link.PACKETS)
def test_packets(libopus, packets, compare):
    if compare is parity_link.sender_choices:
        packets = {key: value for key, value in packets.items() if not key.startswith(("fr_f_2/", "ru"))}
    check(compare(libopus, packets))


def test_rounding_brings_networks_nearer_to_libopus(libopus):
    """Half of the difference is its rounding of activations."""
    data = dict(load_golden("fargan"))
    rounded = libopus._replace(
        predictor=networks.rounded(libopus.predictor, networks.PREDICTOR_1_6),
        vocoder=networks.rounded(libopus.vocoder, networks.FARGAN_1_6),
    )
    for compare, what in ((parity.predictor, "PLC"), (parity.vocoder, "conditioning")):
        plain, nearer = (
            [row.measured for row in compare(models, data) if what in row.what] for models in (libopus, rounded)
        )
        assert np.all(np.array(nearer) < 0.6 * np.array(plain))


@pytest.mark.parametrize("trace", ["rand20", "ge20l"])
def test_golden_loss_traces_are_repaired_as_well_as_by_libopus(libopus, packets, trace):
    data = {key: value for key, value in load_golden("receive").items() if trace + "/" in key or "/" not in key}
    check(parity_link.repairs(libopus, data, packets))


def test_our_sender_says_what_libopus_says(libopus, packets):
    """Beside libopus's own packets of the same sound: nearly always the same symbols, and the same offset in speech.

    What is silent is told otherwise: by level here, by a classifier there.
    """
    sender = jdred.Sender(libopus, jdred.SenderConfig(level=6, slope=5, dred_duration_ms=560))
    pcm, stream = packets["fr_f_2/pcm"] / np.float32(32768), parity_link.packets_of(packets, "fr_f_2/40k_fec0_dred100")
    same, total, aligned = 0, 0, 0
    for number, theirs in enumerate(stream[:50]):
        found = find_redundancy(sender.send(pcm[320 * number : 320 * (number + 1)]), LIBOPUS)
        wanted = find_redundancy(theirs, LIBOPUS)
        if found is None or wanted is None:
            continue
        ours, theirs = (libopus.payloads.decode(data) for data in (found, wanted))
        if ours.header != theirs.header:
            continue
        aligned += 1
        count = min(ours.chunks, theirs.chunks)
        assert count >= theirs.chunks - 1
        same, total = same + np.sum(ours.latents[:count] == theirs.latents[:count]), total + 25 * count
    assert aligned > 40
    assert same > 0.95 * total


def test_files_of_libopus_are_inspected_and_repaired(libopus, packets, tmp_path, capsys):
    models = str(files.write_models(libopus, tmp_path / "set", "libopus"))
    stream = parity_link.packets_of(packets, "it_m_0/64k_fec0_dred100")[:40]
    (tmp_path / "call.opus").write_bytes(ogg.write(stream, ogg.Head(1, 312, 16_000), 48 * 20 * 40 - 312))
    assert main(["inspect", str(tmp_path / "call.opus"), "--json", "--models", models]) == 0
    told = json.loads(capsys.readouterr().out)
    infos = [info["redundancy"] for info in told["packets"]]
    wanted = packets["it_m_0/64k_fec0_dred100/info"][:40]
    columns = list(map(str, packets["info_columns"]))
    chunks = wanted[:, columns.index("chunks_in_payload")]
    assert [info and info["chunks"] for info in infos] == [int(c) if c > 0 else None for c in chunks]
    (tmp_path / "trace.txt").write_text("0" * 20 + "11" + "0" * 18)
    arguments = ["--trace", str(tmp_path / "trace.txt"), "--models", models]
    assert main(["decode", str(tmp_path / "call.opus"), str(tmp_path / "heard.wav"), *arguments]) == 0
    assert "2 x 20 ms DRED" in capsys.readouterr().out
