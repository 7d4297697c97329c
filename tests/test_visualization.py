"""Drawings: lines where the boxes are, names on the canvas, at any image size."""

import numpy as np
import pytest
from PIL import Image

from keras_detect import visualization
from keras_detect.visualization import class_color, draw_boxes, draw_gallery, draw_objects, draw_side_by_side

GRAY = 128


def gray(height, width):
    return np.full((height, width, 3), GRAY, np.uint8)


@pytest.mark.parametrize("side", [400, 1000, 3000])
def test_the_outline_lies_on_the_boxs_own_pixels(side):
    """Box 0.25...0.75: its first pixel is side / 4, its last 3 side / 4 - 1; the pixel outside stays gray."""
    image = np.asarray(draw_boxes(gray(side, side), [[0.25, 0.25, 0.75, 0.75]], [0], class_names=[""]))
    first, last, middle = side // 4, 3 * side // 4 - 1, side // 2
    for y, x, outside in (
        (middle, first, (middle, first - 1)),
        (middle, last, (middle, last + 1)),
        (last, middle, (last + 1, middle)),
    ):
        assert tuple(image[y, x]) == class_color(0)
        assert tuple(image[outside]) == (GRAY,) * 3
    assert tuple(image[middle, middle]) == (GRAY,) * 3
    widths = np.all(image[middle, : side // 2] == class_color(0), axis=-1).sum()
    assert widths == max(1, round(side / 256))


@pytest.mark.parametrize("size", [(64, 64), (30, 200), (300, 300), (3000, 2000), (1, 1), (2, 900)])
def test_tags_stay_on_the_canvas(monkeypatch, size):
    tags = []
    original = visualization._tag

    def watch(pen, corners, text, color, font, canvas, taken):
        original(pen, corners, text, color, font, canvas, taken)
        tags.append((taken[-1], canvas))

    monkeypatch.setattr(visualization, "_tag", watch)
    edges = [[0, 0, 0.1, 0.1], [0.9, 0.9, 1, 1], [0, 0.95, 1, 1.2], [-0.5, -0.5, 0.01, 0.01], [0, 0, 1, 1]]
    names = ["a name that is far too long for a small image", "b"]
    draw_boxes(gray(*size), edges, [0, 1, 0, 1, 0], scores=[0.9, 0.8, 0.7, 0.6, 0.5], class_names=names)
    assert len(tags) == 5
    for (left, top, right, bottom), (width, height) in tags:
        assert left >= 0 and top >= 0 and right <= max(width, right - left)
        assert right <= width or width < 20
        assert bottom <= height or height < 20


def test_letters_grow_with_the_image():
    assert draw_boxes(gray(64, 48), [], []).size == (240, 320)  # five times, so that names can be read
    assert draw_boxes(gray(64, 48), [], [], enlarge=False).size == (48, 64)
    sizes = [visualization._font(Image.new("RGB", (side, side))).size for side in (64, 300, 1000, 3000)]
    assert sizes == [11, 11, 24, 71]


def test_thresholds_and_padding():
    boxes, ground = [[0.2, 0.2, 0.8, 0.8]] * 2, draw_boxes(gray(400, 400), [], [])
    for labels, scores in (([-1, -1], None), ([0, 1], [0.1, 0.2]), ([0, -1], [0.2, 0.9])):
        drawn = draw_boxes(gray(400, 400), boxes, labels, scores=scores, score_threshold=0.3)
        assert drawn.tobytes() == ground.tobytes()
    assert draw_boxes(gray(400, 400), [[np.nan, 0, 1, 1]], [0]).tobytes() == ground.tobytes()


def test_colors_are_stable_apart_and_their_ink_can_be_read():
    colors = [class_color(label) for label in range(90)]
    assert len(set(colors)) == 90
    for i in range(12):
        for j in range(i):
            assert np.abs(np.subtract(colors[i], colors[j])).sum() > 60
    for color in colors:
        light, dark = sorted((_luminance(color), _luminance(visualization._ink(color))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, level AA


def _luminance(color):
    channels = np.array(color) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def test_side_by_side_shows_ground_truth_left_and_detections_right():
    ground_truth = {"boxes": np.array([[0.25, 0.25, 0.75, 0.75], [0, 0, 0, 0]]), "labels": np.array([0, -1])}
    found = {
        "boxes": np.array([[0.25, 0.25, 0.75, 0.75]] * 3),
        "scores": np.array([0.9, 0.1, 0.8]),
        "labels": np.array([1, 0, 0]),
        "num_detections": np.array(2),
    }
    image = np.asarray(draw_side_by_side(gray(400, 400), ground_truth, found, ["a", "b"]))
    assert image.shape[1] >= 800 and image.shape[0] > 400
    left, right = np.split(image[:, : image.shape[1] // 2 * 2], 2, axis=1)
    assert _has(left, class_color(0)) and not _has(left, class_color(1))
    assert _has(right, class_color(1)) and not _has(right, class_color(0))


def _has(image, color):
    return bool(np.all(image == color, axis=-1).any())


def test_masks_are_translucent_within_a_contour():
    """A mask over rows 100...299 and columns 100...199 of 400 x 400, given at half the size."""
    mask = np.zeros((1, 200, 200), np.uint8)
    mask[0, 50:150, 50:100] = 1
    objects = {"boxes": [[0.8, 0.8, 0.9, 0.9]], "labels": [0], "masks": mask}
    drawn = np.asarray(draw_objects(gray(400, 400), objects, [""]))
    color = np.array(class_color(0))
    line = 2  # 400 / 256
    for y, x in ((100, 150), (101, 150), (299, 150), (200, 100), (200, 199), (298, 150)):
        np.testing.assert_array_equal(drawn[y, x], color)
    for y, x in ((100 + line, 150), (200, 100 + line), (200, 150), (297, 197)):
        np.testing.assert_allclose(drawn[y, x], GRAY + 0.45 * (color - GRAY), atol=0.51)
    for y, x in ((99, 150), (300, 150), (200, 99), (200, 200)):
        np.testing.assert_array_equal(drawn[y, x], GRAY)
    below = draw_objects(gray(400, 400), objects | {"scores": [0.2]}, [""], score_threshold=0.3)
    assert np.all(np.asarray(below) == GRAY)


def test_masks_of_detections_lie_over_their_boxes():
    """A box over rows 100 to 300 and columns 100 to 200 of 401 x 401, its lower half without the object."""
    mask = np.ones((1, 5, 3), np.float32)
    mask[0, 3:] = 0.0
    objects = {"boxes": [[0.25, 0.25, 0.75, 0.5]], "labels": [0], "scores": [0.9], "masks": mask}
    drawn = np.asarray(draw_objects(gray(401, 401), objects, [""]))
    color = np.array(class_color(0))
    np.testing.assert_allclose(drawn[200, 150], GRAY + 0.45 * (color - GRAY), atol=0.51)
    np.testing.assert_array_equal(drawn[224, 150], color)  # the contour, half way between the cells
    for y, x in ((228, 150), (280, 150), (200, 90)):
        np.testing.assert_array_equal(drawn[y, x], GRAY)


def test_keypoints_are_joined_by_the_skeleton():
    """Points at (100, 100), (100, 300), (300, 300): visible, hidden and not annotated; the lines 0-1 and 1-2."""
    objects = {
        "boxes": [[0.8, 0.8, 0.9, 0.9]],
        "labels": [0],
        "keypoints": [[[0.25, 0.25], [0.25, 0.75], [0.75, 0.75]]],
        "keypoint_visibility": [[2, 1, 0]],
    }
    drawn = np.asarray(draw_objects(gray(400, 400), objects, [""], skeleton=[(0, 1), (1, 2)]))
    color = class_color(0)
    assert tuple(drawn[100, 100]) == tuple(drawn[100, 200]) == color
    assert tuple(drawn[200, 300]) == tuple(drawn[300, 300]) == (GRAY,) * 3
    alone = np.asarray(draw_objects(gray(400, 400), objects, [""]))
    assert tuple(alone[100, 200]) == (GRAY,) * 3
    assert tuple(alone[100, 100]) == color and tuple(alone[100, 300]) == (GRAY,) * 3  # hidden: a ring
    assert tuple(alone[100, 303]) == color


def test_fields_of_another_number_of_rows_are_refused():
    with pytest.raises(ValueError, match="1 boxes, 1 labels, 2 track_ids"):
        draw_objects(gray(9, 9), {"boxes": [[0, 0, 1, 1]], "labels": [0], "track_ids": [1, 2]})


def test_gallery(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(gray(30, 60)).save(file)
    sheet = draw_gallery([file, str(file), Image.open(file), gray(30, 60)], columns=2, cell_size=(60, 40))
    gap = 4
    assert sheet.size == (2 * (60 + gap) + gap, 2 * (40 + gap) + gap)
    assert np.all(np.asarray(sheet)[gap + 5 : gap + 35, gap : gap + 60] == GRAY)
    assert draw_gallery([gray(30, 60)], captions=["x" * 500]).size[0] == 60 + 2 * gap


def test_the_callers_image_is_left_alone():
    image = Image.fromarray(gray(400, 400))
    before = image.tobytes()
    draw_boxes(image, [[0, 0, 1, 1]], [0])
    assert image.tobytes() == before


def test_errors():
    with pytest.raises(ValueError, match="1 boxes, 2 labels"):
        draw_boxes(gray(9, 9), [[0, 0, 1, 1]], [0, 1])
    with pytest.raises(ValueError, match="1 labels, 2 scores"):
        draw_boxes(gray(9, 9), [[0, 0, 1, 1]], [0], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"shape \(1, 9, 9, 3\)"):
        draw_boxes(np.zeros((1, 9, 9, 3)), [], [])
    with pytest.raises(ValueError, match="at least one image"):
        draw_gallery([])
    with pytest.raises(ValueError, match="One caption"):
        draw_gallery([gray(9, 9)], captions=["a", "b"])
