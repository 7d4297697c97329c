"""Reads TensorFlow's checkpoints: names, shapes and values, under every Keras backend.

Those of TensorFlow 2 name a variable by the objects that lead to it, those of TensorFlow 1 by its name in the graph.
"""

import os
import pathlib
import re
import tempfile

from keras_detect import text_proto
from keras_detect.weights import archives
from keras_detect.weights.checkpoint_file import VALUE, CheckpointError, CheckpointFile, quoted

_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_PARTS = r"\.(index|meta|data-[0-9]+-of-[0-9]+)$"
_OTHER_FILES = {
    ".pb": "a graph, which frozen_graph.open_graph reads",
    ".config": "a pipeline.config, which from_pipeline_config reads",
    ".zip": "a .zip archive, which is not unpacked",
}

IGNORED = (
    (r"_CHECKPOINTABLE_OBJECT_GRAPH", "the graph of objects, not a variable"),
    (r"save_counter", "counts the saves of the checkpoint"),
    (r"(global_)?step", "counts the training steps"),
    (r".*/\.OPTIMIZER_SLOT/.*/average", "exponential moving average (EMA) shadow of a variable"),
    (r".*/\.OPTIMIZER_SLOT/.*", "optimizer slot of a variable (momentum, Adam's moments)"),
    (r".*/ExponentialMovingAverage", "exponential moving average (EMA) shadow of a variable"),
    (r"(_?optimizer|model/optimizer|_optimizer)/.*", "the optimizer's counters and hyper parameters"),
)
"""`(regex of a whole key without /.ATTRIBUTES/VARIABLE_VALUE, reason)`: what a checkpoint holds beside the model."""

AVERAGE = "/ExponentialMovingAverage"
"""What TensorFlow 1 appends to a variable's name for the average of its values."""

_AVERAGE_OF = re.compile(rf"(.*?)({AVERAGE}|/\.OPTIMIZER_SLOT/.*/average)")

RANGE = r"(?:.*/)?\w*quant(?:_\d+)?"
"""Regex of the scope in which TensorFlow 1's fake quantization keeps a range."""

IGNORED_NAMES = (
    (r"global_step", "counts the training steps"),
    (rf".*{AVERAGE}", "exponential moving average (EMA) shadow of a variable"),
    (r".*/(RMSProp|Momentum|Adam|Adagrad|Adadelta|Ftrl)(_\d+)?", "optimizer slot of a variable"),
    (r"(.*/)?beta[12]_power(_\d+)?", "the optimizer's counters"),
    (rf"{RANGE}/.*", "range of fake quantization, which is not a weight"),
)
"""`(regex of a name, reason)`: what a checkpoint of TensorFlow 1 holds beside the model."""


class CheckpointReader:
    """Names, shapes and values of the model's variables in one checkpoint.

    Attributes:
        path: the checkpoint's prefix (".../ckpt-0").
        source: what the user passed, for messages.
        tf1: whether the keys are names of variables in a graph of TensorFlow 1.
        shapes: `{key: shape tuple}` of the model's variables; keys stand without `/.ATTRIBUTES/VARIABLE_VALUE`.
        ignored: `{key: reason}` of everything else, by the table `IGNORED` or `IGNORED_NAMES`.
    """

    def __init__(self, prefix, source=None, owner=None):
        self.path = str(prefix)
        self.source = str(source or prefix)
        self._owner = owner  # the temporary folder of an unpacked archive lives as long as the reader
        self._file = CheckpointFile(prefix, self.source)
        found = {name: entry.shape for name, entry in self._file.entries.items()}
        self.tf1 = not any(name.endswith(VALUE) for name in found)
        self.shapes, self.ignored = {}, {}
        for full in sorted(found):
            key = full.removesuffix(VALUE)
            reason = ignored_as(key, IGNORED_NAMES if self.tf1 else IGNORED)
            if reason is None:
                self.shapes[key] = found[full]
            else:
                self.ignored[key] = reason
        self._check_kind(found)

    def __repr__(self):
        return f"<CheckpointReader {self.source}: {len(self.shapes)} variables>"

    def __contains__(self, key):
        return key in self.shapes

    def read(self, key):
        """The value of one variable as a numpy array.

        Raises `KeyError` for a key that is not in `shapes`, `CheckpointError` if the data file is missing, truncated
        or damaged (there is a checksum per variable).
        """
        if key not in self.shapes:
            raise KeyError(f"{self.source} has no variable {key!r}")
        return self.read_any(key)

    def read_any(self, key):
        """As `read`, also for a key that is in `ignored`: averages, optimizer slots, ranges."""
        return self._file.read(key if self.tf1 else key + VALUE)

    def averaged(self):
        """This checkpoint with the moving averages of its variables in their place, or None where it holds none."""
        averages = {match[1]: key for key in self.ignored if (match := _AVERAGE_OF.fullmatch(key))}
        return AveragedCheckpoint(self, averages) if averages else None

    def quantization_ranges(self):
        """`{scope of the range: (minimum, maximum)}` of what was trained with fake quantization; else empty."""
        return ranges_of(self)

    def _check_kind(self, found):
        if not self.tf1 and any(key + VALUE not in found for key in self.shapes):
            named = next(key for key in self.shapes if key + VALUE not in found)
            raise CheckpointError(
                f"{self.source}: holds {quoted(named)}, a name of TensorFlow 1's checkpoints, beside objects of "
                "TensorFlow 2; supported: one kind of names"
            )
        if not self.shapes:
            raise CheckpointError(f"{self.source}: holds no model variable; supported: checkpoints of models")


class AveragedCheckpoint:
    """A `CheckpointReader` that reads the moving average of a variable where there is one (batch norms have none).

    Args:
        reader: the checkpoint.
        averages: `{key of a variable: key of its average}`.
    """

    def __init__(self, reader, averages):
        self._reader, self._averages = reader, averages
        self.source, self.tf1, self.shapes, self.ignored = reader.source, reader.tf1, reader.shapes, reader.ignored

    def read(self, key):
        """As `CheckpointReader.read`."""
        return self._reader.read_any(self._averages[key]) if key in self._averages else self._reader.read(key)

    def quantization_ranges(self):
        """As `CheckpointReader.quantization_ranges`."""
        return self._reader.quantization_ranges()


def ranges_of(reader):
    """`{scope: (minimum, maximum)}` of the ranges of fake quantization among the ignored variables of `reader`."""
    ends = {key for key in reader.ignored if re.fullmatch(rf"{RANGE}/(min|max)", key)}
    scopes = sorted({key[:-4] for key in ends if {f"{key[:-4]}/min", f"{key[:-4]}/max"} <= ends})
    return {scope: tuple(float(reader.read_any(f"{scope}/{end}")) for end in ("min", "max")) for scope in scopes}


def ignored_as(key, rules):
    """The reason of the first of `rules` whose regex is the whole `key`, or None."""
    return next((reason for pattern, reason in rules if re.fullmatch(pattern, key)), None)


def open_checkpoint(path):
    """Opens a checkpoint of TensorFlow 2 (by objects) or TensorFlow 1 (by names).

    Args:
        path: a prefix ("ckpt-0", also one of its files, such as "ckpt-0.index"); a folder with the
            checkpoint, or with it in a `checkpoint` sub-folder as the zoo has it (the `checkpoint` state file names
            it, else the highest number); or the zoo's `.tar.gz`, which is unpacked to a temporary folder for as long
            as the reader lives.

    Returns a `CheckpointReader`. Raises `FileNotFoundError` if there is nothing at `path`, `CheckpointError` if a
    folder or file holds no checkpoint or it cannot be read, and `archives.ArchiveError` if an archive is broken.
    """
    path = pathlib.Path(os.path.expanduser(os.fspath(path)))
    if path.is_file() and path.name.endswith(_ARCHIVES):
        return _open_archive(path)
    if path.is_dir():
        return CheckpointReader(find_checkpoint(path), source=path)
    prefix = path if _is_checkpoint(path) else path.with_name(re.sub(_PARTS, "", path.name))
    if _is_checkpoint(prefix):
        return CheckpointReader(prefix, source=path)
    wanted = "pass its prefix (beside which PREFIX.index is stored), its folder or a .tar.gz"
    if path.is_file():
        found = next((what for suffix, what in _OTHER_FILES.items() if path.name.endswith(suffix)), "no checkpoint")
        raise CheckpointError(f"{path}: {found}; supported: checkpoints of TensorFlow, {wanted}")
    raise FileNotFoundError(f"{path}: no such checkpoint; {wanted}")


def looks_like_one(path: pathlib.Path) -> bool:
    """Whether there is, at `path`, what `open_checkpoint` takes or can explain: a prefix, a folder, an archive."""
    if path.is_dir():
        children = [path, *(child for child in path.iterdir() if child.is_dir())]
        return any((folder / "checkpoint").exists() or any(folder.glob("*.index")) for folder in children)
    prefix = path.with_name(re.sub(_PARTS, "", path.name)) if path.name else path
    known = path.is_file() and path.name.endswith((*_ARCHIVES, *_OTHER_FILES))
    return known or _is_checkpoint(path) or _is_checkpoint(prefix)


def find_checkpoint(folder):
    """The prefix of the checkpoint in `folder` or in its `checkpoint` sub-folder. Raises `CheckpointError`."""
    folder = pathlib.Path(folder)
    state = folder / "checkpoint"
    if state.is_dir() and not any(folder.glob("*.index")):
        return find_checkpoint(state)
    if state.is_file():
        return _from_state_file(folder, state)
    prefixes = [file.with_suffix("") for file in folder.glob("*.index")]
    if not prefixes:
        below = [child for child in folder.iterdir() if child.is_dir() and (child / "checkpoint").is_dir()]
        if len(below) == 1:  # the folder that an archive was unpacked into
            return find_checkpoint(below[0])
        raise CheckpointError(f"{folder}: holds no checkpoint (*.index); pass the folder of ckpt-*.index, or a prefix")
    numbers = sorted((_number(prefix), prefix.name, prefix) for prefix in prefixes)
    if len(numbers) > 1 and numbers[-1][0] == numbers[-2][0]:
        names = ", ".join(name for _, name, _ in numbers)
        raise CheckpointError(f"{folder}: holds several checkpoints ({names}); pass the prefix of one")
    return numbers[-1][2]


def _from_state_file(folder, state):
    try:
        named = text_proto.read(state).scalar("model_checkpoint_path", str)
    except ValueError as error:
        raise CheckpointError(f"{state}: cannot read the state file ({_reason(error)}); pass a prefix") from error
    if not named:
        raise CheckpointError(f"{state}: names no model_checkpoint_path; pass a prefix")
    path = pathlib.PurePath(named.replace("\\", "/"))
    # what lies elsewhere does not count; of a folder that was moved, the absolute paths are stale and the names hold
    inside = not path.is_absolute() and ".." not in path.parts and ":" not in named
    for prefix in (folder / path if inside else folder / path.name, folder / path.name):
        if path.name and _is_checkpoint(prefix):
            return prefix
    raise CheckpointError(f"{state}: names {quoted(named)}, which is not in its folder; pass the prefix of one that is")


def _open_archive(path):
    owner = tempfile.TemporaryDirectory(prefix="keras_detect_")
    try:
        folder = archives.extract(path, pathlib.Path(owner.name) / "archive", wanted=is_checkpoint_part)
        return CheckpointReader(find_checkpoint(folder), source=path, owner=owner)
    except CheckpointError as error:
        owner.cleanup()
        message = str(error).replace(owner.name + os.sep, "")
        raise CheckpointError(message if str(path) in message else f"{path}: {message}") from error
    except BaseException:
        owner.cleanup()
        raise


def is_checkpoint_part(path):
    """Whether a member of a zoo archive belongs to its checkpoint (and not to its SavedModel)."""
    return "saved_model" not in path.parts and (
        path.name == "checkpoint" or path.suffix == ".index" or ".data-" in path.name
    )


def _is_checkpoint(prefix):
    return os.path.isfile(f"{prefix}.index")  # False for a name that cannot be one


def _number(prefix):
    """The step in "ckpt-301"; -1 without one."""
    number = re.search(r"-([0-9]{1,18})$", prefix.name)
    return int(number.group(1)) if number else -1


def _reason(error):
    return (str(error).splitlines() or [""])[0] or type(error).__name__
