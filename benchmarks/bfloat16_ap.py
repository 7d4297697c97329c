"""What the policy `mixed_bfloat16` costs a trained detector in average precision, and gains in time.

    python benchmarks/bfloat16_ap.py --data path/to/bccd

The packaged preset `frcnn_inception_v100` detects the images of BCCD's test split under either policy, with the same
weights; both see the same batches in turn, so that other work on the machine slows them alike.
"""

import argparse
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np
from contestant import processor_seconds

import keras_detect
from keras_detect.data import load_dataset
from keras_detect.evaluation.coco import COCOEvaluator

POLICIES = ("float32", "mixed_bfloat16")


def main(argv=None):
    """Prints COCO's AP, AP50 and the time of a batch under each policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data set with the preset's classes")
    parser.add_argument("--split", default="test")
    parser.add_argument("--preset", default="frcnn_inception_v100")
    parser.add_argument("--batch-size", type=int, default=4)
    arguments = parser.parse_args(argv)
    models = {}
    for policy in POLICIES:
        keras.config.set_dtype_policy(policy)
        models[policy] = keras_detect.Model.from_preset(arguments.preset)
    names = models["float32"].class_names
    data = load_dataset(arguments.data, split=arguments.split, class_names=names)
    evaluators = {policy: COCOEvaluator(names) for policy in POLICIES}
    clock = {policy: [] for policy in POLICIES}
    cost = {policy: [] for policy in POLICIES}
    for x, y in data.batches(models["float32"], arguments.batch_size, drop_remainder=False):
        for policy, model in models.items():
            start, used = time.perf_counter(), processor_seconds()
            found = model.predict_on_batch(x)
            clock[policy].append(time.perf_counter() - start)
            cost[policy].append(processor_seconds() - used)
            evaluators[policy].update(y, found)
    print(f"{arguments.preset}, {keras.backend.backend()}, {len(data)} images in batches of {arguments.batch_size}")
    for policy in POLICIES:
        metrics = evaluators[policy].result()
        milliseconds, used = (1e3 * np.median(times[policy][1:-1]) for times in (clock, cost))
        print(
            f"{policy:>15}: AP {metrics['map']:.4f}, AP50 {metrics['map_50']:.4f}, "
            f"{milliseconds:.0f} ms per batch, {used:.0f} ms of processor time"
        )


if __name__ == "__main__":
    main()
