"""From a pipeline config and its checkpoint to a model file."""

import os
import pathlib
from typing import Any

from keras_detect.files import replacing_file
from keras_detect.tf_od_api.build import from_pipeline_config


def convert_checkpoint(
    pipeline_config: str | os.PathLike[str], checkpoint: str | os.PathLike[str], output: str | os.PathLike[str]
) -> tuple[Any, Any]:
    """Builds the model of a `pipeline.config`, restores its checkpoint and saves it; `keras-detect convert`.

    Args:
        pipeline_config: the file, or its folder.
        checkpoint: prefix, folder or `.tar.gz` of its TF2 checkpoint.
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
    report = model.restore(checkpoint)
    with replacing_file(path) as part:
        model.save(part)
    return model, report
