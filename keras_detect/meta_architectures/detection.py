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

    def detect(self, images, score_threshold=0.3, batch_size=8):
        """Detects in an image, or in a list of images, of any size.

        Args:
            images: a path, the bytes of an image file, an open binary file, a Pillow image, an array `[H, W, 3]`
                (uint8, or float in 0...255) or `[H, W]` (grey), or a list or tuple of these.
            score_threshold: detections below it are left out.
            batch_size: how many images of a list the network sees at once, at most.

        Returns:
            For one image a dict of numpy arrays, best first: `{"boxes" [n, 4] float32, normalised yxyx, "scores" [n]
            float32, "labels" [n] int32, "class_names"}`, and every further per-object field of `schema` that the model
            outputs; for a list, a list of such dicts. `"class_names"` is a list of n strings, `None` if the model has
            no class names.

        Raises:
            FileNotFoundError: no such file.
            IsADirectoryError: the path of a folder.
            ValueError: not an image, a URL, an array of another shape, or a `batch_size` below 1.
        """
        return registry.provided("detect")(self, images, score_threshold, batch_size)
