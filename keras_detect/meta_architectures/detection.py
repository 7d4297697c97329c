"""From images to detections: what `DetectionModel` inherits for prediction."""

from keras_detect import registry, schema


class Detection:
    """What `DetectionModel` inherits for `predict` and `detect`."""

    def predict_step(self, *args):
        with self._kernels():
            data = self._preprocess_data(args[-1])
            outputs = super().predict_step(*args[:-1], data)
            shapes = data[0][schema.TRUE_IMAGE_SHAPES]
            if isinstance(outputs, tuple):  # JAX: (predictions, non-trainable variables)
                return self.postprocess(outputs[0], shapes), *outputs[1:]
            return self.postprocess(outputs, shapes)

    def detect(self, pictures, score_threshold=0.3):
        """Detects in a picture, or in a list of pictures, of any size.

        Args:
            pictures: a path, a Pillow picture, an array `[H, W, 3]` (uint8 or 0...255) or `[H, W]` (grey), or a list
                of these.
            score_threshold: detections below it are left out.

        Returns:
            For one picture a dict of numpy arrays `{"boxes" [n, 4] float32, "scores" [n] float32, "labels" [n] int32,
            "class_names"}`, best first, boxes normalised yxyx; for a list, a list of such dicts. `"class_names"` is a
            list of n strings, `None` if the model has no class names.

        Raises:
            FileNotFoundError, ValueError: a path that does not exist, a file that is no picture, a wrong shape.
        """
        return registry.provided("detect")(self, pictures, score_threshold)
