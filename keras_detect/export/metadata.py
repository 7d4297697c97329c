"""What a file says about the detector inside, and the digest of its weights."""

import hashlib
import importlib.metadata
from typing import Any

import keras
import numpy as np

METADATA_NAME = "detector.json"  # of the entry or file that holds it
RESIZER, SUPPRESSION = "resizer", "final_suppression"  # entries of it: parts, as Keras serializes them


def weights_digest(model: Any) -> str:
    """SHA-256 of all weights and their names, in hexadecimal digits; two models with equal weights have one digest."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_weights().items()):
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{name} {value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def model_metadata(model, options, image_size) -> dict[str, Any]:
    """A dict that JSON can hold: package and version, model, classes, weights and the input of the file."""
    return {
        "package": "keras_detect",
        "version": importlib.metadata.version("keras-detect"),
        "model": type(model).__name__,
        "name": model.name,
        "num_classes": int(model.num_classes),
        "class_names": None if model.class_names is None else list(model.class_names),
        "started_from": model.started_from,
        "score_threshold": model.score_threshold,
        "skeleton": [list(pair) for pair in model.skeleton],
        "weights_digest": weights_digest(model),
        "precision": options.precision,
        "signature": options.signature,
        "batch_size": options.batch_size,
        "image_size": None if image_size is None else list(image_size),
        RESIZER: keras.saving.serialize_keras_object(model.resizer),
        SUPPRESSION: keras.saving.serialize_keras_object(getattr(model, "final_suppression", None)),
    }
