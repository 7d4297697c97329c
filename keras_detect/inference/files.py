"""Detection in files, videos and a camera: everything is drawn, and what was found is written as JSON."""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from keras_detect import schema
from keras_detect.data.image import ImageError, as_pixels
from keras_detect.data.json_values import json_value
from keras_detect.data.pasting import to_rle
from keras_detect.files import replacing_file, replacing_files, write_json
from keras_detect.inference.coco_results import COCOIds, coco_results
from keras_detect.inference.detections import CLASS_NAMES
from keras_detect.inference.images import detect_each
from keras_detect.inference.sources import Name, Sources, find_sources
from keras_detect.inference.video import VideoError, check_camera, detect_frames, open_video, opencv, video_writer
from keras_detect.messages import shown
from keras_detect.visualization import draw_objects, save_image

_DETECTIONS, _RESULTS = "detections.json", "coco_results.json"


class FilesDetected(NamedTuple):
    """What `detect_files` has written.

    Attributes:
        images: what `detections.json` holds under "images", `{name of the drawn image: {"image" (path), "boxes"
            (normalized yxyx), "scores", "labels", "class_names"}}` with every further per-object field of `schema` that
            the model outputs (masks as COCO's run lengths).
        videos: what it holds under "videos", `{name of the drawn video: {"video" (path, or "camera 0"), "frames" (their
            number), "frames_per_second", "image_size" (height, width), "detections" (name of the JSON lines)}}`.
        errors: the error of each image and video that could not be read, which does not stop the others.
    """

    images: dict[str, dict]
    videos: dict[str, dict]
    errors: list[Exception]


def detect_files(
    model: Any,
    images: Name | Iterable[Name] | Sources,
    output: str | os.PathLike,
    *,
    score_threshold: float | None = None,
    batch_size: int = 8,
    progress: bool = True,
    max_pixels: int | None = None,
    recursive: bool = False,
    max_frames: int | None = None,
    coco_results: bool = False,
    annotations: str | os.PathLike | None = None,
    tile: int | tuple[int, int] | None = None,
    overlap: float = 0.2,
    whole_image: bool = True,
) -> FilesDetected:
    """Detects in images, videos and a camera, draws them and writes JSON; `keras-detect predict` is this function.

    Args:
        model: a `DetectionModel` or a `CompiledDetector`.
        images: files, folders of images and videos, globs, the index of a camera, or what `find_sources` returns.
            Videos and cameras need the extra `video`. A camera runs until Ctrl-C, or for `max_frames`.
        output: folder for the drawn images (JPEG), the drawn videos (MPEG-4) with a file of JSON lines each, a line per
            frame, and `detections.json`; created if absent. Files of equal names from several folders are told apart
            by a number: a.jpg, a_2.jpg.
        score_threshold: detections below it are skipped; None for `model.score_threshold`, 0.3 if that is None.
        batch_size: images per batch; a camera's frames run one by one.
        progress: whether to show progress bars.
        max_pixels: height times width of the largest image that is decoded, None for that of
            `keras_detect.data.pixel_limit`.
        recursive: whether folders within folders are searched, too.
        max_frames: of each video and of a camera; None for all.
        coco_results: whether to write `coco_results.json`, too: COCO's results of the images, in pixels. Pass
            `score_threshold=0.0` where they are to be evaluated.
        annotations: COCO annotation file that has the ids for `coco_results`. None: image ids are 1, 2, ... in the
            order of the files, unreadable ones counted, and category ids are labels + 1.
        tile: see `detect`.
        overlap: see `detect`.
        whole_image: see `detect`.

    All files appear together when everything is finished; if that fails, as on a full disk, the folder is as it was.

    Returns:
        `FilesDetected`.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: a folder without images, no such camera, not one of the files can be read, an annotation file that
            has not all images and classes; `MissingPackageError` where OpenCV is wanted and not installed.
        OSError: the disk is full, or cannot be written to.
    """
    if pathlib.Path(output).expanduser().is_file():
        raise ValueError(f"The output is a folder. {shown(output, 400)} is a file.")
    sources = images if isinstance(images, Sources) else find_sources(images, recursive, leave_out=output)
    check_sources(sources)
    ids = _ids_of(model, sources, coco_results, annotations)
    options = {
        "score_threshold": score_threshold,
        "max_pixels": max_pixels,
        "tile": tile,
        "overlap": overlap,
        "whole_image": whole_image,
    }
    with replacing_files(pathlib.Path(output).expanduser(), last=_DETECTIONS) as part:
        writer = _Writer(model, part, options, batch_size, progress, ids)
        writer.images(sources.images)
        for video in (*sources.videos, *(() if sources.camera is None else (sources.camera,))):
            writer.video(video, max_frames)
        if not (writer.found or writer.videos):
            raise writer.errors[0]
        content: dict[str, Any] = {"boxes": "ymin, xmin, ymax, xmax, 0 to 1", "images": writer.found}
        write_json(part / _DETECTIONS, {**content, "videos": writer.videos} if writer.videos else content)
        if ids is not None:
            write_json(part / _RESULTS, writer.results, indent=None)
    return FilesDetected(writer.found, writer.videos, writer.errors)


def check_sources(sources: Sources) -> None:
    """Raises, before any work, where OpenCV is wanted and not installed, or the camera is not there."""
    if sources.videos:
        opencv()
    if sources.camera is not None:
        check_camera(sources.camera)


def _ids_of(model, sources, wanted, annotations):
    if not wanted:
        if annotations is not None:
            raise ValueError("annotations has the ids for coco_results. Received: annotations without coco_results.")
        return None
    if not sources.images:
        raise ValueError("coco_results lists the detections in images. Received videos only.")
    return COCOIds(sources.images, model.class_names, annotations)


class _Writer:
    """Detects, draws into a folder and keeps what the JSON files will hold."""

    def __init__(self, model, folder, options, batch_size, progress, ids):
        self._model, self._folder, self._options, self._batch_size = model, folder, options, batch_size
        self._skeleton = getattr(model, "skeleton", ())
        self._no_bar = None if progress else True  # None: only on a terminal
        self._ids, self._stems = ids, set()
        self.found: dict[str, dict] = {}
        self.videos: dict[str, dict] = {}
        self.results: list[dict] = []
        self.errors: list[Exception] = []

    def images(self, paths):
        """Draws every image that can be read."""
        with tqdm(total=len(paths), desc="predict", unit="image", disable=self._no_bar) as bar:
            for start in range(0, len(paths), self._batch_size):
                chosen = paths[start : start + self._batch_size]
                readable = self._read(chosen)
                for (path, image), result in zip(readable, self._detect(i for _, i in readable), strict=True):
                    name = f"{self._unused(path.stem)}.jpg"
                    drawn = draw_objects(image, result, self._model.class_names, skeleton=self._skeleton)
                    save_image(drawn, self._folder / name, quality=92)
                    self.found[name] = {"image": str(path), **_plain(result)}
                    if self._ids is not None:
                        self.results += coco_results(result, self._ids.image(path), self._ids.category)
                bar.update(len(chosen))

    def video(self, source, max_frames):
        """Draws a video, unless it cannot be read to its end."""
        try:
            with open_video(source, self._options["max_pixels"]) as video:
                self._video(source, video, max_frames)
        except (VideoError, ImageError, FileNotFoundError) as error:
            self.errors.append(error)

    def _video(self, source, video, max_frames):
        stem = self._unused(f"camera_{source}" if video.is_camera else source.stem)
        name, lines = f"{stem}.mp4", f"{stem}.jsonl"
        total = video.count if max_frames is None else min(max_frames, video.count or max_frames)
        frames, written = itertools.islice(iter(video), max_frames), 0
        with (
            video_writer(self._folder / name, video.rate, video.image_size) as writer,
            replacing_file(self._folder / lines, flush=False) as part,
            open(part, "w", encoding="utf-8") as file,
            tqdm(total=total, desc=video.name, unit="frame", disable=self._no_bar) as bar,
            _ctrl_c_ends(video),
        ):
            for frame in detect_frames(frames, lambda pixels: self._detect(pixels, 1 if video.is_camera else None)):
                drawn = draw_objects(
                    frame.pixels, frame.detections, self._model.class_names, skeleton=self._skeleton, enlarge=False
                )
                line = {"frame": frame.index, "seconds": round(frame.seconds, 3), **_plain(frame.detections)}
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
                writer.write(np.asarray(drawn))
                written += 1
                bar.update()
        self.videos[name] = {
            "video": video.name if video.is_camera else str(source),
            "frames": written,
            "frames_per_second": round(video.rate, 3),
            "image_size": list(video.image_size),
            "detections": lines,
        }

    def _detect(self, images, batch_size=None):
        return detect_each(self._model, images, batch_size=batch_size or self._batch_size, **self._options)

    def _read(self, paths):
        """`[(path, pixels)]`: one file that cannot be read does not stop the others."""
        readable = []
        for path in paths:
            try:
                readable.append((path, as_pixels(path, self._options["max_pixels"])))
            except (OSError, ValueError) as error:
                self.errors.append(error)
        return readable

    def _unused(self, stem):
        """A name that no other file of the folder has, on file systems that do not tell "A" from "a" either."""
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in names if name.lower() not in self._stems)
        self._stems.add(name.lower())
        return name


@contextlib.contextmanager
def _ctrl_c_ends(video):
    """Context that Ctrl-C leaves as if a camera had been switched off; it stops everything else."""
    try:
        yield
    except KeyboardInterrupt:
        if not video.is_camera:
            raise


def _plain(result):
    """The detections of one image as JSON holds them, five digits of a float; masks as COCO's run lengths."""
    fields = [field for field in schema.object_fields(schema.DETECTIONS) if field.key in result]
    plain = {}
    for field in fields:
        if field.moves == schema.AS_RASTER:
            plain[field.key] = to_rle(result[field.key], result[schema.BOXES], result.image_size)
        else:
            plain[field.key] = [json_value(field, value, digits=5) for value in result[field.key]]
    return {**plain, CLASS_NAMES: result[CLASS_NAMES]}
