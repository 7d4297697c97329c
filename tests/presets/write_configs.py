"""Writes `keras_detect/presets/configs/NAME.json`, one per model of upstream's zoo, from its published config.

    python -m tests.presets.write_configs [part of a name]

needs `../shared/zoo/training_configs`. `test_zoo.py` holds the files equal to what this makes.
"""

import sys

from keras_detect import from_pipeline_config
from keras_detect.presets import config_json, get, names, preset
from tests import goldens, networks


def published_config(row):
    """The model's `pipeline.config` among the published ones; skips a test where they are absent."""
    return goldens.require_shared("zoo/training_configs") / f"{row.pipeline_config}.config"


def zoo_config(row):
    """The compact config of what `from_pipeline_config` builds, without the name that Keras counts up."""
    with networks.undrawn():
        config = config_json.serialized(from_pipeline_config(published_config(row)))
    return {**config, "config": {key: value for key, value in config["config"].items() if key != "name"}}


def main(part=""):
    preset.CONFIGS.mkdir(exist_ok=True)
    for name in names():
        if part in name and get(name).pipeline_config is not None:
            print(config_json.write(preset.CONFIGS / f"{name}.json", zoo_config(get(name))))


if __name__ == "__main__":
    main(*sys.argv[1:])
