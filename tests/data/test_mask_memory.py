"""How much memory a batch with masks takes, measured in a process of its own."""

import json
import subprocess
import sys

import pytest

IMAGES, OBJECTS, HEIGHT, WIDTH = 8, 100, 800, 1333

PROGRAM = """
import json, resource, sys
import numpy as np
from keras_detect.data import DetectionDataset, load_dataset, masks
from keras_detect.data.image import ArrayImage
from keras_detect.data.record import make_record
from keras_detect.transforms import RandomHorizontalFlip
from keras_detect.transforms.resizers import FixedShapeResizer

count, objects, height, width, kind, augmented = json.loads(sys.argv[1])
source = (2 * height, 2 * width)
rng = np.random.default_rng(0)
records = []
for number in range(count + 1):
    corners = rng.uniform(0, 0.5, (objects, 2))
    boxes = np.concatenate([corners, corners + 0.4], axis=1) * np.array([*source, *source])
    annotated = []
    for y0, x0, y1, x1 in boxes:
        polygon = (np.array([x0, y0, x1, y0, x1, y1, x0, y1]),)
        annotated.append(polygon if kind == "polygons" else masks.to_png(polygon, source))
    image = ArrayImage(np.zeros((*source, 3), np.uint8))
    records.append(make_record(image, str(number), number, boxes, np.zeros(objects), masks=annotated))
resizer = FixedShapeResizer(height=height, width=width)
augment = [RandomHorizontalFlip(probability=1.0)] if augmented else None


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# TensorFlow, its threads and the code of masks are there before the measurement
small = DetectionDataset(records[count:], ["a"])
for _ in small.batches(FixedShapeResizer(height=16, width=16), 1, masks=True, max_boxes=1):
    pass
before = peak()
data = DetectionDataset(records[:count], ["a"])
_, y = next(iter(data.batches(resizer, count, masks=True, augment=augment)))
shape, share = list(y["masks"].shape), float(np.mean(y["masks"][0, 0].numpy()))
print(json.dumps({"bytes": peak() - before, "shape": shape, "share": share}))
"""


def measure(kind, augmented):
    arguments = json.dumps([IMAGES, OBJECTS, HEIGHT, WIDTH, kind, augmented])
    run = subprocess.run([sys.executable, "-c", PROGRAM, arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux alone")
@pytest.mark.parametrize("kind", ["polygons", "png"])
def test_a_batch_of_masks_takes_little_more_than_itself(kind):
    """8 x 100 masks of 800 x 1333 are 853 MB as uint8; annotated on images of twice the size, 3.4 GB if all decoded."""
    found = measure(kind, augmented=False)
    assert found["shape"] == [IMAGES, OBJECTS, HEIGHT, WIDTH]
    assert found["share"] == pytest.approx(0.16, abs=0.01)  # the box is 0.4 x 0.4 of the image
    print(f"{kind}: {found['bytes'] / 1e6:.0f} MB beyond what the process had")
    assert found["bytes"] <= 1e9
