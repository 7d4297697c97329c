"""`keras-detect presets`: wraps `keras_detect.presets.descriptions`, `describe` and `clear`."""

from keras_detect.cli._parser import choice

HELP = "list the built-in models, show one, or clear the download cache"
EXAMPLE = "show ssd_mobilenet_v2_320x320_coco17_tpu-8"
_ROW = "{:<56} {:>8} {:>11} {:>6} {:>6}  {}"


def add_arguments(parser):
    parser.add_argument(
        "action",
        type=choice("list", "show", "clear"),
        help="list (all models), show NAME (one model in detail) or clear [NAME] (delete downloaded files)",
    )
    parser.add_argument("name", nargs="?", help="model name; clear without a name deletes all downloads")


def run(arguments):
    if (arguments.action == "list") == (arguments.name is not None) and arguments.action != "clear":
        raise ValueError(f"Usage: keras-detect presets {'list' if arguments.action == 'list' else 'show NAME'}")
    {"list": _list, "show": _show, "clear": _clear}[arguments.action](arguments.name)
    return 0


def _list(_):
    from keras_detect.presets import descriptions

    print(_ROW.format("name", "kind", "parameters", "mAP", "ms", "on disk"))
    for row in descriptions():
        figures = [row["parameters"], row["published_map"], row["published_ms"]]
        figures = ["" if figure is None else f"{figure:,}" for figure in figures]
        print(_ROW.format(row["name"], row["kind"], *figures, _size(row["bytes"])).rstrip())
    print("mAP (percent, mostly of COCO) and ms per image as published; for details: keras-detect presets show NAME")


def _show(name):
    from keras_detect.messages import one_line
    from keras_detect.presets import describe

    row = describe(name)
    heads, scores = row["parity_heads"], row["parity_scores"]
    parity = (
        "not compared" if heads is None else f"raw heads within {heads:.1e}, scores within {scores:.1e} of upstream"
    )
    limit = row["max_archive_bytes"]
    measured = None if row["measured_map"] is None else f"{row['measured_map']:.1f} % mAP on {row['measured_on']}"
    published = (
        f"{_known(row['published_map'])} % {row['published_metric']}, {_known(row['published_ms'])} ms per image"
    )
    lines = {
        "name": row["name"],
        "kind": row["kind"],
        "address": ", ".join(row["addresses"]) or None,
        "license": row["license"],
        "size": f"{row['parameters']:,} parameters" if row["parameters"] else None,
        "archive": None if limit is None else f"at most {_size(limit)} to download",
        "on disk": f"{_size(row['bytes'])} in {row['folder']}" if row["bytes"] else "not downloaded yet",
        "outputs": ", ".join(row["outputs"] or ()) or None,
        "published": published if row["published_map"] is not None else None,
        "measured by us": measured,
        "parity": parity if row["kind"] == "zoo" else None,
        "sha256": row["sha256"],
    }
    for key, value in lines.items():
        print(one_line(f"{key}: {_known(value)}"))


def _clear(name):
    from keras_detect.presets import clear

    freed = clear(name)
    for key, size in freed.items():
        print(f"removed {key}: {_size(size)}")
    print(f"{_size(sum(freed.values()))} freed")


def _known(value):
    return "unknown" if value is None else value


def _size(count):
    if count is None:
        return ""
    return f"{count / 1024**3:.1f} GiB" if count >= 1024**3 else f"{count / 1024**2:.1f} MiB"
