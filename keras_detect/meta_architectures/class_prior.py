"""The initial bias of new class heads: nearly everything that a detector looks at is background."""

import math
from typing import Any

import numpy as np

FOREGROUND = 0.01  # Lin et al. 2017 (arXiv:1708.02002), section 4.1


def set_class_prior(model, fresh=None) -> None:
    """Gives the class heads of a new model the biases with which it finds hardly anything at first.

    With sigmoid scores every class gets the probability 0.01, unless the head states a bias of its own. With softmax
    scores the background gets what the classes together leave of 1: of the anchors of one stage 0.01, of the proposals
    of a second stage the share of objects that its sampler aims at (0.25), since the loss sees no others.

    Args:
        model: a detector with a `box_predictor`; one whose heads do not tell their biases stays as it is.
        fresh: the variables that may be set; default: all.
    """
    head: Any = getattr(model, "box_predictor", None)
    biases = head.class_biases() if hasattr(head, "class_biases") else []
    values = _biases(model, head) if biases else None
    if values is None:
        return
    for variable in biases:
        if fresh is None or any(variable is other for other in fresh):
            variable.assign(np.tile(values, variable.shape[0] // len(values)).astype("float32"))


def _biases(model, head):
    """`[C]`, one bias per column of the logits; None: as the head's own initializer has them."""
    stage = getattr(model, "box_stage", None)
    converter = (model if stage is None else stage).postprocessor.score_converter
    prior = FOREGROUND if stage is None else getattr(stage.sampler, "positive_fraction", FOREGROUND)
    if converter == "sigmoid" and getattr(head, "class_bias", 0.0) == 0:
        return np.full(head.num_columns, math.log(prior / (1 - prior)))
    if converter == "softmax" and head.background:
        values = np.zeros(head.num_columns)
        values[0] = math.log((1 - prior) / prior * head.num_classes)
        return values
    return None
