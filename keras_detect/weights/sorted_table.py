"""The sorted table of LevelDB, in which TensorFlow stores the index of a checkpoint; read without trust.

Every length is checked before it is used, every block's checksum is compared, and what the table may hold is bounded.
Format: LevelDB, `doc/table_format.md`; TensorFlow, `tensorflow/core/lib/io/table*`.
"""

import struct
from collections.abc import Iterator

from keras_detect.weights.crc32c import masked_crc32c

MAX_BYTES = 16 * 1024 * 1024  # of a table; the index of the zoo's largest checkpoint has 170 kB
MAX_ENTRIES = 100_000
MAX_KEY = 1024  # bytes of one key
MAX_KEYS = 16 * 1024 * 1024  # bytes of all keys: a stored key may share its beginning with the one before it

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5  # of a block: how it is compressed, and a checksum
_PLAIN, _SNAPPY = 0, 1


class TableError(ValueError):
    """A table that is damaged, or larger than what is supported. One line, without the file's name."""


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a table in order of their keys.

    Args:
        data: the whole file.

    Yields `(key, value)`. Raises `TableError`.
    """
    if len(data) > MAX_BYTES:
        raise TableError(f"it holds more than the {MAX_BYTES} bytes that are supported")
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise TableError("no table, or a truncated one")
    footer = data[-_FOOTER:-8]
    _, position = _handle(footer, 0)  # of the meta index, which TensorFlow does not use
    (offset, size), _ = _handle(footer, position)
    last, count, total, end = None, 0, 0, 0
    for _, handle in _entries(_block(data, offset, size)):
        (offset, size), _ = _handle(handle, 0)
        if offset < end:
            raise TableError("its blocks overlap")
        end = offset + size
        for key, value in _entries(_block(data, offset, size)):
            if last is not None and key <= last:
                raise TableError("its keys are not in order")
            last, count, total = key, count + 1, total + len(key)
            if count > MAX_ENTRIES or total > MAX_KEYS:
                raise TableError(f"more than {MAX_ENTRIES} entries or {MAX_KEYS} bytes of keys")
            yield key, value


def varint(data: bytes, position: int) -> tuple[int, int]:
    """`(number, next position)` of a variable-length integer of up to 64 bits. Raises `TableError`."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise TableError("a number is cut short")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise TableError("a number is longer than 64 bits")


def _handle(data, position):
    """`((offset, size), next position)` of a block."""
    offset, position = varint(data, position)
    size, position = varint(data, position)
    return (offset, size), position


def _block(data, offset, size):
    """The content of the block at `offset`, unpacked."""
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER:
        raise TableError("a block is outside the file")
    (wanted,) = struct.unpack("<I", data[end + 1 : end + _TRAILER])
    if masked_crc32c(data[offset : end + 1]) != wanted:
        raise TableError("the checksum of a block does not match")
    if data[end] == _PLAIN:
        return data[offset:end]
    if data[end] == _SNAPPY:
        return _unsnappy(data[offset:end])
    raise TableError(f"a block is compressed in an unknown way ({data[end]})")


def _entries(block):
    """`(key, value)` of every entry of a block; a key may share its first bytes with the one before it."""
    if len(block) < 4:
        raise TableError("a block is cut short")
    (restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise TableError("a block is cut short")
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position)
        added, position = varint(block, position)
        length, position = varint(block, position)
        if shared > len(key) or position + added + length > end:
            raise TableError("an entry reaches over the end of its block")
        if shared + added > MAX_KEY:
            raise TableError(f"a key of {shared + added} bytes; supported: {MAX_KEY}")
        key = key[:shared] + block[position : position + added]
        position += added
        yield key, block[position : position + length]
        position += length


def _unsnappy(data):
    """Unpacks a block of Google's Snappy (`format_description.txt`): runs of bytes, and copies of earlier ones."""
    size, position = varint(data, 0)
    if size > MAX_BYTES:
        raise TableError(f"a block of {size} bytes; supported: {MAX_BYTES}")
    result = bytearray()
    while position < len(data):
        tag = data[position]
        position += 1
        if tag & 3 == 0:
            length, position = _literal(data, tag >> 2, position)
            result += data[position : position + length]
            position += length
        else:
            width = (0, 1, 2, 4)[tag & 3]
            offset, position = _number(data, position, width)
            length = (tag >> 2) + 1
            if width == 1:
                length, offset = ((tag >> 2) & 7) + 4, offset | (tag >> 5) << 8
            if not 0 < offset <= len(result):
                raise TableError("a compressed block points outside itself")
            start = len(result) - offset
            piece = bytes(result[start : start + length])  # shorter than the copy where it repeats itself
            result += (piece * (length // len(piece) + 1))[:length]
        if len(result) > size:
            raise TableError("a compressed block is longer than it says")
    if len(result) != size:
        raise TableError("a compressed block is shorter than it says")
    return bytes(result)


def _literal(data, code, position):
    """`(length, next position)` of a run of bytes, which must lie inside `data`."""
    length = code
    if code >= 60:
        length, position = _number(data, position, code - 59)
    if position + length + 1 > len(data):
        raise TableError("a compressed block is cut short")
    return length + 1, position


def _number(data, position, width):
    if position + width > len(data):
        raise TableError("a compressed block is cut short")
    return int.from_bytes(data[position : position + width], "little"), position + width
