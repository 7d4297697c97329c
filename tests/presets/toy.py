"""A small model that keeps the contract of a preset: `get_config`, and `with_num_classes(config, n)`."""

import keras


@keras.saving.register_keras_serializable("keras_detect_tests")
class Toy(keras.Model):
    """A body of 5 x 4 weights with batch norm and a head of 4 x K."""

    def __init__(self, num_classes=3, class_names=None, **kwargs):
        super().__init__(**kwargs)
        self.num_classes, self.class_names = num_classes, class_names
        self.body = keras.layers.Dense(4)
        self.norm = keras.layers.BatchNormalization()
        self.head = keras.layers.Dense(num_classes)
        self.body.build((None, 5))
        self.norm.build((None, 4))
        self.head.build((None, 4))
        self.built = True

    def call(self, inputs, training=False):
        return self.head(self.norm(self.body(inputs), training=training))

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes, "class_names": self.class_names}

    @staticmethod
    def with_num_classes(config, num_classes):
        return {**config, "num_classes": num_classes, "class_names": None}

    def named_weights(self):
        layers = {"body": self.body, "norm": self.norm, "head": self.head}
        return {f"{name}/{weight.name}": weight for name, layer in layers.items() for weight in layer.weights}
