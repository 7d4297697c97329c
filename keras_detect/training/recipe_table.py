"""What a recipe is by default: one row per architecture. `docs/training.md` has the same table, with the sources."""

import dataclasses

#: what a run starts from: a trained detector, a trained backbone under new parts, or random weights
STARTS = ("detector", "backbone", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The values of one architecture. Those with three numbers are for the starts, in the order of `STARTS`.

    Attributes:
        batch_size: images per step.
        learning_rate: peak of the schedule, at 8 images per step.
        presentations: images that go through the model in all epochs together, before the bounds on epochs.
        warmup_fraction, weight_decay, clip_norm, ema_momentum, augment, localization_weight: as in `Recipe`.
        patience: of early stopping, as a share of the epochs.
    """

    batch_size: int = 8
    learning_rate: tuple[float, float, float] = (1e-3, 1e-3, 1e-3)
    presentations: tuple[int, int, int] = (10_000, 10_000, 20_000)
    warmup_fraction: float = 0.05
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    ema_momentum: float = 0.998
    augment: str = "crop"
    localization_weight: float | None = None
    patience: float = 0.5


ROWS = {
    "ssd": Row(localization_weight=4.0),
    "retinanet": Row(learning_rate=(2e-4, 2e-4, 5e-4)),
    "efficientdet": Row(learning_rate=(5e-4, 5e-4, 1e-3)),
    "faster_rcnn": Row(batch_size=4, learning_rate=(2e-4, 2e-4, 5e-4)),
    "mask_rcnn": Row(batch_size=4, learning_rate=(2e-4, 2e-4, 5e-4)),
    "centernet": Row(learning_rate=(5e-4, 2e-3, 2e-3)),
}

#: images per step at which the learning rates above hold
REFERENCE_BATCH = 8
#: batches of fewer images keep the trained statistics of batch norm
FREEZE_BATCHNORM_BELOW = 16
#: bounds on the epochs, and on the steps of all epochs together
LEAST_EPOCHS, MOST_EPOCHS, MOST_STEPS = 12, 100, 90_000
#: evaluations of a run, about
EVALUATIONS = 25
