"""Makes a preset folder, ready for upload, of an archive of the TensorFlow Object Detection API's zoo.

    python tools/preset_from_archive.py ssd_mobilenet_v2_320x320_coco17_tpu-8.tar.gz --output presets/ssd_mobilenet_v2

The folder holds the four files of a preset (config.json, weights.h5, label_map.json, metadata.json with the archive's
SHA-256) and README.md, its model card. `Model.from_preset(folder)` and `from_preset("hf://you/name")` read it.
"""

import argparse
import hashlib
import json
import pathlib

import keras_detect
from keras_detect.presets import preset
from keras_detect.presets.directory import save_preset

CARD = """---
library_name: keras
license: {license}
pipeline_tag: object-detection
---

# {name}

{architecture}, {parameters:,} parameters, {classes} classes. Converted by keras_detect (`tools/preset_from_archive.py`)
from `{archive}` (SHA-256 {sha256}){published}.

```python
import keras_detect

model = keras_detect.Model.from_preset("hf://<owner>/{name}")
print(model.detect("photo.jpg"))
```
"""


def convert(archive: pathlib.Path, output: pathlib.Path, weights_dtype: str) -> pathlib.Path:
    """Writes the preset of `archive` and its model card into `output`; what the archive's reader raises is raised."""
    name = archive.name.removesuffix(".gz").removesuffix(".tar")
    row = preset.get(name) if name in preset.names() else None
    model = keras_detect.Model.from_preset(archive)
    if row is not None and model.class_names is None and len(row.class_names) == model.num_classes:
        model.class_names = row.class_names
    with open(archive, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    metadata = {**(row.published() if row else {"name": name}), "source": archive.name, "source_sha256": sha256}
    save_preset(model, output, metadata, weights_dtype)
    published = f"; published mAP {row.coco_map} on COCO 2017 val, {row.speed_ms} ms" if row and row.coco_map else ""
    card = CARD.format(
        name=name,
        license=(row.license if row else "unknown").lower(),
        architecture=type(model).__name__,
        parameters=model.count_params(),
        classes=model.num_classes,
        archive=archive.name,
        sha256=sha256,
        published=published,
    )
    (output / "README.md").write_text(card)
    return output


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="new folder of the preset")
    parser.add_argument("--weights_dtype", default="float16", choices=("float16", "float32"))
    arguments = parser.parse_args()
    folder = convert(arguments.archive, arguments.output, arguments.weights_dtype)
    print(json.dumps(json.loads((folder / "metadata.json").read_text()), indent=1))


if __name__ == "__main__":
    main()
