"""What is wrong with the images and objects of a data set that was read, in one table."""

import collections
import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import ExifTags

from keras_detect import schema
from keras_detect.data import statistics
from keras_detect.data.image import check_decodes, opened
from keras_detect.data.record import KEPT, REFUSED, REPAIRED, Defects, raster_keys
from keras_detect.messages import counted

# A class with less than this share of the most frequent one's objects is named.
_RARE = 1 / 50
_PLACES_SHOWN = 3
_PLACE_LENGTH = 40
_DECODERS = min(4, os.cpu_count() or 1)  # images that are decoded at the same time

_MODES = {
    "L": "gray images, repeated into three channels",
    "1": "black-and-white images, repeated into three channels",
    "CMYK": "CMYK images, converted to RGB",
    "YCbCr": "images in another color space, converted to RGB",
    "LAB": "images in another color space, converted to RGB",
    "HSV": "images in another color space, converted to RGB",
    "P": "palette images, converted to RGB",
    "RGBA": "images with transparency, which is ignored",
    "LA": "images with transparency, which is ignored",
    "PA": "images with transparency, which is ignored",
    "La": "images with transparency, which is ignored",
    "RGBa": "images with transparency, which is ignored",
}
_DEEP = "images of 16 bits or more, of which the high byte is used"
_ENDINGS = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "TIFF": (".tif", ".tiff"), "MPO": (".jpg", ".jpeg", ".mpo")}


class CheckReport:
    """What a check found.

    Attributes:
        source: what was checked, in words.
        images: number of images that can be used.
        defects: the `Defects` with every count.
    """

    def __init__(self, source: str, images: int, defects: Any):
        self.source = str(source)
        self.images = images
        self.defects = defects

    @property
    def ok(self) -> bool:
        """Whether a training would start: there are images and nothing is refused."""
        return self.images > 0 and not any(row[0] == REFUSED for row in self.rows())

    def rows(self) -> list[tuple[str, str, int, tuple[str, ...]]]:
        """[(action, kind, count, places)], the worst action first."""
        return self.defects.rows()

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        entries = [
            {"what": kind, "count": count, "loader": action, "where": list(places)}
            for action, kind, count, places in self.rows()
        ]
        return {"source": self.source, "images": self.images, "training_would_start": self.ok, "found": entries}

    def __str__(self):
        rows = [(action, str(count), kind, _shown(places)) for action, kind, count, places in self.rows()]
        head = ("loader", "count", "what", "where")
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
        lines = [f"{a:<{widths[0]}}  {n:>{widths[1]}}  {k:<{widths[2]}}  {w}" for a, n, k, w in [head, *rows]]
        table = lines if rows else ["nothing is wrong"]
        end = "training would start" if self.ok else "training would not start: fix the refused entries"
        return "\n".join([f"{self.source}: {counted(self.images, 'image')}", *table, end])


def inspect(dataset, defects, model=None, decode=True):
    """Counts everything that is wrong with the images and objects of a `DetectionDataset`.

    Args:
        dataset: `DetectionDataset`.
        defects: `Defects(collect=True)` that the counts are added to.
        model: a model whose class names and anchors shall fit the objects, or None.
        decode: decode every image; False looks at the headers only.

    Returns:
        How many images can be used.
    """
    usable = _check_images(dataset, defects, decode)
    _check_ground_truth(dataset, defects)
    names = getattr(model, "class_names", None)
    if names and list(names) != dataset.class_names:
        differing = sorted({*names} ^ {*dataset.class_names}) or ["the same in another order"]
        defects.add(REFUSED, "class names that differ from the model's", ", ".join(differing))
    if model is not None:
        _check_anchors(dataset, model, defects)
    return usable


def inspection(dataset, model=None, decode=True):
    """The `CheckReport` of a `DetectionDataset`, with what was found when it was read; see `inspect`."""
    defects = Defects(collect=True)
    defects.merge(dataset.defects)
    return CheckReport(repr(dataset), inspect(dataset, defects, model, decode), defects)


@contextlib.contextmanager
def damaged_images_named(dataset):
    """Context in which an error of TensorFlow's decoders becomes the `ImageError` of the image that causes it.

    They do not name the file. Other errors pass.
    """
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow"):
            raise
        for record in dataset.records:
            content = record.image.encoded() if hasattr(record.image, "encoded") else None
            check_decodes(record.image, content, getattr(record.image, "path", record.file_name))
        raise


def _check_images(dataset, defects, decode):
    """Counts what is wrong with single images and which are there twice; returns how many can be used."""
    from tqdm import tqdm

    usable, seen, names, ids = 0, {}, {}, {}
    threads = concurrent.futures.ThreadPoolExecutor(_DECODERS)  # decoders let other threads run
    try:
        looks = threads.map(lambda record: _look(record, decode), dataset.records)
        pairs = zip(dataset.records, looks, strict=True)
        for record, (found, digest) in tqdm(
            pairs, desc="check", unit="image", total=len(dataset), disable=len(dataset) < 500
        ):
            name = str(record.file_name)
            defects.merge(found)
            if digest is None:
                continue
            usable += 1
            if digest in seen:
                defects.add(KEPT, "duplicate images", f"{name} = {seen[digest]}")
            for table, key, kind in ((names, name, "names"), (ids, str(record.image_id), "ids")):
                if key in table:
                    defects.add(KEPT, f"duplicate {kind} of images", key)
                table[key] = True
            seen.setdefault(digest, name)
    finally:
        threads.shutdown(cancel_futures=True)
    return usable


def _look(record, decode):
    """`(defects, digest)` of one image: what is wrong with it, and a digest of it, None where it cannot be used."""
    defects = Defects(collect=True)
    try:
        content = record.image.encoded() if hasattr(record.image, "encoded") else None
        if content is not None:
            _check_header(content, record, defects)
        if decode:
            check_decodes(record.image, content, record.file_name)
            _check_masks(record, defects)
    except (ValueError, OSError):
        defects.add(REFUSED, "images that cannot be decoded: damaged or truncated", record.file_name)
        return defects, None
    pixels = record.image.pixels.tobytes() if content is None else content
    return defects, hashlib.sha256(pixels).digest()


def _check_masks(record, defects):
    """Decodes the masks that are images; the others were looked at when they were read."""
    try:
        for key in raster_keys():
            if any(isinstance(mask, bytes) for mask in record.get(key) or ()):
                record.read_raster(key)
    except ValueError:
        defects.add(REFUSED, "masks that cannot be decoded: damaged or truncated", record.file_name)


def _check_header(content, record, defects):
    """Counts what the header of an image's bytes says: format, orientation, mode."""
    name = str(record.file_name)
    with opened(io.BytesIO(content), name, getattr(record.image, "max_pixels", None)) as image:
        ending = pathlib.PurePosixPath(name).suffix.lower()
        if ending and ending not in _ENDINGS.get(image.format, (f".{(image.format or '').lower()}",)):
            defects.add(KEPT, "images whose suffix does not match their format, read by content", name)
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            if record.image.upright:
                defects.add(REPAIRED, "images with an EXIF rotation, rotated upright", name)
            else:
                defects.add(KEPT, "images with an EXIF rotation that their boxes do not follow, not rotated", name)
        if image.mode.startswith("I") or _bits_of_png(content) == 16:
            defects.add(REPAIRED, _DEEP, name)
        if image.mode in _MODES:
            defects.add(REPAIRED, _MODES[image.mode], name)
        elif image.mode == "RGB" and "transparency" in image.info:
            defects.add(REPAIRED, _MODES["RGBA"], name)


def _bits_of_png(content):
    """Bits per channel, as a PNG's header says (ISO 15948, 11.2.2), else None: Pillow shows 16 bits of RGB as 8."""
    return content[24] if content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 24 else None


def _check_ground_truth(dataset, defects):
    """Counts empty images, boxes drawn twice, classes without or with few objects."""
    for record in dataset.records:
        if not len(record.boxes):
            defects.add(KEPT, "images without objects, used as background", record.file_name)
        rows = collections.Counter(zip(record.labels.tolist(), map(tuple, record.boxes.tolist()), strict=True))
        twice = sum(count - 1 for count in rows.values())
        if twice:
            defects.add(KEPT, "duplicate boxes of one class", record.file_name, twice)
    counts = np.zeros(len(dataset.class_names), np.int64)
    for record in dataset.records:
        np.add.at(counts, record.labels, 1)
    for label, name in enumerate(dataset.class_names):
        if not counts[label]:
            defects.add(KEPT, "classes without objects", name)
        elif counts[label] < _RARE * counts.max():
            defects.add(KEPT, f"classes with fewer than 1/{round(1 / _RARE)} of the most frequent one's objects", name)
    keypoints = [record.get(schema.KEYPOINTS) for record in dataset.records]
    points = {rows.shape[1] for rows in keypoints if rows is not None and len(rows)}
    if len(points) > 1:
        listed = ", ".join(map(str, sorted(points)))
        kind = f"objects with different numbers of keypoints, padded with invisible ones: {listed}"
        defects.add(KEPT, kind, "all images")
    if not counts.sum():
        defects.add(REFUSED, "data sets without any object", "all images")


def _check_anchors(dataset, model, defects):
    """Counts objects that overlap no anchor of the model enough."""
    threshold = statistics.matched_threshold(model)
    for record, overlaps in statistics.best_overlaps(dataset, model):
        missed = int((overlaps < threshold).sum())
        if missed:
            kind = f"objects that no anchor overlaps by {threshold:g}: they get the best anchor, or none"
            defects.add(KEPT, kind, record.file_name, missed)


def _shown(places):
    places = [place if len(place) <= _PLACE_LENGTH else f"...{place[3 - _PLACE_LENGTH :]}" for place in places]
    return ", ".join(places[:_PLACES_SHOWN]) + (f", ... ({len(places)})" if len(places) > _PLACES_SHOWN else "")
