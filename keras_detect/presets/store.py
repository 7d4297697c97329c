"""Presets by name, folder or address: fetched, converted where needed, and cached."""

import dataclasses
import os
import pathlib
import shutil

from absl import logging

from keras_detect.presets import archives, cache, directory, preset, zoo
from keras_detect.presets.directory import PresetError, save_preset

__all__ = ["PresetError", "find_preset", "load_preset", "save_preset"]


def load_preset(name, num_classes=None, load_weights=True, progress=True):
    """Builds the model of a preset.

    Args:
        name: a built-in name, a preset's folder, or an address (`hf://`, `kaggle://`, or an archive at `https://` or
            `file://`: of a preset folder, or of the original zoo's layout).
        num_classes: re-heads for another number of classes: all other weights are loaded, and a warning in the log
            says which were not.
        load_weights: False builds the architecture alone.
        progress: shows a progress bar while fetching.

    Raises `ValueError` for an unknown name (the near ones are listed) and for a damaged preset or archive,
    `DownloadError` or `CacheError` (both `OSError`) if it cannot be fetched or kept.
    """
    folder = find_preset(name, progress=progress)
    model, report = directory.read_preset(folder, num_classes, load_weights)
    if load_weights and report.kept:
        logging.warning("%s", report.summary())
    return model


def find_preset(name, progress=True):
    """The folder of a preset (see `load_preset`), fetched into the cache if it is not there."""
    if isinstance(name, os.PathLike) or (not archives.is_url(name) and os.path.isdir(os.path.expanduser(name))):
        return pathlib.Path(name).expanduser()
    if name.startswith(("hf://", "kaggle://")):
        return archives.remote_folder(name)
    if archives.is_url(name):
        return cache.cached(archives.cache_key(name), lambda folder: _from_archive(name, folder, None, {}, progress))
    row = preset.get(name)
    return cache.cached(row.name, lambda folder: _from_archive(row.url, folder, row.sha256, _published(row), progress))


def _from_archive(url, target, sha256, metadata, progress):
    """Fetches an archive and leaves a preset in the folder `target`."""
    with archives.unpacked(url, sha256=sha256, progress=progress) as (folder, digest):
        if directory.is_preset(folder):
            for file in archives.PRESET_FILES:
                if (folder / file).is_file():
                    shutil.copyfile(folder / file, target / file)
        elif zoo.is_zoo(folder):
            zoo.convert(folder, target, {**metadata, "source": url, "sha256": digest})
        else:
            raise PresetError(f"{url}: neither a preset ({directory.CONFIG}) nor a zoo archive ({zoo.CONFIG})")


def _published(row):
    """What a row says, for `metadata.json`."""
    said = dataclasses.asdict(row)
    said.pop("sha256")
    return {"name": row.name, **said}
