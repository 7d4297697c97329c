"""Trainings that differ in one setting, for `training.recipe`: on a GPU under JAX, where TensorFlow is not installed.

    python benchmarks/recipe_sweep.py --data bccd --work /tmp/sweep --runs runs.json --lanes 10

`runs.json` is a list of dicts with some of the keys of `DEFAULTS`, one training each, the most wanted first: `[{"lr":
0.001}, {"lr": 0.002, "ema": 0}]`. All start from the packaged detector. `--lanes` processes share the device and take
the next run in turn. A line of JSON per run goes to `results.jsonl` in `--work`: COCO AP and AP50 on the validation
images at half and at the end of the training, and on the test images at its end.

`tf.data` does not run there, so the epochs are made beforehand by numpy forms of `RandomHorizontalFlip`,
`RandomIoUCrop` and `RandomColor` (the same settings, other random numbers) and read back as memory maps.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

DEFAULTS = {
    "lr": 5e-4,
    "epochs": 60,
    "batch_size": 8,
    "ema": 0.998,
    "crop": 0.5,  # how often RandomIoUCrop is tried
    "min_area": 0.1,
    "freeze": False,  # batch norm in inference mode
    "localization_weight": 1.0,
    "seed": 0,
}
START, SIZE, ROWS = "ssd_mobilenet_v2_oidv4", 300, 40
TO_YIQ = np.array(((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)), "float32")


# ---------------------------------------------------------------------------------------------------------- the images


def annotated(data, split):
    """The class names, and `(path, boxes [n, 4] normalized yxyx, labels [n])` of each image of a split."""
    table = json.loads((data / "instances.json").read_text())
    names = [category["name"] for category in table["categories"]]
    number = {category["id"]: position for position, category in enumerate(table["categories"])}
    images = {image["id"]: image for image in table["images"] if image["split"] == split}
    rows: dict = {key: [] for key in images}
    for annotation in table["annotations"]:
        image, (x, y, w, h) = images.get(annotation["image_id"]), annotation["bbox"]
        if image is not None and w > 0 and h > 0:
            sides = np.array([image["height"], image["width"]] * 2)
            box = np.clip(np.array([y, x, y + h, x + w]) / sides, 0, 1)
            rows[image["id"]].append((box, number[annotation["category_id"]]))
    return names, [
        (
            data / "images" / images[key]["file_name"],
            np.array([box for box, _ in found], "float32").reshape(-1, 4),
            np.array([label for _, label in found], "int32"),
        )
        for key, found in rows.items()
    ]


def mirrored(image, boxes):
    return image[:, ::-1], np.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], axis=1)


def cropped(image, boxes, labels, rng, min_area):
    """`RandomIoUCrop` of one image."""
    shape, trials = np.array(image.shape[:2]), 50
    area, aspect = rng.uniform(min_area, 1, trials), np.exp(rng.uniform(-1, 1, trials) * np.log(2))
    sides = np.minimum(np.stack([np.sqrt(area / aspect), np.sqrt(area * aspect)], axis=1), 1)
    sizes = np.clip(np.round(sides * shape).astype(int), 1, shape)
    corners = np.minimum((rng.random((trials, 2)) * (shape - sizes + 1)).astype(int), shape - sizes)
    windows = np.concatenate([corners, corners + sizes], axis=1) / np.tile(shape, 2)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centers > windows[:, None, :2]) & (centers < windows[:, None, 2:])).all(axis=-1)
    low, high = np.maximum(windows[:, None, :2], boxes[:, :2]), np.minimum(windows[:, None, 2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(rows[:, 2:] - rows[:, :2], axis=-1) for rows in (windows, boxes)]
    overlap = np.where(inside, shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9), -1)
    best = overlap.max(axis=1) if len(boxes) else np.zeros(trials)
    accepted = best >= np.array([0.0, 0.1, 0.3, 0.5, 0.7, 0.9])[:, None]
    possible = np.concatenate([[True], accepted.any(axis=1)])
    option = int(np.argmax(np.where(possible, rng.random(len(possible)), -1)))
    if option == 0:
        return image, boxes, labels
    chosen = int(np.argmax(accepted[option - 1]))
    (y, x), (bottom, right), keep = corners[chosen], corners[chosen] + sizes[chosen], inside[chosen]
    corner, extent = np.tile(windows[chosen][:2], 2), np.tile(windows[chosen][2:] - windows[chosen][:2], 2)
    return image[y:bottom, x:right], np.clip((boxes[keep] - corner) / extent, 0, 1), labels[keep]


def colored(image, rng):
    """`RandomColor` of one image."""
    if rng.random() >= 0.8:
        return image
    shift, contrast, saturation = rng.uniform(-0.125, 0.125) * 255, rng.uniform(0.75, 1.25), rng.uniform(0.75, 1.25)
    angle = rng.uniform(-0.02, 0.02) * 2 * np.pi
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    color = np.linalg.inv(TO_YIQ) @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ TO_YIQ
    pixels = image.reshape(-1, 3).astype("float32")
    mean = color @ pixels.mean(axis=0) + shift
    changed = pixels @ (contrast * color).T.astype("float32") + contrast * shift + (1 - contrast) * mean
    return np.clip(np.round(changed), 0, 255).astype("uint8").reshape(image.shape)


def resized(image):
    """Bilinear without antialiasing on the legacy grid, as the packaged detector's resizer does it."""
    axes = []
    for length in image.shape[:2]:
        position = np.arange(SIZE) * (length / SIZE)
        first = position.astype(int)
        axes.append((first, np.minimum(first + 1, length - 1), (position - first).astype("float32")))
    (y0, y1, fy), (x0, x1, fx) = axes
    fy, fx = fy[:, None, None], fx[None, :, None]
    rows = [image[y][:, x0] * (1 - fx) + image[y][:, x1] * fx for y in (y0, y1)]
    return np.clip(np.round(rows[0] * (1 - fy) + rows[1] * fy), 0, 255).astype("uint8")


def write_epoch(folder, name, records, augmentation, seed):
    """Writes `<name>_images.npy`, `_boxes.npy` and `_labels.npy`; `augmentation` is `(crop, min_area)` or None."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    images = np.empty((len(records), SIZE, SIZE, 3), "uint8")
    all_boxes, all_labels = np.zeros((len(records), ROWS, 4), "float32"), np.full((len(records), ROWS), -1, "int32")
    for row, (path, boxes, labels) in enumerate(records):
        image = np.asarray(Image.open(path).convert("RGB"))
        if augmentation:
            crop, min_area = augmentation
            image, boxes = mirrored(image, boxes) if rng.random() < 0.5 else (image, boxes)
            if rng.random() < crop:
                image, boxes, labels = cropped(image, boxes, labels, rng, min_area)
        image = resized(image)
        images[row] = colored(image, rng) if augmentation else image
        all_boxes[row, : len(boxes)], all_labels[row, : len(labels)] = boxes[:ROWS], labels[:ROWS]
    for kind, values in (("images", images), ("boxes", all_boxes), ("labels", all_labels)):
        np.save(folder / f"{name}_{kind}.npy", values)


def prepare(data, folder, runs):
    """All epochs that the runs need."""
    wanted = {}
    for run in runs:
        key = (run["crop"], run["min_area"])
        wanted[key] = max(wanted.get(key, 0), run["epochs"])
    training = annotated(data, "train")[1]
    jobs = [(folder, split, annotated(data, split)[1], None, 0) for split in ("val", "test")]
    jobs += [
        (folder, f"{crop}_{area}_{epoch}", training, (crop, area), (epoch, int(1000 * crop), int(1000 * area)))
        for (crop, area), epochs in wanted.items()
        for epoch in range(epochs)
    ]
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for job in [pool.submit(write_epoch, *job) for job in jobs]:
            job.result()


def stored(folder, name):
    return [np.load(folder / f"{name}_{kind}.npy", mmap_mode="r") for kind in ("images", "boxes", "labels")]


# -------------------------------------------------------------------------------------------------------- the trainings


def one_run(run, folder, class_names):
    """Trains; returns the measured APs."""
    import jax
    import keras

    from keras_detect import DetectionModel
    from keras_detect.training.schedules import CosineDecayWithWarmup

    keras.utils.set_random_seed(run["seed"])
    model = DetectionModel.from_preset(START).re_head(class_names=class_names)
    model.detection_loss = dataclasses.replace(model.detection_loss, localization_weight=run["localization_weight"])
    if run["freeze"]:
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    steps = len(stored(folder, f"{run['crop']}_{run['min_area']}_0")[0])
    steps //= run["batch_size"]
    total = steps * run["epochs"]
    schedule = CosineDecayWithWarmup(
        learning_rate_base=run["lr"],
        total_steps=total,
        warmup_learning_rate=run["lr"] / 100,
        warmup_steps=total // 20,
    )
    optimizer = keras.optimizers.AdamW(run["lr"], weight_decay=1e-4, global_clipnorm=10.0)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer=optimizer)
    mix = jax.jit(lambda average, values, m: [a * m + b * (1 - m) for a, b in zip(average, values, strict=True)])
    average = [np.zeros(variable.shape, variable.dtype) for variable in model.trainable_variables]
    result, step = {"run": run}, 0
    for epoch in range(run["epochs"]):
        images, boxes, labels = stored(folder, f"{run['crop']}_{run['min_area']}_{epoch}")
        order = np.random.default_rng((run["seed"], epoch)).permutation(len(images))
        for first in range(0, steps * run["batch_size"], run["batch_size"]):
            rows = np.sort(order[first : first + run["batch_size"]])
            optimizer.learning_rate.assign(float(schedule(step)))
            model.train_on_batch(images[rows], {"boxes": boxes[rows], "labels": labels[rows]})
            momentum = min(run["ema"], (1 + step) / (10 + step)) if run["ema"] else 0.0
            average = mix(average, [variable.value for variable in model.trainable_variables], momentum)
            step += 1
        if epoch + 1 in (run["epochs"] // 2, run["epochs"]):
            trained = [np.array(variable) for variable in model.trainable_variables]
            assign(model, average)
            result[f"val, epoch {epoch + 1}"] = measured(model, folder, "val")
            if epoch + 1 == run["epochs"]:
                result["test"] = measured(model, folder, "test")
            assign(model, trained)
    return result


def assign(model, values):
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(np.array(value))


def measured(model, folder, split):
    """`[AP, AP50]`."""
    from keras_detect.evaluation import COCOEvaluator

    evaluator, size = COCOEvaluator(model.class_names), 16
    images, boxes, labels = stored(folder, split)
    for first in range(0, len(images), size):
        batch = np.array(images[first : first + size])
        filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
        found = {key: np.array(rows)[: len(batch)] for key, rows in model.predict_on_batch(filled).items()}
        ground_truth = {"boxes": boxes[first : first + size], "labels": labels[first : first + size]}
        evaluator.update(ground_truth, found, image_sizes=np.array([[480, 640]] * len(batch)))
    result = evaluator.result()
    return [round(result["map"], 4), round(result["map_50"], 4)]


def lane(folder, class_names, runs, taken):
    """Takes one run after the other until none is left."""
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(runs):
            return
        clock = time.perf_counter()
        result = one_run(runs[number], folder, class_names) | {"seconds": round(time.perf_counter() - clock)}
        with taken.get_lock(), (folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with images/ and instances.json")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="for the epochs (55 MB each) and the results")
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    parser.add_argument("--lanes", type=int, default=1)
    arguments = parser.parse_args()
    runs = [DEFAULTS | run for run in json.loads(arguments.runs.read_text())]
    arguments.work.mkdir(parents=True, exist_ok=True)
    prepare(arguments.data, arguments.work, runs)
    context = multiprocessing.get_context("spawn")
    taken = context.Value("i", 0)
    names = annotated(arguments.data, "train")[0]
    processes = [
        context.Process(target=lane, args=(arguments.work, names, runs, taken)) for _ in range(arguments.lanes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
