"""What is known of the presets without a network: the rows of the zoo, the packaged ones, and what the cache holds."""

import os
import pathlib
from typing import Any

from keras_detect.messages import shown
from keras_detect.presets import cache, directory, download, packaged, preset
from keras_detect.registry import unknown_everywhere


def describe(name: str | os.PathLike) -> dict[str, Any]:
    """What is known of a preset; nothing is fetched.

    Args:
        name: a built-in name, a preset's folder, or the name of a cached one.

    Returns a dict: `name`; `kind` ("zoo", "packaged", "folder", or "cached", "damaged" if it cannot be read);
    `addresses` that are tried in this order, or where it comes from; `license`; `parameters`; `outputs` of a detection;
    `published_map` (percent, of `published_metric`) and `published_ms` (per image, on the authors' hardware), as
    published;
    `measured_map` (percent), as we measured on `measured_on`; `parity_heads` and `parity_scores` (see `Preset.parity`);
    `sha256`; `bytes` on this disk; `max_archive_bytes`, above which an archive is not fetched; `folder`, where it is
    stored. None stands for what is not known. Raises `ValueError` for an unknown name, `PresetError` for a damaged
    folder.
    """
    text = os.fspath(name)
    path = pathlib.Path(os.path.expanduser(text))
    if directory.is_preset(path):
        return _of_folder("folder", path, directory.read_json(path / directory.METADATA))
    if (folder := packaged.folder(text)) is not None:
        return _of_folder("packaged", folder, directory.read_json(folder / directory.METADATA))
    if text in preset.names():
        return _of_row(preset.get(text))
    if text not in _cached():
        raise ValueError(unknown_everywhere("preset", text))
    folder = cache.home() / text
    try:
        return _of_folder("cached", folder, directory.read_json(folder / directory.METADATA))
    except directory.PresetError:
        return _of_folder("damaged", folder, {})


def descriptions() -> list[dict[str, Any]]:
    """`describe` of every built-in preset and every cached one, sorted by name."""
    return [describe(name) for name in sorted({*packaged.names(), *preset.names(), *_cached()})]


def clear(name: str | None = None) -> dict[str, int]:
    """Removes cached presets; they are fetched again when they are asked for.

    Args:
        name: a built-in name, the address of an archive, or the name of a cached one; None removes them all. Nothing
            but what the cache itself wrote is removed; other files in its folder stay.

    Returns `{name: bytes freed}`. Raises `ValueError` for a name that is not cached, `CacheError` if the cache cannot
    be written.
    """
    found = _cached()
    if name is not None:
        key = download.cache_key(name) if download.is_url(name) else name
        if key not in found:
            known = f"Cached: {', '.join(found)}." if found else "The cache is empty."
            raise ValueError(f"'{shown(name)}' is not in the cache {str(cache.home())!r}. {known}")
        found = {key: found[key]}
    for key in found:
        cache.remove(key)
    if cache.home().is_dir():
        with cache.work_folder():  # what killed processes left goes, too
            pass
    return found


def _cached():
    return cache.entries(tuple(preset.names()), download.PRESET_FILES)


def _of_row(row):
    cached = _cached()
    heads, scores = row.parity or (None, None)
    return {
        "name": row.name,
        "kind": "zoo",
        "addresses": list(row.addresses),
        "license": row.license,
        "parameters": row.parameters,
        "outputs": list(row.outputs),
        "published_map": row.published_figure[1],
        "published_metric": row.published_figure[0],
        "published_ms": row.speed_ms,
        "measured_map": row.measured_map,
        "measured_on": None,
        "parity_heads": heads,
        "parity_scores": scores,
        "sha256": row.sha256,
        "bytes": cached.get(row.name),
        "max_archive_bytes": row.max_archive_bytes,
        "folder": str(cache.home() / row.name) if row.name in cached else None,
    }


def _of_folder(kind, folder, metadata):
    measured = metadata.get("measured")
    measured = measured if isinstance(measured, dict) else {}
    share, outputs = _number(measured.get("map")), metadata.get("outputs")
    other = metadata.get("other_map")
    other = other if isinstance(other, list) and len(other) == 2 and _number(other[1]) is not None else None
    return {
        "name": folder.name,
        "kind": kind,
        "addresses": [source] if (source := _text(metadata.get("source"))) else [],
        "license": _text(metadata.get("license")),
        "parameters": _number(metadata.get("parameters")),
        "outputs": [str(value) for value in outputs] if isinstance(outputs, list) else None,
        "published_map": other[1] if other else _number(metadata.get("coco_map")),
        "published_metric": other[0] if other else "mAP on COCO",
        "published_ms": _number(metadata.get("speed_ms")),
        "measured_map": _number(metadata.get("measured_map")) if share is None else 100 * share,
        "measured_on": _text(measured.get("split")),
        "parity_heads": None,
        "parity_scores": None,
        "sha256": _text(metadata.get("sha256")),
        "bytes": sum(child.stat().st_size for child in folder.iterdir() if child.is_file()),
        "max_archive_bytes": None,
        "folder": str(folder),
    }


def _number(value):
    return value if isinstance(value, int | float) else None


def _text(value):
    return value if isinstance(value, str) else None
