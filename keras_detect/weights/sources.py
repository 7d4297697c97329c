"""What weights can be restored from: readers in a table, each for one kind of source, asked in turn."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras
from absl import logging

from keras_detect.files import check_regular
from keras_detect.weights.folded_batch_norm import folded_layers, unfold_batchnorm
from keras_detect.weights.restore import RestoreReport, restore

KINDS = ("detection", "classification")
OTHER_PARTS = "not part of the backbone"
BACKBONE_ALONE = ((r"(?!backbone/).*", OTHER_PARTS),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How the weights of one model are read from one source.

    Attributes:
        reader: has `shapes`, `ignored`, `source` and `read`, as `weights.restore.match` expects it.
        name_map: our weight name -> name in the source, a dict or a function.
        skip, ignore, may_differ: rules of `weights.restore.match`.
        notes: what differs although the weights fit; logged.
    """

    reader: Any
    name_map: Any
    skip: tuple = ()
    ignore: tuple = ()
    may_differ: tuple = ()
    notes: tuple = ()


@dataclasses.dataclass(frozen=True)
class SourceReader:
    """One kind of source.

    Attributes:
        what: the sources it opens, for messages.
        opens: source -> whether it is of this kind.
        plan: (model, source, kind) -> `Plan`; raises `ValueError` for a model or kind that it cannot serve.
    """

    what: str
    opens: Callable
    plan: Callable


_READERS: dict[str, SourceReader] = {}


def register_reader(name: str, *, what: str, opens: Callable[[Any], bool]):
    """Decorator that files `plan(model, source, kind) -> Plan` as the reader called `name` of one kind of source.

    A new container is one such function; a package above registers its readers when it is imported. Readers are asked
    in the order in which they were registered, so `opens` looks for what only its own sources have.
    """

    def decorate(plan):
        _READERS[name] = SourceReader(what, opens, plan)
        return plan

    return decorate


def restorable() -> str:
    """The sources that can be opened, for messages."""
    return "; ".join(reader.what for reader in _READERS.values())


def restore_model(
    model, source: Any, kind: str = "detection", calibration_images=None, moving_averages: bool = False
) -> RestoreReport:
    """Restores `model` from `source`, strictly: every weight is claimed by one variable and vice versa.

    Args:
        model: a `DetectionModel`.
        source: what a reader opens; `restorable()` lists the kinds.
        kind: "detection" restores everything, or everything but the class head where the number of classes differs;
            "classification" restores the backbone alone.
        calibration_images: images for `unfold_batchnorm`, which runs where the source's batch norm is folded.
        moving_averages: take the moving averages of the weights where the source has them.

    Returns:
        `RestoreReport`; its summary is logged, as a warning where a class head was not restored.

    Raises:
        ValueError: an unknown kind, a source that nothing opens, or a model and a source that do not fit (nothing was
            restored then).
        FileNotFoundError: no such file or folder.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}. Received: kind={kind!r}")
    plan = _reader(source).plan(model, source, kind)
    if moving_averages:
        plan = _averaged(plan)
    report = restore(
        model.named_weights(),
        plan.name_map,
        plan.reader,
        skip=plan.skip,
        ignore=plan.ignore,
        may_differ=plan.may_differ,
    )
    if calibration_images is not None:
        unfold_batchnorm(model, calibration_images)
    report = dataclasses.replace(report, folded=len(folded_layers(model)), ranges=_ranges(plan.reader))
    partly = kind == "detection" and report.kept
    report.log(logging.WARNING if partly or report.folded else logging.INFO)
    for note in plan.notes:
        logging.warning("%s: %s", plan.reader.source, note)
    return report


def _averaged(plan):
    """The plan with the averages of its weights, or with a note that there are none."""
    reader = plan.reader.averaged() if hasattr(plan.reader, "averaged") else None
    if reader is None:
        note = "holds no moving averages of its weights; the weights themselves were restored"
        return dataclasses.replace(plan, notes=(*plan.notes, note))
    return dataclasses.replace(plan, reader=reader)


def _ranges(reader):
    return reader.quantization_ranges() if hasattr(reader, "quantization_ranges") else {}


def _reader(source):
    if isinstance(source, str | os.PathLike):
        check_regular(source)
    for reader in _READERS.values():
        if reader.opens(source):
            return reader
    known = f"Weights are restored from: {restorable()}."
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"Received a {type(source).__name__} as a source of weights. {known}")
    if not pathlib.Path(source).expanduser().exists():
        raise FileNotFoundError(f"{source}: no such checkpoint, file or folder. {known}")
    raise ValueError(f"{source}: nothing in it that can be restored. {known}")


def is_path(source, *suffixes: str) -> bool:
    """Whether `source` is a path with one of `suffixes`, whether or not there is such a file."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).endswith(suffixes)


def is_model(source) -> bool:
    """Whether `source` is a Keras model in memory."""
    return isinstance(source, keras.Model)
