"""Presets of our own that ship inside the package, weights included: they need no network and no cache."""

import pathlib

from keras_detect.presets import directory

FOLDER = pathlib.Path(__file__).with_name("weights")


def names():
    """Names of the packaged presets, sorted: the preset folders below `FOLDER`."""
    return sorted(entry.parent.name for entry in FOLDER.glob(f"*/{directory.CONFIG}"))


def folder(name):
    """The folder of a packaged preset, or `None` for every other name."""
    return FOLDER / name if name in names() else None
