"""The base class of the mixins of `DetectionModel`: for a type checker a Keras model, whose attributes they use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras import Model as ModelMixin
else:

    class ModelMixin:
        """Nothing of its own: `DetectionModel` inherits from `keras.Model` itself, behind its mixins."""
