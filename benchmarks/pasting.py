"""Masks of 100 detections on an image of 1024 x 1024: `keras_detect.masks` beside a plain loop over OpenCV's resize.

    python benchmarks/pasting.py
    python benchmarks/pasting.py --image 2048 2048 --masks 50 --rounds 20

The loop resizes each mask to its box, compares it with the threshold and copies it into its plane. "pixels" ends there,
"run lengths" goes on to COCO's encoding, which `predict` writes and evaluation takes. "zeros" is what the system takes
to hand out the planes, which no way to pixels avoids. The ways take turns; a row has the median over the rounds and the
median ratio to the loop of the same round, in time and in processor time. Target: 2.
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

TARGET = 2.0


def main(argv=None):
    """Parses arguments, times every way and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, nargs=2, default=(1024, 1024), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--masks", type=int, default=100)
    parser.add_argument("--cells", type=int, default=28, help="side of a mask")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args(argv)

    from keras_detect import masks as kd_masks

    size = tuple(arguments.image)
    masks, boxes = drawn(arguments.masks, arguments.cells)
    share = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).mean()
    print(
        f"{len(masks)} masks of {arguments.cells} x {arguments.cells} on {size[0]} x {size[1]}, boxes of {share:.0%} "
        f"of the image on average, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    ways = {
        "OpenCV: pixels": lambda: opencv(masks, boxes, size),
        "paste: pixels": lambda: kd_masks.paste(masks, boxes, size),
        "zeros": lambda: touched(boxes, size),
        "OpenCV: run lengths": lambda: [kd_masks.encode(plane) for plane in opencv(masks, boxes, size)],
        "to_rle: run lengths": lambda: kd_masks.to_rle(masks, boxes, size),
    }
    rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(arguments.rounds + 1)][1:]
    print(f"{'':22}{'ms':>10}{'CPU ms':>10}{'OpenCV /':>10}{'CPU':>10}")
    for name in ways:
        loop = "OpenCV: run lengths" if "run lengths" in name else "OpenCV: pixels"
        values = [1e3 * statistics.median(times[name][kind] for times in rounds) for kind in (0, 1)]
        ratios = [statistics.median(times[loop][kind] / times[name][kind] for times in rounds) for kind in (0, 1)]
        print(f"{name:22}" + "".join(f"{v:10.1f}" for v in values) + "".join(f"{ratio:10.2f}" for ratio in ratios))
    print(f"target: {TARGET:g}")


def drawn(number, cells):
    """`(masks [n, cells, cells], boxes [n, 4])`: soft discs and ovals over boxes of 5 to 60 % of the image's sides."""
    import numpy as np

    rng = np.random.default_rng(0)
    centers, sides = rng.uniform(0.2, 0.8, (number, 2)), rng.uniform(0.05, 0.6, (number, 2))
    boxes = np.clip(np.concatenate([centers - sides / 2, centers + sides / 2], axis=1), 0.0, 1.0)
    line = np.linspace(-1.0, 1.0, cells)
    stretched = rng.uniform(1.0, 1.6, (number, 2, 1)) * line
    radius = np.hypot(stretched[:, 0, :, None], stretched[:, 1, None])
    return (1.0 / (1.0 + np.exp(8.0 * (radius - 1.0)))).astype("float32"), boxes


def opencv(masks, boxes, size):
    """`[n, height, width]` uint8 by the plain loop."""
    import cv2
    import numpy as np

    pasted = np.zeros((len(masks), *size), np.uint8)
    for plane, mask, (top, left, bottom, right) in zip(pasted, masks, in_pixels(boxes, size), strict=True):
        resized = cv2.resize(mask, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        plane[top:bottom, left:right] = resized >= 0.5
    return pasted


def touched(boxes, size):
    """As many planes, with every box filled."""
    import numpy as np

    pasted = np.zeros((len(boxes), *size), np.uint8)
    for plane, (top, left, bottom, right) in zip(pasted, in_pixels(boxes, size), strict=True):
        plane[top:bottom, left:right] = 1
    return pasted


def in_pixels(boxes, size):
    """Boxes as whole pixels, at least one of them."""
    corners = (boxes * [*size, *size]).round().astype(int)
    corners[:, 2:] = corners[:, 2:].clip(corners[:, :2] + 1)
    return corners.tolist()


def timed(way):
    """`(seconds, seconds of processor time)` of one call."""
    start, processor = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - start, time.process_time() - processor


if __name__ == "__main__":
    main()
