"""Detection in images of any size, from files and arrays."""

import keras
import numpy as np

from keras_detect import schema
from keras_detect.data.image import as_pixels
from keras_detect.registry import provide


@provide("detect")
def detect(model, pictures, score_threshold=0.3):
    """`DetectionModel.detect`, with the model as its first argument."""
    single = not isinstance(pictures, list | tuple)
    results = []
    for picture in [pictures] if single else pictures:
        image, shape = model.resizer.resize_image(as_pixels(picture))
        x = {schema.IMAGES: image[None], schema.TRUE_IMAGE_SHAPES: np.asarray(shape, "int32")[None]}
        detections = keras.tree.map_structure(lambda t: np.asarray(t)[0], model.predict_on_batch(x))
        keep = np.arange(len(detections[schema.SCORES])) < detections[schema.NUM_DETECTIONS]
        keep &= detections[schema.SCORES] >= score_threshold
        result = {key: detections[key][keep] for key in (schema.BOXES, schema.SCORES, schema.LABELS)}
        names = model.class_names
        result["class_names"] = None if names is None else [names[label] for label in result[schema.LABELS]]
        results.append(result)
    return results[0] if single else results
