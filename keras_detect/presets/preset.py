"""A preset's row, and the table of all rows."""

import dataclasses
import pathlib
from typing import Any

from keras_detect.presets.coco_names import COCO_NAMES
from keras_detect.registry import unknown_name

PUBLISHED_ADDRESS = "https://download.tensorflow.org/models/object_detection/tf2/"
TF1_ADDRESS = "https://download.tensorflow.org/models/object_detection/"

#: one config per model, as the config.json of a preset's folder; `tests/presets/write_configs.py` makes them
CONFIGS = pathlib.Path(__file__).with_name("configs")

_PRESETS: dict[str, "Preset"] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """One published model: where it comes from and what its authors say of it.

    Attributes:
        archive: the archive's path below `PUBLISHED_ADDRESS`, or below `TF1_ADDRESS` where it is of TensorFlow 1; its
            stem is the preset's `name`.
        pipeline_config: name of the model's config among upstream's training configs (without ".config"); None
            where only the archive has one.
        speed_ms: the published speed, milliseconds per image on the authors' hardware.
        coco_map: the published mAP on COCO (2017 val; 2014 minival for TensorFlow 1), in percent; `measured_map` is
            what we measured (None: nothing).
        other_map: another published metric and its value in percent: `("Pascal mAP@0.5", 87.0)`.
        outputs: what a detection holds beside its score and label.
        license: SPDX identifier.
        sha256: digest of the archive, where one is known.
        class_names: names of the classes that it was trained on.
        mirrors: further addresses (`hf://`, `kaggle://`, or an archive's `https://`), tried in order before the
            publisher's.
        parameters: number of weights of our model; None where its config is only in the archive.
        parity: largest relative error of the raw heads and largest difference of a score, both from upstream's program
            with the same random weights (docs/parity.md); None where the two were not compared.
        max_archive_bytes: a larger archive is not fetched.
        tensorflow: 1 or 2, the version whose program wrote the archive.
    """

    archive: str
    pipeline_config: str | None
    speed_ms: float | None
    coco_map: float | None
    other_map: tuple[str, float] | None = None
    measured_map: float | None = None
    outputs: tuple = ("boxes",)
    license: str = "Apache-2.0"
    sha256: str | None = None
    class_names: tuple = COCO_NAMES
    mirrors: tuple[str, ...] = ()
    parameters: int | None = None
    parity: tuple[float, float] | None = None
    max_archive_bytes: int = 2 * 1024**3
    tensorflow: int = 2

    @property
    def name(self) -> str:
        """The archive's stem: "ssd_mobilenet_v2_320x320_coco17_tpu-8"."""
        return self.archive.rsplit("/", 1)[-1].removesuffix(".tar.gz")

    @property
    def url(self) -> str:
        """The archive's published address."""
        return {1: TF1_ADDRESS, 2: PUBLISHED_ADDRESS}[self.tensorflow] + self.archive

    @property
    def published_figure(self) -> tuple[str, float | None]:
        """What was measured and the published value in percent: `("mAP on COCO 2017 val", 22.2)`."""
        if self.other_map is not None:
            return self.other_map
        return {1: "mAP on COCO 2014 minival", 2: "mAP on COCO 2017 val"}[self.tensorflow], self.coco_map

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where to fetch it, in the order in which it is tried."""
        return (*self.mirrors, self.url)

    def published(self) -> dict[str, Any]:
        """What the row says, as a dict that JSON can hold, for a preset's `metadata.json`."""
        # of the file; in the label map and the config; where it did come from; added by the writer; of the program
        elsewhere = ("sha256", "class_names", "mirrors", "parameters", "parity", "max_archive_bytes", "tensorflow")
        fields = [field.name for field in dataclasses.fields(self) if field.name not in elsewhere]
        return {"name": self.name, **{name: getattr(self, name) for name in fields}}

    @property
    def config(self) -> pathlib.Path | None:
        """The packaged `config.json` of the model, from which it is built without network; None if there is none."""
        path = CONFIGS / f"{self.name}.json"
        return path if path.is_file() else None


def add(*presets):
    """Adds rows to the table. Raises `ValueError` for a name that is already used by another row."""
    for preset in presets:
        if _PRESETS.setdefault(preset.name, preset) != preset:
            raise ValueError(f"The preset name '{preset.name}' is already used by {_PRESETS[preset.name].archive}.")
    return presets


def get(name: str | None) -> Preset:
    """The row of a built-in preset. Raises `ValueError` with similar names if there is none."""
    if name not in _PRESETS:
        raise ValueError(unknown_name("preset", name, _PRESETS))
    return _PRESETS[name]


def names() -> list[str]:
    """Names of the zoo's presets, sorted; `descriptions` has the packaged ones, too."""
    return sorted(_PRESETS)
