"""CRC-32C (Castagnoli), the checksum of TensorFlow's record and checkpoint files, in numpy."""

import functools

import numpy as np

_POLYNOMIAL = 0x82F63B78  # bit-reversed
_ONES = 0xFFFFFFFF
_MASK_DELTA = 0xA282EAD8
_CHUNK = 1024 * 1024  # bytes at once, which stay in the processor's cache

#: exponents of a multiple of the CRC's polynomial with six terms, x^266 + x^143 + ... + 1. Squared k times, it is a
#: multiple again and its exponents are 2^k times as large: whole bytes from k = 3 on, whole words from k = 6 on.
_DEGREE, _TERMS = 266, (143, 121, 88, 71, 0)


def masked_crc32c(data) -> int:
    """The checksum as TensorFlow stores it: rotated by 15 bits, plus a constant.

    Args:
        data: bytes, or any contiguous buffer.
    """
    value = crc32c(data)
    return (((value >> 15) | (value << 17)) + _MASK_DELTA) & _ONES


def crc32c(data) -> int:
    """The CRC-32C of a buffer as an unsigned 32-bit integer.

    A CRC is the remainder of the buffer, taken as a polynomial with the first bit as its highest term. Adding multiples
    of the divisor does not change it, so the first part of a long buffer is folded into the rest by a few exclusive ors
    of whole arrays, until some hundred bytes are left for the plain loop.

    Args:
        data: bytes, or any contiguous buffer.
    """
    view = memoryview(data).cast("B") if len(data) else memoryview(b"")
    register = _ONES
    for start in range(0, len(view), _CHUNK):
        chunk = view[start : start + _CHUNK]
        register = _bytewise(_folded(chunk, register), 0) if len(chunk) > _DEGREE else _bytewise(chunk, register)
    return register ^ _ONES


def _bytewise(data, register):
    table = _table()
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register


def _folded(chunk, register):
    """The last `_DEGREE` bytes of a buffer with the same remainder as `chunk` after `register`."""
    padding = -len(chunk) % 8  # zeros at the front change nothing
    array = np.zeros(padding + len(chunk), np.uint8)
    array[padding:] = np.frombuffer(chunk, np.uint8)
    array[padding : padding + 4] ^= np.frombuffer(register.to_bytes(4, "little"), np.uint8)
    squarings = max(0, (len(array) // _DEGREE).bit_length() - 1)
    for power in range(squarings, -1, -1):
        words = power >= 3
        array = _fold(array.view(np.uint64) if words else array, 1 << (power - 3 if words else power)).view(np.uint8)
    return array.tobytes()


def _fold(array, factor):
    """The last `_DEGREE * factor` items of `array`, with what the others add to them."""
    degree, start = _DEGREE * factor, 0
    at_once = (_DEGREE - _TERMS[0]) * factor
    while (length := min(at_once, len(array) - start - degree)) > 0:
        first = array[start : start + length]
        for term in _TERMS:
            place = start + degree - term * factor
            array[place : place + length] ^= first
        start += length
    return array[start:]


@functools.cache
def _table():
    """`[256]`: the register after one byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table
