"""From a pipeline config and its checkpoint to a model file."""

import os
import pathlib
from typing import Any

from keras_detect import text_proto
from keras_detect.files import replacing_file
from keras_detect.tf_od_api import build_parts
from keras_detect.tf_od_api.build import from_pipeline_config


def convert_checkpoint(
    pipeline_config: str | os.PathLike[str], checkpoint: str | os.PathLike[str], output: str | os.PathLike[str]
) -> tuple[Any, Any]:
    """Builds the model of a `pipeline.config`, restores its checkpoint and saves it; `keras-detect convert`.

    Args:
        pipeline_config: the file, or its folder.
        checkpoint: prefix, folder or `.tar.gz` of its checkpoint, of TensorFlow 2 or 1, or its frozen graph (`.pb`). Of
            TensorFlow 1, the moving averages are taken where the config's `eval_config` says so.
        output: the `.keras` file to write; it appears whole or not at all.

    Returns:
        `(model, RestoreReport)`.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: `output` is no `.keras` file; a config that cannot be built; a checkpoint that does not fit.
    """
    path = pathlib.Path(output).expanduser()
    if path.suffix != ".keras":
        raise ValueError(f"output must name a .keras file. Received: {output}")
    if path.is_dir():  # checked before the conversion, which takes a while
        raise ValueError(f"output must name a file. Received a folder: {output}")
    model = from_pipeline_config(pipeline_config)
    report = model.restore(checkpoint, moving_averages=_uses_averages(pipeline_config))
    with replacing_file(path) as part:
        model.save(part)
    return model, report


def _uses_averages(pipeline_config):
    """Whether upstream's exporter takes averaged weights with this config; that of TensorFlow 2 never does."""
    config = text_proto.read(pipeline_config)
    wanted = config.message("eval_config").scalar("use_moving_averages", bool, False)
    return wanted and build_parts.is_tf1_model(config.message("model"))
