"""Checkpoint files name for name and value for value as TensorFlow reads them; damaged ones end in one line."""

import pathlib
import random
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest

from keras_detect.weights import sorted_table
from keras_detect.weights.checkpoint_file import CheckpointError, CheckpointFile, read_index
from keras_detect.weights.sorted_table import TableError, read_table
from tests import goldens
from tests.weights import tables

INDICES = sorted(goldens.SHARED.glob("**/*.index")) or [None]
VALUES = {
    "global_step": np.int64(7),
    "layer/a/kernel": np.arange(2400, dtype="float32").reshape(40, 60),
    "layer/a/bias": np.float32([1, -2, 3]),
    "layer/b/half": np.float16([[0.5, 2]]),
    "layer/b/brain": np.array([1.5, -3], ml_dtypes.bfloat16),
    "layer/b/double": np.float64([1e300]),
    "layer/b/flags": np.array([True, False]),
    "layer/b/bytes": np.uint8([[1, 2], [3, 255]]),
    "layer/b/none": np.zeros((0, 3), "float32"),
    "layer/b/complex": np.complex64([1 + 2j]),
}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """A name-based checkpoint as TensorFlow 1 wrote it, with a text beside the numbers."""
    import tensorflow as tf

    prefix = tmp_path_factory.mktemp("checkpoint") / "model.ckpt-7"
    values = {**VALUES, "text": b"hello"}
    with tf.device("cpu"):
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(values),
            shape_and_slices=[""] * len(values),
            tensors=[tf.constant(value) for value in values.values()],
        )
    return prefix


def test_every_type_of_number(prefix):
    file = CheckpointFile(prefix)
    assert set(file.entries) == {*VALUES, "text"}
    for name, value in VALUES.items():
        entry = file.entries[name]
        assert (entry.shape, entry.dtype, entry.size) == (value.shape, value.dtype, value.nbytes)
        np.testing.assert_array_equal(file.read(name), value, strict=True)
    with pytest.raises(CheckpointError, match=r"cannot read 'text' from the data file \(it is stored as text"):
        file.read("text")
    with pytest.raises(KeyError):
        file.read("layer/c")


@pytest.mark.parametrize("index", INDICES, ids=lambda path: path and path.parent.name)
def test_every_index_here_is_read_as_tensorflow_reads_it(index):
    import tensorflow as tf

    goldens.require_shared("zoo")
    prefix = index.with_suffix("")
    theirs = tf.train.load_checkpoint(str(prefix))
    file = CheckpointFile(prefix)
    assert {name: list(entry.shape) for name, entry in file.entries.items()} == theirs.get_variable_to_shape_map()
    dtypes = theirs.get_variable_to_dtype_map()
    for name, entry in file.entries.items():
        assert entry.dtype is None or entry.dtype == dtypes[name].as_numpy_dtype
    if any(index.parent.glob("*.data-*")):
        for name in sorted(name for name, entry in file.entries.items() if entry.dtype is not None)[::7]:
            np.testing.assert_array_equal(file.read(name), theirs.get_tensor(name), strict=True)


def test_several_data_files_and_packed_blocks(prefix, tmp_path):
    """TensorFlow 1 packed the index with Snappy, and a checkpoint may have several data files."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    entries = list(read_table(prefix.with_name("model.ckpt-7.index").read_bytes()))
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(entries[0][1])
    header.num_shards = 2
    second = tensor_bundle_pb2.BundleEntryProto.FromString(dict(entries)[b"layer/a/bias"])
    second.shard_id = 1
    changed = {**dict(entries), b"": header.SerializeToString(), b"layer/a/bias": second.SerializeToString()}
    rows = sorted(changed.items())
    blocks = [(rows[4][0], tables.block(rows[:5])), (rows[-1][0], tables.block(rows[5:]))]
    for shard in (0, 1):
        shutil.copy(f"{prefix}.data-00000-of-00001", tmp_path / f"m.data-0000{shard}-of-00002")
    for packed in (False, True):
        (tmp_path / "m.index").write_bytes(tables.table(blocks, packed))
        file = CheckpointFile(tmp_path / "m")
        assert file.entries["layer/a/bias"].shard == 1
        for name, value in VALUES.items():
            np.testing.assert_array_equal(file.read(name), value, strict=True)
    (tmp_path / "m.data-00001-of-00002").unlink()
    with pytest.raises(CheckpointError, match=r"'layer/a/bias' from the data file \(m\.data-00001-of-00002 is missing"):
        file.read("layer/a/bias")


def _entry(**fields):
    from tensorflow.core.protobuf import tensor_bundle_pb2

    return tensor_bundle_pb2.BundleEntryProto(dtype=1, **fields).SerializeToString()


def _index(*rows, header=b"\x08\x01\x1a\x02\x08\x01"):
    return tables.table([(b"~", tables.block([(b"", header), *rows]))])


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("no table, or a truncated one", lambda: b""),
        ("no table, or a truncated one", lambda: b"x" * 1000),
        ("more than the", lambda: b"x" * (sorted_table.MAX_BYTES + 1)),
        ("a number is longer than 64 bits", lambda: b"\xff" * 40 + tables.MAGIC),
        ("the checksum of a block does not match", lambda: bytes(100) + tables.MAGIC),
        ("a block is outside the file", lambda: b"\0\0\xff\xff\3\5".ljust(40, b"\0") + tables.MAGIC),
        ("its keys are not in order", lambda: _index((b"b", _entry()), (b"a", _entry()))),
        ("its header is missing", lambda: tables.table([(b"b", tables.block([(b"a", b"")]))])),
        ("a key of 2000 bytes", lambda: _index((b"k" * 2000, b""))),
        ("a block is cut short", lambda: tables.table([(b"b", b"\0\0\xff\xff\xff\xff")])),
        ("an entry reaches over the end", lambda: tables.table([(b"b", b"\5\0\0" + tables.block([]))])),
        ("an entry reaches over the end", lambda: tables.table([(b"b", b"\0\0\x7f" + tables.block([]))])),
        ("it is empty", lambda: tables.table([])),
        ("0 data files", lambda: _index(header=b"\x08\0")),
        ("big-endian", lambda: _index(header=b"\x08\1\x10\1")),
        ("the entry '' is damaged", lambda: _index(header=b"\xff\xff\xff")),
        ("the entry 'w' is damaged", lambda: _index((b"w", b"\x08"))),
        ("is damaged", lambda: _index((b"\xff", b""))),
        ("a variable has the shape", lambda: _index((b"w", _entry(shape={"dim": [{"size": -1}]})))),
        ("a variable has the shape", lambda: _index((b"w", _entry(shape={"dim": [{"size": 1}] * 50})))),
        ("outside the data files", lambda: _index((b"w", _entry(shard_id=1)))),
        ("outside the data files", lambda: _index((b"w", _entry(offset=-5)))),
    ],
)
def test_a_forged_index_says_what_is_wrong(message, data):
    with pytest.raises(TableError, match=message):
        read_index(data())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": {"dim": [{"size": 2**40}] * 2}, "size": 2**62}, "bytes for the shape"),
        ({"shape": {"dim": [{"size": 2**30}]}, "size": 2**32}, "ends at byte"),
        ({"shape": {"dim": [{"size": 4}]}, "size": 16, "offset": 2**62}, "ends at byte"),
        ({"shape": {"dim": [{"size": 4}]}, "size": 16, "crc32c": 5}, "the checksum in m.data-00000-of-00001 does not"),
    ],
)
def test_a_forged_entry_allocates_nothing(prefix, tmp_path, entry, message):
    (tmp_path / "m.index").write_bytes(_index((b"w", _entry(**entry))))
    shutil.copy(f"{prefix}.data-00000-of-00001", tmp_path / "m.data-00000-of-00001")
    with pytest.raises(CheckpointError, match=f"m: cannot read 'w' from the data file .*{message}"):
        CheckpointFile(tmp_path / "m").read("w")


def test_blocks_cannot_repeat_or_grow_without_end():
    content = tables.block([])  # one without entries that every handle names once more
    file = content + b"\0" + struct.pack("<I", sorted_table.masked_crc32c(content + b"\0"))
    index = tables.block(
        [(struct.pack(">I", number), b"\0" + tables.varint(len(content))) for number in range(1000)], 1
    )
    handle = tables.varint(len(file)) + tables.varint(len(index))
    file += index + b"\0" + struct.pack("<I", sorted_table.masked_crc32c(index + b"\0"))
    with pytest.raises(TableError, match="overlap"):
        list(read_table(file + (b"\0\0" + handle).ljust(40, b"\0") + tables.MAGIC))
    growing = [(b"k" * (900 + number), b"") for number in range(100)]
    assert len(list(read_table(tables.table([(b"~", tables.block(growing, 100))])))) == 100


@pytest.mark.parametrize("bomb", [tables.varint(2**31) + b"\0a", tables.varint(9) + b"\0a\x21\x01" * 1000, b"\x05\xf0"])
def test_a_packed_block_is_bounded(bomb):
    file = bomb + b"\1"
    file += struct.pack("<I", sorted_table.masked_crc32c(file))
    index = tables.block([(b"a", b"\0" + tables.varint(len(bomb)))])
    handle = tables.varint(len(file)) + tables.varint(len(index))
    file += index + b"\0" + struct.pack("<I", sorted_table.masked_crc32c(index + b"\0"))
    with pytest.raises(TableError, match=r"a (compressed )?block"):
        list(read_table(file + (b"\0\0" + handle).ljust(40, b"\0") + tables.MAGIC))


@pytest.mark.parametrize("part", ["index", "block", "data"])
def test_three_hundred_mutations_end_in_one_line(prefix, tmp_path, part):
    """Of the index, of the block inside it (its checksum is made anew) and of the data file."""
    generator = random.Random(part)
    whole = {name: pathlib.Path(f"{prefix}.{name}").read_bytes() for name in ("index", "data-00000-of-00001")}
    block = tables.block(list(read_table(whole["index"])))
    refused = 0
    for trial in range(300):
        files = dict(whole)
        if part == "block":
            files["index"] = tables.table([(b"~", _mutated(generator, block))])
        else:
            name = next(name for name in files if name.startswith(part))
            files[name] = _mutated(generator, files[name])
        for name, content in files.items():
            (tmp_path / f"m.{name}").write_bytes(content)
        try:
            file = CheckpointFile(tmp_path / "m")
            values = {name: file.read(name) for name in file.entries if name != "text"}
            for name in VALUES if part != "block" else ():
                np.testing.assert_array_equal(values[name], VALUES[name], strict=True, err_msg=f"trial {trial}")
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(f"{tmp_path / 'm'}: cannot read "), trial
            assert len(str(error)) < 600
    assert refused > 200


def _mutated(generator, content):
    content = bytearray(content)
    kind = generator.choice(["flip", "flip", "bytes", "cut", "drop", "insert", "repeat"])
    place = generator.randrange(len(content))
    length = generator.randint(1, 40)
    if kind == "flip":
        content[place] ^= 1 << generator.randrange(8)
    elif kind == "bytes":
        content[place : place + length] = generator.randbytes(len(content[place : place + length]))
    elif kind == "cut":
        del content[place:]
    elif kind == "drop":
        del content[place : place + length]
    elif kind == "insert":
        content[place:place] = generator.randbytes(length)
    else:
        content[place:place] = content[place : place + length] * 5
    return bytes(content)
