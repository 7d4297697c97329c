"""Strict restoring: every weight of the model is claimed by exactly one variable of the checkpoint and vice versa."""

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

from absl import logging

from keras_detect.messages import counted
from keras_detect.weights.finite import defect

ADVICE = "Build the model from the checkpoint's own pipeline.config, or check `kind`."
UNFOLD = (
    "before fine-tuning, un-fold them on training images by keras_detect.weights.unfold_batchnorm(model, images) or "
    "restore(..., calibration_images=images)"
)
_LISTED = 20  # lines per kind of complaint in an error


class RestoreError(ValueError):
    """Model and checkpoint do not fit: all complaints in one text, one per line. Nothing was assigned."""


@dataclasses.dataclass(frozen=True)
class Match:
    """Who gets what: `assignments` {our path: checkpoint key}, `kept` {our path: reason}, `ignored` {key: reason}."""

    assignments: Mapping
    kept: Mapping
    ignored: Mapping


@dataclasses.dataclass(frozen=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        source: where the weights came from.
        restored: `{our path: checkpoint key}`.
        kept: `{our path: reason}` of variables that kept the value they had.
        ignored: `{checkpoint key: reason}` of what was not read.
        ranges: `{scope in the checkpoint: (minimum, maximum)}` of activations and weights that were trained with fake
            quantization (TensorFlow 1); empty otherwise.
        folded: how many batch norms of the model hold folded weights, which must be un-folded before fine-tuning.
    """

    source: str
    restored: Mapping
    kept: Mapping = dataclasses.field(default_factory=dict)
    ignored: Mapping = dataclasses.field(default_factory=dict)
    folded: int = 0
    ranges: Mapping = dataclasses.field(default_factory=dict)

    def one_line(self) -> str:
        """The counts, and what to do about folded weights."""
        counts = [f"restored {len(self.restored)} variables"]
        counts += [f"{len(self.kept)} kept as they were ({_reasons(self.kept)})"] if self.kept else []
        counts += [f"{len(self.ignored)} ignored in the checkpoint"] if self.ignored else []
        counts += [f"{counted(len(self.ranges), 'range')} of fake quantization kept"] if self.ranges else []
        counts += [f"{self.folded} batch norms hold folded weights: {UNFOLD}"] if self.folded else []
        return f"{self.source}: {', '.join(counts)}"

    def log(self, level: int = logging.WARNING) -> None:
        """Logs `one_line` at `level` and `summary`, which names the variables, at `DEBUG`."""
        logging.log(level, "%s", self.one_line())
        logging.debug("%s", self.summary())

    def summary(self):
        """The report as text: counts, then each reason with the names it concerns."""
        lines = [f"{self.source}: restored {len(self.restored)} variables"]
        lines += _by_reason("kept as they were", self.kept)
        lines += _by_reason("ignored in the checkpoint", self.ignored)
        if self.folded:
            lines.append(f"  {self.folded} batch norms hold folded weights: good for detection; {UNFOLD}")
        return "\n".join(lines)


def match(model_variables, name_map, reader, skip=(), ignore=(), may_differ=()):
    """Pairs the model's variables with the checkpoint's, or says everything that does not fit.

    Args:
        model_variables: `{our path: shape}` or `{our path: keras.Variable}`.
        name_map: `{our path: checkpoint key}` or a function of our path that returns the key (None: no such thing).
        reader: a `CheckpointReader` (anything with `shapes`, `ignored`, `source`, and `advice` if it has a way out).
        skip: `((regex of our path, reason), ...)`: variables that keep their value; the checkpoint's counterpart, if
            the map names one, is ignored.
        ignore: `((regex of a checkpoint key, reason), ...)`: variables that our model has no use for.
        may_differ: `((regex of our path, reason), ...)`: variables that keep their value if, and only if, the
            checkpoint's shape differs (class heads with another number of classes).

    Regexes match the whole name. Returns a `Match`. Raises `RestoreError` that lists, all at once: variables without
    a key, keys that the checkpoint lacks, keys claimed twice, shapes that differ, and variables of the checkpoint
    that is not claimed and that no rule ignores.
    """
    find = name_map.get if isinstance(name_map, Mapping) else name_map
    assignments, kept, ignored = {}, {}, {}
    unmapped, absent, twice, shapes = [], [], [], []
    claimed = {}
    for path, variable in model_variables.items():
        shape = tuple(getattr(variable, "shape", variable))
        skipped, key = _reason(skip, path), find(path)
        if skipped is not None:
            kept[path] = skipped
            if key in reader.shapes:
                ignored[key] = skipped
        elif key is None:
            unmapped.append(f"{path} {shape}")
        elif key not in reader.shapes:
            absent.append(f"{path} {shape}: expected under {key!r}")
        elif key in claimed:
            twice.append(f"{key!r} is claimed by {claimed[key]} and {path}")
        else:
            claimed[key] = path
            theirs, reason = tuple(reader.shapes[key]), _reason(may_differ, path)
            if theirs == shape:
                assignments[path] = key
            elif reason is not None:
                kept[path] = f"{reason} (shape {shape} here, {theirs} in the checkpoint)"
                ignored[key] = reason
            else:
                shapes.append(f"{path}: shape {shape} in the model, {theirs} in the checkpoint ({key!r})")
    leftover = []
    for key in reader.shapes:
        if key not in claimed and key not in ignored:
            reason = _reason(ignore, key)
            if reason is None:
                leftover.append(f"{key!r} {tuple(reader.shapes[key])}")
            else:
                ignored[key] = reason
    complaints = (
        ("variables of the model have no corresponding name in the checkpoint", unmapped),
        ("variables of the model are not in the checkpoint", absent),
        ("variables of the checkpoint are used twice", twice),
        ("shapes differ", shapes),
        ("variables of the checkpoint are not used by the model", leftover),
    )
    if any(entries for _, entries in complaints):
        raise RestoreError(_complaint(reader, len(model_variables), complaints))
    return Match(MappingProxyType(assignments), MappingProxyType(kept), MappingProxyType({**reader.ignored, **ignored}))


def restore(variables, name_map, reader, skip=(), ignore=(), may_differ=()):
    """Matches, reads every value, then assigns: a failure on the way leaves the model as it was.

    Args:
        variables: `{our path: keras.Variable}`; the other arguments are those of `match`.

    Returns a `RestoreReport`. Raises what `match` and `reader.read` raise, and `RestoreError` for values that are NaN
    or infinite.
    """
    matched = match(variables, name_map, reader, skip, ignore, may_differ)
    values = {path: reader.read(key) for path, key in matched.assignments.items()}
    for path, value in values.items():
        _check_finite(path, value, reader)
    for path, value in values.items():
        variables[path].assign(value)
    return RestoreReport(reader.source, matched.assignments, matched.kept, matched.ignored)


def _check_finite(path, value, reader):
    found = defect(value)
    if found is not None:
        raise RestoreError(
            f"The checkpoint {reader.source} holds a weight that is {found}, for {path}: its training had diverged. "
            "Nothing was restored; take an earlier checkpoint."
        )


def _reason(rules, name):
    return next((reason for pattern, reason in rules if re.fullmatch(pattern, name)), None)


def _complaint(reader, count, complaints):
    lines = [
        f"The checkpoint {reader.source} ({len(reader.shapes)} variables) does not fit the model ({count} variables); "
        f"nothing was restored. {getattr(reader, 'advice', ADVICE)}"
    ]
    for what, entries in complaints:
        if entries:
            lines.append(f"{len(entries)} {what}:")
            lines += [f"  {entry}" for entry in entries[:_LISTED]]
            if len(entries) > _LISTED:
                lines.append(f"  ... and {len(entries) - _LISTED} more")
    return "\n".join(lines)


def _reasons(entries):
    """The reasons, without the shapes in brackets, each once."""
    return "; ".join(dict.fromkeys(reason.split(" (shape ")[0] for reason in entries.values()))


def _by_reason(title, entries):
    groups = {}
    for name, reason in entries.items():
        groups.setdefault(reason, []).append(name)
    for reason, names in groups.items():
        shown = ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")
        yield f"  {title}, {reason}: {shown}"
