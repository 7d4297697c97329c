"""Fine-tunes the detector that ships with keras_detect on your own images, from first look to a saved model.

    python examples/fine_tune.py --data cells --train_split train --validation_split val --output runs/cells
    python examples/fine_tune.py --output runs/shapes                 # draws a small data set of its own

The data: any format that `keras_detect.load_dataset` reads (COCO JSON, Pascal VOC, YOLO, CSV, TFRecord).
"""

import argparse
import pathlib

import keras

import keras_detect
from keras_detect.data import shapes_dataset
from keras_detect.evaluation import evaluate_coco
from keras_detect.training import BestModel, Recipe
from keras_detect.transforms import RandomHorizontalFlip, RandomVerticalFlip
from keras_detect.visualization import draw_dataset, draw_gallery, draw_side_by_side


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder or file with annotated images; without it, images are drawn")
    parser.add_argument("--train_split", help="name of the part to train on")
    parser.add_argument("--validation_split", help="name of the part to measure on")
    parser.add_argument("--preset", default="frcnn_inception_v100", help="the model to start from")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for images and model")
    parser.add_argument("--epochs", type=int, help="default: chosen by the number of images")
    parser.add_argument("--batch_size", type=int, help="default: the architecture's")
    parser.add_argument("--learning_rate", type=float, help="default: the architecture's")
    parser.add_argument("--images", type=int, default=120, help="how many images to draw")
    return parser.parse_args()


def read(arguments):
    """Images to train on and images to measure on."""
    if arguments.data is None:
        count, held_out = arguments.images, max(arguments.images // 5, 1)
        return shapes_dataset(count, seed=0), shapes_dataset(held_out, seed=1)
    return (
        keras_detect.load_dataset(arguments.data, arguments.train_split),
        keras_detect.load_dataset(arguments.data, arguments.validation_split),
    )


def main():
    arguments = parse()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    train, validation = read(arguments)
    print(f"{len(train)} images to train on, {len(validation)} to measure on: {', '.join(train.class_names)}")
    draw_dataset(train, count=9).save(output / "images.png")

    # every weight but the class heads' is kept; the log says which are new
    model = keras_detect.Model.from_preset(arguments.preset, class_names=train.class_names)
    given = {name: getattr(arguments, name) for name in ("epochs", "batch_size", "learning_rate")}
    given = {name: value for name, value in given.items() if value is not None}
    recipe = Recipe.for_model(model, len(train), augment=(RandomHorizontalFlip(), RandomVerticalFlip()), **given)
    print(f"recipe: {recipe.settings()}")
    batches = train.batches(
        model,
        recipe.batch_size,
        augment=recipe.augment,
        shuffle=True,
        drop_remainder=len(train) >= recipe.batch_size,
    )
    recipe.compile(model, steps_per_epoch=len(batches))
    model.fit(
        batches,
        epochs=recipe.epochs,
        callbacks=[
            *recipe.callbacks(validation),  # val_map, val_map_50... in the bar
            BestModel(output / "model.keras"),
        ],
    )

    best = keras.saving.load_model(output / "model.keras")
    result = evaluate_coco(best, validation)
    print(f"best epoch: AP {result['map']:.3f}, AP50 {result['map_50']:.3f}")
    examples = [validation[index] for index in range(min(6, len(validation)))]
    found = best.detect([example["image"] for example in examples])
    sheets = [
        draw_side_by_side(example["image"], example, detections, best.class_names)
        for example, detections in zip(examples, found, strict=True)
    ]
    draw_gallery(sheets, columns=2, cell_size=sheets[0].size).save(output / "detections.png")
    print(f"saved {output / 'model.keras'}; ground truth beside detections: {output / 'detections.png'}")


if __name__ == "__main__":
    main()
