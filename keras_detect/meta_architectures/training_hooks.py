"""Keras' hooks: how `compile`, `fit`, `evaluate` and the `_on_batch` methods reach a detector's four methods."""

import contextlib
from typing import Any

import keras
from keras import ops

from keras_detect import compat, schema
from keras_detect.kernels import dispatch
from keras_detect.meta_architectures.ground_truth import clean_ground_truth, split_images
from keras_detect.meta_architectures.model_mixin import ModelMixin

REGULARIZATION_LOSS = "regularization_loss"


class TrainingHooks(compat.KeepsValuesOnJax, compat.BuiltByConstructor, ModelMixin):
    """What `DetectionModel` inherits for training, on TensorFlow, JAX and PyTorch alike.

    The data are the last positional argument of a step; JAX passes its state first.
    """

    def train_step(self, *args: Any) -> Any:
        with self._kernels():
            return super().train_step(*args[:-1], self._preprocess_data(args[-1]))

    def test_step(self, *args: Any) -> Any:
        with self._kernels():
            return super().test_step(*args[:-1], self._preprocess_data(args[-1]))

    def _kernels(self):
        """XLA cannot compile all of TensorFlow's own kernels."""
        compiled = dispatch.running("tensorflow") and self.jit_compile
        return dispatch.portable_kernels() if compiled else contextlib.nullcontext()

    def _preprocess_data(self, data):
        """Always a 3-tuple: with `y=None`, Keras' own packing would return a bare dict."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return self._preprocess(*split_images(x)), y, sample_weight

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool | None = True
    ) -> Any:
        """Sums the losses of `compute_losses` and regularization; a Mean tracker per name keeps the parts."""
        ground_truth = clean_ground_truth(y, sample_weight)
        losses = self.compute_losses(ground_truth, y_pred, x, training=training)
        regularization = [ops.cast(ops.sum(value), "float32") for value in self.losses]
        declared = (*self.loss_names, *self.reported_names)
        if sorted(losses) != sorted(declared):
            raise ValueError(
                f"compute_losses returns the scalars that `loss_names` and `reported_names` of {type(self).__name__} "
                f"state: {', '.join(declared)}. Received: {', '.join(losses)}."
            )
        losses = {**losses, REGULARIZATION_LOSS: sum(regularization) if regularization else ops.zeros(())}
        batch_size = ops.shape(x[schema.IMAGES])[0]
        for name, value in losses.items():
            self.loss_trackers[name].update_state(value, sample_weight=batch_size)
        total = sum(losses[name] for name in (*self.loss_names, REGULARIZATION_LOSS))
        # Under a strategy (TensorFlow only), Keras sums the gradients of the replicas and logs loss x replicas.
        strategy = getattr(self, "distribute_strategy", None)
        return total if strategy is None else total / strategy.num_replicas_in_sync

    # --- compile ---------------------------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = None,
        loss_weights: tuple[float, float, float] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras' `compile`, without `loss` and `metrics`: a detector brings its own.

        Args:
            optimizer: a Keras optimizer or its name; "auto" is AdamW at 1e-3 with gradients clipped at norm 10, without
                decay of norms and biases. `training.Recipe.for_model` chooses more.
            loss, loss_weights: must stay `None`; weights of the losses belong to the loss part of the model.
            metrics, weighted_metrics: must stay `None`; `keras_detect.callbacks.COCOEvaluation` measures mAP in `fit`.
            **kwargs: `run_eagerly`, `steps_per_execution`, `jit_compile`, `auto_scale_loss` as in Keras.

        Raises:
            ValueError: if `loss`, `loss_weights`, `metrics` or `weighted_metrics` is given.
        """
        if loss is not None or loss_weights is not None:
            raise ValueError(
                "A detector computes its own losses. Received: loss="
                f"{loss!r}, loss_weights={loss_weights!r}. Remove them; give the model another loss part instead."
            )
        if metrics or weighted_metrics:
            raise ValueError(
                f"A detector takes no Keras metrics. Received: metrics={metrics or weighted_metrics!r}. "
                "For mAP during fit pass callbacks=[keras_detect.callbacks.COCOEvaluation(validation_data)]."
            )
        if isinstance(optimizer, str) and optimizer == "auto":
            optimizer = keras.optimizers.AdamW(learning_rate=1e-3, weight_decay=1e-4, global_clipnorm=10.0)
            optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        super().compile(optimizer=optimizer, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        if not self.compiled:
            return None
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "run_eagerly": self.run_eagerly,
            "steps_per_execution": self.steps_per_execution,
            "jit_compile": self.jit_compile,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = dict(config)
        self.compile(optimizer=keras.saving.deserialize_keras_object(config.pop("optimizer")), **config)
        self.optimizer.build(self.trainable_variables)
