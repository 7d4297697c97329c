"""Presets that ship inside the package, weights included: they need no network and no cache."""

import pathlib

from keras_detect.presets import directory
from keras_detect.registry import provide

FOLDER = pathlib.Path(__file__).with_name("weights")

#: registered name of a backbone -> the packaged preset that `from_backbone(name)` takes its weights from
BACKBONES = {"mobilenet_v2": "ssd_mobilenet_v2_oidv4", "inception_v100": "frcnn_inception_v100"}


def names():
    """Names of the packaged presets, sorted: the preset folders below `FOLDER`."""
    return sorted(entry.parent.name for entry in FOLDER.glob(f"*/{directory.CONFIG}"))


def folder(name):
    """The folder of a packaged preset, or `None` for every other name."""
    return FOLDER / name if name in names() else None


@provide("packaged_backbones")
def backbones() -> dict[str, tuple[str, pathlib.Path]]:
    """`{registered name of a backbone: (preset, its folder)}` of the backbones that the package has weights for."""
    present = names()
    return {backbone: (name, FOLDER / name) for backbone, name in BACKBONES.items() if name in present}
