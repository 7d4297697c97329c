"""How messages show what was received: printable, on one line and cut, for any type, size and depth."""

import os
import reprlib
from typing import Any

_MESSAGE_LENGTH, _VALUE_LENGTH = 1200, 80
_BITS = 256  # a longer integer is told by its size: Python itself refuses to write one of 4300 digits


class _Short(reprlib.Repr):
    """`repr` that opens few levels and entries, so that no size, depth or shared reference costs anything."""

    def __init__(self):
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxarray = 4
        self.maxstring = self.maxother = 40

    def repr_bytes(self, x, level):
        return repr(x) if len(x) <= self.maxstring else f"({len(x)} bytes)"

    repr_bytearray = repr_bytes

    def repr_int(self, x, level):
        return repr(x) if x.bit_length() <= _BITS else f"(an integer of {x.bit_length()} bits)"


_SHORT = _Short()


def shown(value: Any, length: int = _VALUE_LENGTH) -> str:
    """An id, a name, a path or any other value as messages show it, in about `length` characters at most.

    Texts and paths stand as they are, the rest as Python writes it.
    """
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, str):
        return one_line(_SHORT.repr(value), length)
    return one_line(value if len(value) <= 2 * length else value[:length] + value[-length:], length)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 image", "2,000 images", "1 class", "2 boxes"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{'es' if noun[-1] in 'sx' else 's'}"


def one_line(text: Any, length: int = _MESSAGE_LENGTH) -> str:
    """A text as one line that can be printed, without its middle where it is too long.

    What a terminal would obey instead of showing it (control characters, lone surrogates) is escaped.
    """
    text = " ".join(str(text).split())
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
    return text if len(text) <= length else f"{text[: 2 * length // 3]} ... {text[-length // 4 :]}"


def _escaped(letter):
    return letter.encode("unicode_escape").decode()
