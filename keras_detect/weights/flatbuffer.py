"""A reader of FlatBuffers that trusts no offset and no length: every access is checked against the size of the file."""

import struct
from collections.abc import Sequence

_SHARED = 8  # how often, on average, a byte may be read: tables may share vectors, and a hostile file shares one a lot


class FlatBufferError(ValueError):
    """An offset or a length that points outside the file, or more content than the file can hold."""


class Table:
    """A table of a FlatBuffer: fields by their number in the schema.

    Args:
        buffer: the whole file.
        position: of the table in it.
        left: `[number of elements that may still be read]`, shared by all tables of a file.

    Raises:
        FlatBufferError: the table does not lie inside the file.
    """

    def __init__(self, buffer: bytes, position: int, left: list[int]):
        self.buffer, self.position, self._left = buffer, position, left
        self._vtable = position - _unpack("<i", buffer, position)
        self._size = _unpack("<H", buffer, self._vtable)

    def scalar(self, field: int, kind: str, default: float = 0):
        """A number; `kind` is a format of `struct`, "<b" to "<Q"."""
        start = self._field(field)
        return default if start is None else _unpack(kind, self.buffer, start)

    def string(self, field: int) -> str:
        """A text; "" where there is none."""
        start, length = self._vector(field, 1)
        return "" if start is None else bytes(self.buffer[start : start + length]).decode("utf-8", "replace")

    def bytes(self, field: int) -> memoryview | None:
        """The bytes of a vector of bytes, without a copy; `None` where there is none."""
        start, length = self._vector(field, 1, free=True)
        return None if start is None else memoryview(self.buffer)[start : start + length]

    def numbers(self, field: int, kind: str) -> Sequence:
        """A vector of numbers as a tuple; `kind` is a letter of `struct`, such as "i"."""
        start, length = self._vector(field, struct.calcsize(f"<{kind}"))
        return () if start is None else struct.unpack_from(f"<{length}{kind}", self.buffer, start)

    def table(self, field: int) -> "Table | None":
        """A table; `None` where there is none."""
        start = self._field(field)
        return None if start is None else self._at(start)

    def tables(self, field: int) -> list["Table"]:
        """A vector of tables."""
        start, length = self._vector(field, 4)
        return [] if start is None else [self._at(place) for place in range(start, start + 4 * length, 4)]

    def _at(self, place):
        return Table(self.buffer, place + _unpack("<I", self.buffer, place), self._left)

    def _field(self, field):
        """Position of a field's content, `None` where the table has it not."""
        entry = 4 + 2 * field
        if entry + 2 > self._size:
            return None
        offset = _unpack("<H", self.buffer, self._vtable + entry)
        return self.position + offset if offset else None

    def _vector(self, field, size, free=False):
        """`(position of the first element, number of elements)`, `(None, 0)` where the table has no such field."""
        start = self._field(field)
        if start is None:
            return None, 0
        start += _unpack("<I", self.buffer, start)
        length = _unpack("<I", self.buffer, start)
        if length * size > len(self.buffer) - start - 4:
            raise FlatBufferError(f"a vector of {length} elements at byte {start} reaches past the end of the file")
        self._left[0] -= 0 if free else length
        if self._left[0] < 0:
            raise FlatBufferError("its tables share more content than a file of its size holds")
        return start + 4, length


def root(buffer: bytes) -> Table:
    """The root table of a file. Raises `FlatBufferError` for a file that is too short."""
    return Table(buffer, _unpack("<I", buffer, 0), [_SHARED * len(buffer)])


def _unpack(kind, buffer, position):
    if not 0 <= position <= len(buffer) - struct.calcsize(kind):
        raise FlatBufferError(f"byte {position} is outside the file of {len(buffer)} bytes")
    return struct.unpack_from(kind, buffer, position)[0]
