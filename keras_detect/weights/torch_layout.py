"""Values of torch's modules in the layout and order of our layers."""

import numpy as np

_YX = [1, 0, 3, 2]  # our codes are (y, x, height, width), torchvision's (x, y, width, height)


def boxes_yx(value: np.ndarray) -> np.ndarray:
    """Outputs of a box head, `[A * 4, ...]`, with x and y exchanged."""
    codes = value.reshape(-1, 4, *value.shape[1:])
    return codes[:, _YX].reshape(value.shape)


def boxes_of_objects(value: np.ndarray) -> np.ndarray:
    """`boxes_yx` without the box of the background, which comes first."""
    return boxes_yx(value[4:])


def channels_last(side: int):
    """Of a dense layer on flattened maps `[C, side, side]`: its columns for maps `[side, side, C]`."""

    def moved(value):
        if value.ndim == 1:
            return value
        maps = value.reshape(value.shape[0], -1, side, side)
        return maps.transpose(0, 2, 3, 1).reshape(value.shape)

    return moved


def in_keras(value: np.ndarray, depthwise: bool = False) -> np.ndarray:
    """A kernel as Keras has it: of a convolution, of a depthwise one, or of a dense layer; a vector as it is."""
    if value.ndim == 4:
        return value.transpose(2, 3, 0, 1) if depthwise else value.transpose(2, 3, 1, 0)
    return value.T


def shape_after(change, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that `change` makes of an array of `shape`; no memory is taken for its values."""
    return change(np.broadcast_to(np.int8(0), shape)).shape
