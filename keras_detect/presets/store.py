"""Presets by name, folder or address: fetched, converted where needed, and cached."""

import contextlib
import os
import pathlib
import shutil

from absl import logging

from keras_detect import files
from keras_detect.meta_architectures.detection_model import DetectionModel
from keras_detect.presets import cache, directory, download, packaged, preset, zoo
from keras_detect.presets.directory import PresetError, save_preset
from keras_detect.registry import check_num_classes, provide, resolve, resolves, unknown_everywhere
from keras_detect.weights.keras_file import load_keras_file
from keras_detect.weights.keras_sources import named_plan
from keras_detect.weights.sources import register_reader

__all__ = ["PresetError", "find_preset", "load_preset", "names", "save_preset"]


def names():
    """All built-in names, sorted: the packaged presets and the rows of the zoo."""
    return sorted([*packaged.names(), *preset.names()])


USE = "DetectionModel.from_preset({name!r})"


@provide("load_preset")
def load_preset(name, num_classes=None, load_weights=True, progress=True):
    """Builds the model of a preset.

    Args:
        name: a built-in name, a preset's folder, the path of an archive, an address (`hf://`, `kaggle://`, or an
            archive at `https://` or `file://`), or the `.keras` file of a detector. An archive is one of a preset
            folder, or one as in upstream's zoo.
        num_classes: re-heads for another number of classes: all other weights are loaded, and a warning in the log
            says how many were not.
        load_weights: False builds the architecture alone; a built-in one without network.
        progress: shows a progress bar while fetching.

    Raises `FileNotFoundError` for a `.keras` file that is not there, `ValueError` for an unknown name (similar names of
    all kinds are listed), for a `num_classes` that is not a positive integer, and for a
    damaged preset or archive; `DownloadError` or `CacheError` (both `OSError`) if it cannot be fetched or kept.
    """
    check_num_classes(num_classes, "the preset's")
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"A preset must be a name, an address or a path. Received a {type(name).__name__}.")
    if name not in names():
        files.check_regular(name)
    return resolve("preset", name, num_classes=num_classes, load_weights=load_weights, progress=progress)


@resolves("Keras file", role="preset", names=tuple, opens=lambda name: os.fspath(name).endswith(".keras"), use=USE)
def _keras_file(name, num_classes, load_weights, progress):
    path = pathlib.Path(name).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"No such model: {path}")
    model = load_keras_file(path, DetectionModel)
    if not load_weights:
        model = type(model).from_config(model.get_config())
    return model if num_classes in (None, model.num_classes) else model.re_head(num_classes)


def _opens(name):
    return isinstance(name, os.PathLike) or not _is_fetched(name) or name in preset.names()


@resolves("preset", role="preset", names=names, opens=_opens, use=USE)
def _preset(name, num_classes, load_weights, progress):
    if not load_weights and _is_fetched(name):
        row = _row(name)
        if row.config is None:
            raise ValueError(f"The preset '{row.name}' cannot be built without its archive; load its weights.")
        return directory.build_model(row.config, num_classes, row.class_names)[0]
    folder = find_preset(name, progress=progress)
    try:
        model, report = directory.read_preset(folder, num_classes, load_weights)
    except PresetError as error:
        if folder.parent != cache.home():
            raise
        raise PresetError(f"{error}. To fetch it again: keras-detect presets clear {folder.name}") from error
    if load_weights and report.kept:
        report.log()
    return model


def find_preset(name, progress=True):
    """The folder of a preset (see `load_preset`), fetched into the cache if it is not there."""
    if not download.is_url(name) and _is_file(name):
        name = pathlib.Path(name).expanduser().absolute().as_uri()
    if isinstance(name, os.PathLike) or (not download.is_url(name) and _is_folder(name)):
        return pathlib.Path(name).expanduser()
    if name.startswith(("hf://", "kaggle://")):
        return download.remote_folder(name)
    if download.is_url(name):
        return cache.cached(download.cache_key(name), lambda folder: _from_archive(name, folder, None, progress))
    if packaged.folder(name) is not None:
        return packaged.folder(name)
    return _fetched(_row(name), progress)


def _fetched(row, progress):
    """The folder of a row's preset from the first of its addresses that gives it whole."""
    problems = []
    for address in row.addresses:
        try:
            return _from_address(address, row, progress)
        except (OSError, ImportError, ValueError) as error:
            if len(row.addresses) == 1:
                raise
            problems.append(f"{address}: {(str(error).splitlines() or [type(error).__name__])[0]}")
            logging.warning("%s", problems[-1])
    raise download.DownloadError(f"No address provided the preset '{row.name}'. {'; '.join(problems)}")


def _from_address(address, row, progress):
    if address.startswith(("hf://", "kaggle://")) and not (cache.home() / row.name).is_dir():
        return download.remote_folder(address)
    return cache.cached(row.name, lambda folder: _from_archive(address, folder, row, progress))


def _from_archive(url, target, row, progress):
    """Fetches an archive and leaves a preset in the folder `target`; `row` is the built-in preset's, or None.

    What cannot be read back raises and is not kept.
    """
    fetching = {} if row is None else {"sha256": row.sha256, "max_bytes": row.max_archive_bytes}
    with download.unpacked(url, progress=progress, **fetching) as (folder, digest), _errors_name(url, target, folder):
        if directory.is_preset(folder):
            for file in download.PRESET_FILES:
                if (folder / file).is_file():
                    shutil.copyfile(folder / file, target / file)
            directory.read_preset(target)
        elif zoo.is_zoo(folder):
            metadata = {**(row.published() if row else {}), "source": url, "sha256": digest}
            zoo.convert(folder, target, metadata, class_names=row and row.class_names, config=row and row.config)
        else:
            raise PresetError(f"{url}: neither a preset ({directory.CONFIG}) nor a zoo archive ({zoo.CONFIG})")


@contextlib.contextmanager
def _errors_name(url, *folders):
    """Names the address in errors, and not the temporary folders, which are gone when the message is read."""
    try:
        yield
    except (ValueError, OSError) as error:
        for folder in folders:
            error.args = tuple(
                value.replace(str(folder), url) if isinstance(value, str) else value for value in error.args
            )
        raise


def _is_preset(source):
    """Whether `source`, of any type, is an address, a preset's folder, or a built-in name."""
    if download.is_url(source):
        return True
    if not isinstance(source, str | os.PathLike):
        return False
    path = os.path.expanduser(source)
    return directory.is_preset(path) or (source in names() and not os.path.exists(path))


@register_reader(
    "preset",
    what="a preset: its name, its folder, or an address (hf://, kaggle://, https://, file://)",
    opens=_is_preset,
)
def preset_weights(model, source, kind):
    """The weights of a preset with any number of classes."""
    return named_plan(model, directory.open_weights(find_preset(source)), kind)


def _is_fetched(name):
    """Whether `name` is neither an address nor a path nor packaged: a row of the zoo, if anything."""
    if not isinstance(name, str) or download.is_url(name) or _is_file(name):
        return False
    return not (_is_folder(name) or packaged.folder(name))


def _row(name):
    if name not in preset.names():
        raise ValueError(unknown_everywhere("preset", name))
    return preset.get(name)


def _is_file(name):
    """An archive's path; a file that merely has a built-in name is none."""
    return os.path.isfile(os.path.expanduser(name)) and name not in names()


def _is_folder(name):
    """A folder goes before a built-in name, unless it merely has that name (a run's output, an example's folder)."""
    path = os.path.expanduser(name)
    files.settle(path)
    return os.path.isdir(path) and (directory.is_preset(path) or name not in names())
