"""Files and folders that appear whole or not at all: written beside their place, then renamed into it."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

PART = "part_of_"  # what the names of unfinished files begin with


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Context of a path to write to; the file takes the place of `path` when the block ends, and vanishes if it raises.

    The path has the suffix of the final one, which some writers (Keras' `save`) look at. Missing parent folders are
    created.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PART}{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_file(path: str | os.PathLike, content: str | bytes) -> pathlib.Path:
    """Writes text (UTF-8, line ends as given) or bytes and returns the path."""
    with replacing_file(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return pathlib.Path(path)


def write_json(path: str | os.PathLike, content: Any, indent: int | None = 1) -> pathlib.Path:
    """Writes what JSON can hold. Raises `ValueError` for NaN and infinity, which JSON has no words for."""
    return write_file(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Context of an empty folder to fill; it takes the place of `folder` when the block ends and vanishes if it raises.

    An older folder of that name is removed only once the new one is in its place. It lies on the same disk.
    """
    folder = pathlib.Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        older = work / "older"
        if folder.exists():
            os.rename(folder, older)
        try:
            os.rename(new, folder)
        except OSError:
            if older.exists():
                os.rename(older, folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
