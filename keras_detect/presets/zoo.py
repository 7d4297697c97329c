"""Turns an unpacked archive of upstream's zoo (`pipeline.config`, `checkpoint/`) into a preset folder."""

import pathlib

from absl import logging

from keras_detect.presets import directory
from keras_detect.text_proto.node import PipelineConfigError
from keras_detect.tf_od_api.build import from_pipeline_config

CONFIG = "pipeline.config"


def is_zoo(folder):
    """Whether `folder` is an unpacked archive of upstream's zoo."""
    return (pathlib.Path(folder) / CONFIG).is_file()


def convert(folder, target, metadata=None, class_names=None, config=None):
    """Builds the model of `folder`, restores its checkpoint strictly and writes the preset into `target`.

    `class_names` names the classes of the config; a model of another number of classes gets no names. `config` is the
    packaged config of the same model, or None: it is used where the archive's cannot be read, as that of the published
    Mask R-CNN, which has a stray letter. Raises what the config's builder and the checkpoint's reader raise; nothing is
    written then.
    """
    model = _built(pathlib.Path(folder) / CONFIG, config)
    model.restore(folder)
    if class_names is not None and len(class_names) == model.num_classes:
        model.class_names = tuple(class_names)
    directory.write_preset(model, target, metadata)


def _built(path, config):
    try:
        return from_pipeline_config(path)
    except PipelineConfigError as error:
        if config is None:
            raise
        logging.warning("%s. The model is built from its packaged config.", error)
        return directory.build_model(config)[0]
