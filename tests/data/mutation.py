"""What is done to one file of a good data set, and the two ways of doing it."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One corrupted file: `spoil(path)` changes the file `file` of a copy of the good data set `base`.

    `seen` says that a check has to say something; else the result may be good data, as after a flipped pixel.
    """

    base: str
    file: str
    what: str
    spoil: Callable
    seen: bool = False

    @property
    def name(self):
        return f"{self.base}/{self.file}: {self.what}"


def changed(change, *arguments):
    return lambda path: path.write_bytes(change(path.read_bytes(), *arguments))


def written(content):
    """Writes text or bytes, or what a function returns: large contents are made when they are needed."""

    def spoil(path):
        made = content() if callable(content) else content
        path.write_bytes(made if isinstance(made, bytes) else made.encode())

    return spoil
