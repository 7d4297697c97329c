"""Frames of video files and cameras, decoded and encoded by OpenCV (the extra `video`)."""

import contextlib
import importlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_detect.data.image import check_pixels
from keras_detect.export.errors import MissingPackageError
from keras_detect.files import replacing_file
from keras_detect.inference.detections import Detections
from keras_detect.messages import shown

_RATE = 25.0  # frames per second where a file or a camera does not say
_FASTEST = 480.0  # more is a container's time base and no rate
_LOST = 0.05  # share of a file's frames from which on the file is damaged: containers estimate their number


class VideoError(ValueError):
    """Not a video, a damaged one, or a camera that is not there; the message names it."""


class Frame(NamedTuple):
    """A frame: its index from 0, its time in seconds from the start, and pixels `[H, W, 3]` uint8 RGB."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
    seconds: float
    pixels: np.ndarray


class VideoFrame(NamedTuple):
    """A frame, as in `Frame`, and the `Detections` in it."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
    seconds: float
    pixels: np.ndarray
    detections: Detections


class Video:
    """An opened video file or camera; `open_video` makes it. Iterating over it decodes its frames, once.

    Attributes:
        name: what errors call it.
        is_camera: whether it is a camera, which has no end.
        rate: frames per second.
        count: number of frames as the file says; `None` where it does not.
        image_size: `(height, width)` of the frames in pixels.
    """

    def __init__(self, capture: Any, first: np.ndarray, name: str, is_camera: bool):
        cv2 = opencv()
        self._capture, self._first = capture, first
        self.name, self.is_camera = name, is_camera
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.rate = float(rate) if math.isfinite(rate) and 0 < rate <= _FASTEST else _RATE
        self.count = None if is_camera or not count >= 1 else int(count)
        self.image_size = first.shape[:2]

    def __iter__(self) -> Iterator[Frame]:
        """The frames in turn.

        Raises:
            VideoError: the file ends early: 5 % of its frames or more are missing.
        """
        pixels, index = self._first, 0
        while pixels is not None:
            yield Frame(index, index / self.rate, pixels)
            index += 1
            pixels = _read(self._capture)
        if self.count is not None and index < (1 - _LOST) * self.count - 1:
            raise VideoError(f"{self.name} is damaged or cut short: {index} of its {self.count} frames can be decoded.")


@contextlib.contextmanager
def open_video(source: str | os.PathLike | int, max_pixels: int | None = None) -> Iterator[Video]:
    """Context of a `Video`.

    Args:
        source: a video file, or the index of a camera.
        max_pixels: height times width of the largest frame, None for that of `keras_detect.data.pixel_limit`.

    Raises:
        MissingPackageError: OpenCV is not installed.
        FileNotFoundError: no such file.
        VideoError: not a video, or no camera of that index.
        ImageError: its frames have too many pixels.
    """
    cv2 = opencv()
    is_camera = isinstance(source, int)
    name = f"camera {source}" if is_camera else shown(source, 400)
    if not isinstance(source, int) and not os.path.isfile(source):
        raise FileNotFoundError(f"No such video: {name}")
    capture = cv2.VideoCapture(source if isinstance(source, int) else os.fspath(source))
    try:
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        check_pixels(size, name, max_pixels)
        first = _read(capture) if capture.isOpened() else None
        if first is None:
            if is_camera:
                raise VideoError(f"There is no {name}, or another program uses it. Cameras are numbered from 0.")
            raise VideoError(f"Not a readable video: {name}. Replace the file, or leave it out.")
        yield Video(capture, first, name, is_camera)
    finally:
        capture.release()


def _read(capture):
    """The next frame, uint8 RGB, or `None` at the end."""
    there, pixels = capture.read()
    return np.ascontiguousarray(pixels[..., ::-1]) if there and pixels is not None else None


class VideoWriter:
    """Encodes frames of one size as MPEG-4 in a file that `video_writer` puts in its place."""

    def __init__(self, writer: Any):
        self._writer, self.count = writer, 0

    def write(self, pixels: np.ndarray) -> None:
        """Another frame, `[H, W, 3]` uint8 RGB."""
        self._writer.write(np.ascontiguousarray(pixels[..., ::-1]))
        self.count += 1


@contextlib.contextmanager
def video_writer(path: str | os.PathLike, rate: float, image_size: tuple[int, int]) -> Iterator[VideoWriter]:
    """Context of a `VideoWriter`; the file (.mp4) appears whole when the block ends, and not at all if it raises.

    Args:
        path: the file.
        rate: frames per second.
        image_size: `(height, width)` of the frames in pixels; an odd side loses its last row or column.

    Raises:
        MissingPackageError: OpenCV is not installed.
        OSError: it cannot be written, as on a full disk.
    """
    cv2 = opencv()
    with replacing_file(path, flush=False) as part:
        code = cv2.VideoWriter_fourcc(*"mp4v")
        encoder = cv2.VideoWriter(str(part), code, rate, (int(image_size[1]), int(image_size[0])))
        try:
            if not encoder.isOpened():
                raise OSError(f"No video can be written to {path}.")
            writer = VideoWriter(encoder)
            yield writer
        finally:
            encoder.release()
        if writer.count and _frames_of(cv2, part) != writer.count:  # OpenCV does not say that a disk is full
            raise OSError(f"The video {path} could not be written whole. Is the disk full?")


def _frames_of(cv2, path):
    capture = cv2.VideoCapture(str(path))
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()


def check_camera(index: int) -> None:
    """Raises `VideoError` where there is no camera of that index."""
    with open_video(index):
        pass


def detect_frames(
    frames: Iterable[Frame], detect: Callable[[Iterable[np.ndarray]], Iterator[Detections]]
) -> Iterator[VideoFrame]:
    """Yields a `VideoFrame` for each frame in turn.

    Args:
        frames: `Frame`s.
        detect: takes an iterable of pixels `[H, W, 3]` and yields the `Detections` of each; may read ahead.
    """
    waiting = deque[Frame]()

    def pixels():
        for frame in frames:
            waiting.append(frame)
            yield frame.pixels

    for found in detect(pixels()):
        yield VideoFrame(*waiting.popleft(), found)


def opencv() -> Any:
    """The module `cv2`, quiet: what is wrong with a video is said in one line.

    Raises:
        MissingPackageError: OpenCV is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when a file is opened
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise MissingPackageError(
            "Videos and cameras need OpenCV, which is not installed. Install the extra: "
            "pip install 'keras-detect[video]'."
        ) from None
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
