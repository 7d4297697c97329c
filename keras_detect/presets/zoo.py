"""Turns an unpacked archive of the original zoo (`pipeline.config`, `checkpoint/`) into a preset folder."""

import pathlib

from keras_detect.presets import directory

CONFIG = "pipeline.config"


def is_zoo(folder):
    """Whether `folder` is an unpacked archive of the original zoo."""
    return (pathlib.Path(folder) / CONFIG).is_file()


def convert(folder, target, metadata=None):
    """Builds the model of `folder`, restores its checkpoint strictly and writes the preset into `target`.

    Raises what the config's builder and the checkpoint's reader raise; nothing is written then.
    """
    from keras_detect.tf_od_api.build import from_pipeline_config
    from keras_detect.tf_od_api.restore_model import restore_model

    model = from_pipeline_config(pathlib.Path(folder) / CONFIG)
    restore_model(model, folder)
    directory.write_preset(model, target, metadata)
