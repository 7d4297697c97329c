"""Videos and cameras: every frame is detected in, drawn and written as a line of JSON, or nothing is."""

import json

import numpy as np
import pytest

from keras_detect.data.image import ImageError
from keras_detect.export.errors import MissingPackageError
from keras_detect.inference import VideoError, detect_files, open_video, video
from keras_detect.transforms.resizers import FixedShapeResizer
from tests.inference.test_images import Echo

cv2 = pytest.importorskip("cv2")
FRAMES, RATE = 12, 10.0


def frame(number):
    """48 x 64 pixels, red as bright as the number says: codecs keep it within a few gray levels."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[..., 0] = 20 * number
    return pixels


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    with video.video_writer(path, RATE, (48, 64)) as writer:
        for number in range(FRAMES):
            writer.write(frame(number))
    return path


def echo():
    return Echo(FixedShapeResizer(height=8, width=8))


def test_frames_are_those_that_were_written(clip):
    with open_video(clip) as opened:
        assert (opened.rate, opened.count, opened.image_size, opened.is_camera) == (RATE, FRAMES, (48, 64), False)
        frames = list(opened)
    assert [each.index for each in frames] == list(range(FRAMES))
    assert frames[5].seconds == 0.5
    for number, each in enumerate(frames):
        assert np.abs(each.pixels.astype(int) - frame(number)).max() < 12


def test_a_video_is_drawn_and_every_frame_has_a_line(clip, tmp_path):
    model = echo()
    written = detect_files(model, clip, tmp_path / "out", score_threshold=0.0, batch_size=5, progress=False)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "clip.jsonl", "detections.json"}
    assert not written.images and not written.errors
    entry = json.loads((tmp_path / "out" / "detections.json").read_text())["videos"]["clip.mp4"]
    assert entry == written.videos["clip.mp4"]
    assert entry == {
        "video": str(clip),
        "frames": FRAMES,
        "frames_per_second": RATE,
        "image_size": [48, 64],
        "detections": "clip.jsonl",
    }
    lines = [json.loads(line) for line in (tmp_path / "out" / "clip.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert lines[3]["seconds"] == 0.3 and lines[3]["boxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert lines[3]["class_names"] == ["dog"]
    assert [round(line["scores"][0] * 3 * 255 / 20) for line in lines] == list(range(FRAMES))  # its own frame's
    assert [shape[0] for shape in model.batches] == [5, 5, 2]
    with open_video(tmp_path / "out" / "clip.mp4") as drawn:
        frames = list(drawn)
    assert len(frames) == FRAMES and frames[0].pixels.shape == (48, 64, 3)
    assert np.abs(frames[0].pixels.astype(int) - frame(0)).max() > 60  # the box


def test_bad_videos_are_left_out_and_leave_nothing(clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[:-700])
    written = detect_files(echo(), [tmp_path / "text.mp4", cut, clip], tmp_path / "out", progress=False)
    assert list(written.videos) == ["clip.mp4"]
    assert ["text.mp4" in str(written.errors[0]), "cut.mp4" in str(written.errors[1])] == [True, True]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "clip.jsonl", "detections.json"}
    with pytest.raises(VideoError, match=r"Not a readable video: .*text\.mp4"):
        detect_files(echo(), tmp_path / "text.mp4", tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError, match="No such video"), open_video(tmp_path / "nowhere.mp4"):
        pass
    with pytest.raises(ImageError, match="The limit is 100"), open_video(clip, max_pixels=100):
        pass


def test_frames_that_a_file_promises_and_does_not_have(clip):
    with open_video(clip) as opened:
        opened.count = 2 * FRAMES
        with pytest.raises(VideoError, match=r"12 of its 24 frames"):
            list(opened)


def test_equal_names_do_not_collide(clip, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "clip.mp4").write_bytes(clip.read_bytes())
    written = detect_files(
        echo(), [clip, tmp_path / "other" / "clip.mp4"], tmp_path / "out", progress=False, max_frames=2
    )
    assert list(written.videos) == ["clip.mp4", "clip_2.mp4"]
    assert len((tmp_path / "out" / "clip_2.jsonl").read_text().splitlines()) == 2


def test_a_camera_that_is_not_there(tmp_path, capfd):
    with pytest.raises(VideoError, match="There is no camera 97"):
        detect_files(echo(), 97, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg are quiet


class Camera:
    """Stands in for OpenCV's capture of a camera, whose user presses Ctrl-C after some frames."""

    def __init__(self, frames):
        self.left = frames

    def get(self, _):
        return 0.0

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return True, frame(self.left)[..., ::-1]

    def release(self):
        pass


def test_ctrl_c_ends_a_camera_and_keeps_what_it_saw(tmp_path, monkeypatch):
    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: Camera(4) if source == 0 else opened(source))
    model = echo()
    written = detect_files(model, "0", tmp_path / "out", progress=False)
    assert written.videos["camera_0.mp4"]["frames"] == 4
    assert len((tmp_path / "out" / "camera_0.jsonl").read_text().splitlines()) == 4
    assert [shape[0] for shape in model.batches] == [1] * 4
    written = detect_files(model, 0, tmp_path / "out", progress=False, max_frames=3)
    assert written.videos["camera_0.mp4"]["frames"] == 3


def test_a_full_disk_leaves_no_video(tmp_path):
    with (
        pytest.raises(OSError, match="could not be written whole"),
        video.video_writer(tmp_path / "a.mp4", RATE, (48, 64)) as writer,
    ):
        writer.write(frame(1))
        writer.count += 1  # one that OpenCV has dropped without a word
    assert not list(tmp_path.iterdir())


def test_without_opencv_the_extra_is_named(tmp_path, clip, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(video.importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match=r"pip install 'keras-detect\[video\]'"):
        detect_files(echo(), clip, tmp_path / "out", progress=False)
