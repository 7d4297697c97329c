"""Reads safetensors files without torch: a header in JSON, then bytes. Nothing in it is trusted."""

import json
import math
import mmap
import os
import pathlib

import numpy as np

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own bound


class SafetensorsError(ValueError):
    """A safetensors file that is damaged, truncated or of another kind. One line that names the file."""


class SafetensorsFile:
    """Names, shapes and values of a safetensors file.

    Args:
        path: of the file.

    Attributes:
        shapes: `{name: shape}`.

    Raises:
        FileNotFoundError: no such file.
        SafetensorsError: no such file of weights, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike):
        self.source = os.fspath(path)
        with open(pathlib.Path(path).expanduser(), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, _LONGEST_HEADER):
                raise SafetensorsError(f"{self.source}: not a safetensors file, or truncated")
            header = self._header(file.read(length))
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._start = 8 + length
        self._entries = {name: self._entry(name, entry, size) for name, entry in header.items()}
        self.shapes = {name: shape for name, (_, shape, _, _) in self._entries.items()}

    def read(self, name: str) -> np.ndarray:
        """The value under `name`, float32 but for integers. Raises `SafetensorsError` where it is not finite."""
        dtype, shape, start, end = self._entries[name]
        values = np.frombuffer(self._content[start:end], _DTYPES[dtype]).reshape(shape)
        if dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        if dtype.startswith(("F", "B")):
            values = values.astype(np.float32)
            if not np.isfinite(values).all():
                raise SafetensorsError(f"{self.source}: {name[:100]!r} holds NaN or infinite values")
        return values

    def _header(self, content):
        try:
            header = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SafetensorsError(f"{self.source}: its header is not JSON") from error
        if not isinstance(header, dict):
            raise SafetensorsError(f"{self.source}: its header is not a table of tensors")
        header.pop("__metadata__", None)
        return header

    def _entry(self, name, entry, size):
        """`(dtype, shape, start, end)` of a tensor, in bytes of the file."""
        try:
            dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            whole = all(isinstance(number, int) and number >= 0 for number in (*shape, start, end))
            fits = whole and math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize == end - start
        except (KeyError, TypeError, ValueError) as error:
            raise SafetensorsError(f"{self.source}: damaged, no description of {name[:100]!r}") from error
        if not fits or end > size - self._start:
            raise SafetensorsError(f"{self.source}: damaged, {name[:100]!r} does not lie inside the file as described")
        return dtype, tuple(shape), self._start + start, self._start + end
