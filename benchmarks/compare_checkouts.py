"""Times two checkouts of this repository against each other: predict, training step and preprocessing, on the CPU.

    python benchmarks/compare_checkouts.py --before ../old_checkout --after .
    python benchmarks/compare_checkouts.py --before ../old --after . --models ssd_mobilenet_v2 --rounds 3 --batch-size 1

For each model two processes run, one per checkout, and take turns: in each round both are told to run every task, the
one that begins changing from round to round, so that other work on the machine slows both alike. A ratio is the median
over the rounds of after / before within a round; 1.05 is what a change that shall not cost speed may take. Seeds are
equal, and so is the first loss unless a change draws its weights in another order: the table says which.

`preprocess` is what `predict` does first with a batch of the data pipeline whose images were resized and padded: the
graph that makes the network's input of it.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

MODELS = {  # name -> (class, positional and further arguments of from_backbone, image size)
    "ssd_mobilenet_v2": ("SSD", ("mobilenet_v2",), {}, 320),
    "retinanet_resnet50_fpn": ("SSD", ("resnet_v1_50",), {"neck": "fpn"}, 640),
    "faster_rcnn_resnet50": ("FasterRCNN", ("resnet_v1_50",), {}, 640),
}
TASKS = ("predict", "train", "preprocess")
LIMIT = 1.05
PAUSE = 0.1  # seconds between two runs: threads of the one before spin that long for more work


def main(argv=None):
    """Parses arguments, runs the rounds of each model and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, required=True, help="root of the checkout to compare with")
    parser.add_argument("--after", type=pathlib.Path, default=pathlib.Path(), help="root of the other; default: here")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="a task is repeated in a round until this is over")
    parser.add_argument("--worker", choices=MODELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        return serve(arguments.worker, arguments.tasks, arguments.batch_size)
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    for name, folder in checkouts.items():
        if not (folder / "keras_detect").is_dir():
            parser.error(f"--{name} is the root of a checkout, with a folder keras_detect. Received: {folder}")
    print(f"{'model':26}{'task':12}{'before ms':>11}{'after ms':>11}{'ratio':>8}   range of the rounds")
    worst = [measure(model, checkouts, arguments) for model in arguments.models]
    print(f"worst ratio {max(worst):.3f}, limit {LIMIT}")
    return int(max(worst) > LIMIT)


def measure(model, checkouts, arguments):
    """Runs the rounds of one model and prints its rows; returns its worst ratio."""
    workers = {name: Worker(folder, model, arguments) for name, folder in checkouts.items()}
    times = {task: {name: [] for name in workers} for task in arguments.tasks}
    try:
        losses = {name: worker.ask("start") for name, worker in workers.items()}
        for number in range(arguments.rounds):
            for task in arguments.tasks:
                for name in list(workers)[:: 1 if number % 2 else -1]:
                    time.sleep(PAUSE)
                    times[task][name].append(workers[name].ask(task, arguments.seconds))
    finally:
        for worker in workers.values():
            worker.stop()
    if not np.isclose(losses["before"], losses["after"], rtol=1e-3):
        print(f"{model}: the first losses differ, {losses['before']:.5g} and {losses['after']:.5g}")
    worst = 0.0
    for task, of_task in times.items():
        ratios = sorted(after / before for before, after in zip(of_task["before"], of_task["after"], strict=True))
        before, after = (1e3 * statistics.median(of_task[name]) for name in ("before", "after"))
        ratio = statistics.median(ratios)
        row = f"{model:26}{task:12}{before:11.1f}{after:11.1f}{ratio:8.3f}   {ratios[0]:.2f}...{ratios[-1]:.2f}"
        print(row, flush=True)
        worst = max(worst, ratio)
    return worst


class Worker:
    """A process with one model of one checkout; one line of JSON per question and answer."""

    def __init__(self, folder, model, arguments):
        command = [sys.executable, __file__, "--before", ".", "--worker", model]
        command += ["--batch-size", str(arguments.batch_size), "--tasks", *arguments.tasks]
        environment = {**os.environ, "PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, *question):
        """The answer to a task and the seconds it shall be repeated for: seconds per run."""
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise RuntimeError(f"A worker ended with {self._process.wait()} before it answered {question}.")

    def stop(self):
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


# ---------------------------------------------------------------------------------------------------- inside a worker


def serve(name, tasks, batch_size):
    """Builds a model of the checkout on PYTHONPATH and answers questions from standard input."""
    import keras

    import keras_detect

    keras.utils.set_random_seed(0)
    family, positional, settings, size = MODELS[name]
    model = getattr(keras_detect, family).from_backbone(*positional, num_classes=90, image_size=size, **settings)
    model.compile(optimizer=keras.optimizers.SGD(1e-6))
    x, y = batch(batch_size, size)
    runs = {"predict": lambda: model.predict_on_batch(x), "train": lambda: model.train_on_batch(x, y)}
    if "preprocess" in tasks:
        runs["preprocess"] = preprocessing(keras_detect, model, batch_size)
    first_loss = float(np.asarray(model.test_on_batch(x, y, return_dict=True)["loss"]))
    for task in tasks:
        for _ in range(3):
            runs[task]()
    for line in sys.stdin:
        task, *seconds = json.loads(line)
        print("ANSWER", json.dumps(first_loss if task == "start" else per_run(runs[task], *seconds)), flush=True)
    return 0


def batch(batch_size, size, objects=8):
    """Random images of the model's size and `objects` boxes in each."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0.0, 0.6, (batch_size, objects, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, corner.shape)], axis=-1).astype("float32")
    labels = rng.integers(0, 90, (batch_size, objects)).astype("int32")
    return rng.integers(0, 256, (batch_size, size, size, 3)).astype("uint8"), {"boxes": boxes, "labels": labels}


def preprocessing(keras_detect, model, batch_size):
    """The input of a network made of a batch of `batches`: images of 480 x 640, padded where the resizer pads."""
    import inspect

    import tensorflow as tf

    images = [np.zeros((480, 640, 3), "uint8")] * batch_size
    data = keras_detect.DetectionDataset.from_arrays(images, [[]] * batch_size, [[]] * batch_size, ["thing"])
    x, _ = next(iter(data.batches(model.resizer, batch_size)))
    images, settings, shapes = x, {}, None
    if isinstance(x, dict):
        images, (shapes,) = x.pop("images"), x.values()
        settings = {"resized": True} if "resized" in inspect.signature(model.preprocess).parameters else {}
        shapes = tf.constant(shapes)
    images = tf.constant(images)  # an argument, so that nothing is folded into the graph
    graph = tf.function(lambda images, shapes: model.preprocess(images, shapes, **settings)["images"])
    return lambda: graph(images, shapes)[0, 0, 0].numpy()


def per_run(run, seconds):
    """Seconds per run, repeated until `seconds` are over."""
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        run()
        count += 1
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    sys.exit(main())
