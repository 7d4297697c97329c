"""Checkpoint files of TensorFlow (PREFIX.index and PREFIX.data-*): names, shapes and values, read without trust.

TensorFlow's own reader ends the process on a damaged index. This one refuses it: every length, offset and checksum is
compared before it is used, and nothing is allocated that the files on disk do not hold. TensorFlow gives the message
classes alone; it is imported when the first checkpoint is opened.
"""

import contextlib
import math
import os
import pathlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from keras_detect.messages import shown
from keras_detect.weights.crc32c import masked_crc32c
from keras_detect.weights.sorted_table import MAX_BYTES, TableError, read_table

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What the name of a variable ends with in an object checkpoint of TensorFlow 2."""

MAX_RANK = 32
_MAX_SHARDS = 10_000
_SLICE = b"\0"  # what the key of a part of a variable begins with

#: number of a type in TensorFlow's `types.proto` -> dtype; texts, resources, quantized types are not read
NUMPY_TYPES = {
    number: np.dtype(dtype)
    for number, dtype in {
        1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 8: np.complex64, 9: np.int64,
        10: np.bool_, 14: ml_dtypes.bfloat16, 17: np.uint16, 18: np.complex128, 19: np.float16, 22: np.uint32,
        23: np.uint64,
    }.items()
}  # fmt: skip


class CheckpointError(ValueError):
    """A checkpoint that is broken, truncated or of another kind. One line that names the file."""


class Entry(NamedTuple):
    """One variable of a checkpoint, as its index describes it.

    Attributes:
        shape: tuple of sizes.
        dtype: numpy's, or None for what is not read: texts, resources, a variable that is stored in slices.
        shard: number of the data file.
        offset, size: where the values lie in it, in bytes.
        checksum: masked CRC-32C of the values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype | None
    shard: int
    offset: int
    size: int
    checksum: int


class CheckpointFile:
    """The variables of one checkpoint: object checkpoints of TensorFlow 2 and name-based ones of TensorFlow 1.

    Args:
        prefix: path without suffix (".../ckpt-0"), beside which PREFIX.index is stored.
        source: what messages call the checkpoint; default: the prefix.

    Attributes:
        entries: `{name as stored: Entry}` in the order of the names.

    Raises:
        CheckpointError: no index, or one that is damaged or too large.
    """

    def __init__(self, prefix: str | os.PathLike, source: str | os.PathLike | None = None):
        self.prefix = pathlib.Path(prefix)
        self.source = str(source or prefix)
        try:
            self.entries, self._shards = read_index(_content(self.prefix.with_name(f"{self.prefix.name}.index")))
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{self.source}: cannot read the index of the checkpoint ({_reason(error)})"
            ) from error

    def read(self, name: str) -> np.ndarray:
        """The values of one variable.

        Raises:
            KeyError: no such variable.
            CheckpointError: the data file is missing, truncated or damaged, or holds a type that is not read.
        """
        entry = self.entries[name]
        try:
            return self._read(entry)
        except (ValueError, OSError) as error:
            raise CheckpointError(
                f"{self.source}: cannot read {quoted(name)} from the data file ({_reason(error)})"
            ) from error

    def _read(self, entry):
        if entry.dtype is None:
            raise ValueError("it is stored as text, in slices or in a type of number that is not supported")
        wanted = math.prod(entry.shape) * entry.dtype.itemsize
        if wanted != entry.size:
            raise ValueError(f"{entry.size} bytes for the shape {entry.shape}, which takes {wanted}")
        path = self.prefix.with_name(f"{self.prefix.name}.data-{entry.shard:05d}-of-{self._shards:05d}")
        if not path.is_file():
            raise ValueError(f"{path.name} is missing")
        with open(path, "rb") as file:
            length = os.fstat(file.fileno()).st_size
            if entry.offset + entry.size > length:
                raise ValueError(f"{path.name} ends at byte {length}, the variable at {entry.offset + entry.size}")
            file.seek(entry.offset)
            values = np.empty(entry.size, np.uint8)
            if file.readinto(values.data) != entry.size:
                raise ValueError(f"{path.name} is cut short")
        if masked_crc32c(values) != entry.checksum:
            raise ValueError(f"the checksum in {path.name} does not match")
        return values.view(entry.dtype).reshape(entry.shape)


def quoted(name: str) -> str:
    """A variable's name for a message: quoted, clipped, without control characters and without `VALUE`."""
    name = name.removesuffix(VALUE)
    return repr(shown(name, 200))


def _content(path):
    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)


def read_index(data: bytes) -> tuple[dict[str, Entry], int]:
    """The content of an index file: `({name: Entry}, number of data files)`. Raises `TableError`."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    entries, header = {}, None
    for key, value in read_table(data):
        try:
            if header is None:
                header = _header(key, tensor_bundle_pb2.BundleHeaderProto.FromString(value))
            elif not key.startswith(_SLICE):
                entries[key.decode("utf-8")] = _entry(tensor_bundle_pb2.BundleEntryProto.FromString(value), header)
        except (DecodeError, UnicodeDecodeError) as error:
            raise TableError(f"the entry {quoted(key.decode('utf-8', 'replace'))} is damaged") from error
    if header is None:
        raise TableError("it is empty")
    return entries, header


def _header(key, message):
    """The number of data files, which the first entry states; its key is empty."""
    if key != b"":
        raise TableError("its header is missing")
    if message.endianness != 0:
        raise TableError("its values are big-endian; supported: little-endian")
    if not 0 < message.num_shards <= _MAX_SHARDS:
        raise TableError(f"{message.num_shards} data files; supported: 1 to {_MAX_SHARDS}")
    return message.num_shards


def _entry(message, shards):
    shape = tuple(dimension.size for dimension in message.shape.dim)
    if message.shape.unknown_rank or len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise TableError(f"a variable has the shape {str(shape)[:60]}; supported: known sizes, {MAX_RANK} axes")
    if not 0 <= message.shard_id < shards or message.offset < 0 or message.size < 0:
        raise TableError("a variable is outside the data files")
    place = (message.shard_id, message.offset, message.size, message.crc32c)
    return Entry(shape, None if message.slices else NUMPY_TYPES.get(message.dtype), *place)


def _reason(error):
    with contextlib.suppress(AttributeError):
        return error.strerror or type(error).__name__
    return (str(error).splitlines() or [""])[0] or type(error).__name__
