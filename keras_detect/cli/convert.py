"""`keras-detect convert`: wraps `keras_detect.tf_od_api.convert_checkpoint`."""

HELP = "convert a TensorFlow Object Detection API model to a .keras file"
EXAMPLE = "--pipeline_config old/pipeline.config --checkpoint old --output model.keras"


def add_arguments(parser):
    parser.add_argument(
        "--pipeline_config", required=True, help="the model's pipeline.config file, or the folder that contains it"
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="checkpoint (TF2 or TF1): prefix, folder or .tar.gz archive; or a frozen graph (.pb)",
    )
    parser.add_argument("--output", required=True, help=".keras file to write")


def run(arguments):
    from keras_detect.tf_od_api.convert import convert_checkpoint

    model, report = convert_checkpoint(arguments.pipeline_config, arguments.checkpoint, arguments.output)
    classes = f"{model.num_classes} classes, {model.count_params():,} parameters"
    print(f"{len(report.restored)} variables restored, {classes}: {arguments.output}")
    return 0
