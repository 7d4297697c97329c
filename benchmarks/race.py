"""Races a detector (ResNet50, 640 x 640, 90 classes) against its peers, on the CPU.

    python benchmarks/race.py retinanet predict --peer KerasHub=<its python> --peer TorchVision=<its python>
    python benchmarks/race.py faster_rcnn train --peer TorchVision=<its python>
    python benchmarks/race.py faster_rcnn_c4 predict --rounds 5

Each contestant is a process of its own (`<family>_contestants.py`), with the python that `--peer` names, else with
this one. All stay alive and are told to run one after the other, so that other work on the machine slows all alike; a
ratio is the median over the rounds of the ratio within a round. The first row, what the ratios refer to, is the floor:
our network's convolutions alone, weights as constants, in one graph (of Mask R-CNN: TorchVision's). A peer whose
environment is missing gets a row that says so.
"""

import argparse
import contextlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

FAMILIES = ("retinanet", "faster_rcnn", "faster_rcnn_c4", "mask_rcnn")
PREDICT_ONLY = ", constants"  # the end of the names that do not train
PAUSE = 0.1  # seconds between two runs: threads of the one before spin that long for more work


def main(argv=None):
    """Parses arguments and prints one table per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("task", choices=("predict", "train"))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="which python runs a peer")
    parser.add_argument("--only", nargs="+", help="the contestants to run, by name")
    arguments = parser.parse_args(argv)

    script = f"{arguments.family}_contestants"
    names = list(importlib.import_module(script).CONTESTANTS)
    unknown = set(arguments.only or ()) - set(names)
    if unknown:
        parser.error(f"no such contestants: {sorted(unknown)}; there are {names}")
    names = [name for name in arguments.only or names if arguments.task == "predict" or PREDICT_ONLY not in name]
    pythons = dict(peer.split("=", 1) for peer in arguments.peer)
    for batch_size in arguments.batch_sizes:
        workers = {}
        for name in names:  # one after the other: what is built side by side takes memory side by side
            python = pythons.get(name.split(",")[0], sys.executable)
            workers[name] = Worker(name, python, script, arguments.task, batch_size)
        try:
            times = race({name: worker for name, worker in workers.items() if worker.built}, arguments.rounds)
            title = f"{arguments.family}, {arguments.task}, {batch_size} images, {arguments.rounds} rounds"
            print_table(title, workers, times)
        finally:
            for worker in workers.values():
                worker.close()


class Worker:
    """A contestant's process. `built` is what it said when it was ready, `None` if it never was.

    Args:
        name: of the contestant.
        python: its interpreter.
        script: module beside this one with its `CONTESTANTS`.
        task: "predict" or "train".
        batch_size: images.
    """

    def __init__(self, name, python, script, task, batch_size):
        self._process, self.built, self.reason = None, None, ""
        command = [python, str(pathlib.Path(__file__).with_name(f"{script}.py")), name, task, str(batch_size)]
        pipe = subprocess.PIPE
        try:
            with log_path(name).open("w") as log:
                self._process = subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=log)
        except OSError as error:
            self.reason = f"no environment: {error}"
            return
        line = self._process.stdout.readline()
        self.built = json.loads(line) if line else None
        if self.built is None:
            self.reason = last_line(name)

    def run(self):
        """`{"wall", "processor"}` seconds and `"peak_gib"` of one run; `None` if the process has ended."""
        try:
            self._process.stdin.write("run\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            self.built, self.reason = None, f"ended with {self._process.wait()}, -9 is lack of memory"
            return None

    def close(self):
        """Ends the process by ending its input."""
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()


def log_path(name):
    """File with a contestant's messages, replaced at each start."""
    return pathlib.Path(tempfile.gettempdir()) / f"race_{name.replace(', ', '_')}.log"


def last_line(name):
    """The last thing a contestant said before it ended."""
    lines = log_path(name).read_text().strip().splitlines()
    return lines[-1][:100] if lines else "ended without a word"


def race(workers, rounds):
    """`{name: {"wall", "processor", "peak_gib": [rounds]}}`; an untimed round first, every other backwards."""
    times = {name: {"wall": [], "processor": [], "peak_gib": []} for name in workers}
    for round_ in range(-1, rounds):
        for name in list(workers)[:: 1 if round_ % 2 == 0 else -1]:
            result = workers[name].run() if workers[name].built else None
            time.sleep(PAUSE)
            if round_ >= 0 and result is not None:
                for key, value in result.items():
                    times[name][key].append(value)
    whole = {name: row for name, row in times.items() if workers[name].built}
    return {name: {key: np.array(values) for key, values in row.items()} for name, row in whole.items()}


def print_table(title, workers, times):
    """A row for each contestant; ratios refer to the first one that ran."""
    print(f"\n{title}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'':>26}{'median ms':>11}{'fastest ms':>11}{'ratio':>7}{'CPU ms':>8}{'CPU ratio':>10}{'peak GiB':>9}"
        f"{'GFLOP':>7}{'anchors':>8}{'M params':>9}  detections"
    )
    first = next(iter(times), None)
    for name, worker in workers.items():
        if not worker.built:
            print(f"{name:>26}  absent: {worker.reason}")
            continue
        row, built = times[name], worker.built
        found = built.get("found")
        print(
            f"{name:>26}{1e3 * np.median(row['wall']):11.1f}{1e3 * row['wall'].min():11.1f}"
            f"{np.median(row['wall'] / times[first]['wall']):7.3f}{1e3 * np.median(row['processor']):8.0f}"
            f"{np.median(row['processor'] / times[first]['processor']):10.3f}{row['peak_gib'].max():9.2f}"
            f"{built['gflop']:7.1f}{built.get('anchors', 0):8d}{built.get('parameters', 0) / 1e6:9.1f}"
            f"  {'' if found is None else f'{min(found)} to {max(found)}'}"
        )
    ours = times.get("keras_detect")
    if ours:
        slower = {name: np.median(row["wall"] / ours["wall"]) for name, row in times.items() if name != "keras_detect"}
        print("over keras_detect: " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in slower.items()))
    versions = sorted(
        {worker.built["version"] for worker in workers.values() if worker.built and "version" in worker.built}
    )
    print("; ".join(versions), flush=True)


if __name__ == "__main__":
    main()
