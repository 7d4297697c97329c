"""Images of metrics: curves, bars, the confusion matrix and the kinds of error; matplotlib without a window."""

import warnings

import numpy as np

from keras_detect.evaluation.errors import ERROR_KINDS
from keras_detect.visualization import save_figure

# More classes than these cannot be read in one image; report.json and the page's table have all of them.
_CURVES, _BARS, _CELLS, _NUMBERS = 12, 60, 40, 16
_NAME_LENGTH = 24
_BLUE, _ORANGE = "#2b6cb0", "#dd6b20"


def draw_precision_recall(curves, class_names, path):
    """Precision over recall: the mean over the classes at three overlaps, and each class at IoU 0.5.

    Args:
        curves: what `COCOEvaluator.curves` returns.
        class_names: the K class names.
        path: the image to write (the suffix chooses the format).
    """
    figure = _figure(11, 4.5)
    mean, each = figure.subplots(1, 2)
    recall, precision = curves["recall"], curves["precision"]
    known = np.flatnonzero((precision > -1).all(axis=(0, 1)))
    if len(known):
        half, three_quarters = (int(np.argmin(np.abs(curves["iou"] - iou))) for iou in (0.5, 0.75))
        of_known = precision[:, :, known]
        for values, name in (
            (of_known[half], "IoU 0.50"),
            (of_known[three_quarters], "IoU 0.75"),
            (of_known.mean(axis=0), "mean of IoU 0.50 to 0.95"),
        ):
            mean.plot(recall, values.mean(axis=1), label=f"{name}: AP {values.mean():.3f}")
        aps = precision[half].mean(axis=0)
        shown = known[np.argsort(aps[known], kind="stable")][:_CURVES]
        for k in shown:
            each.plot(recall, precision[half, :, k], label=f"{_short(class_names[k])}: {aps[k]:.3f}", linewidth=1)
    count = f"the {_CURVES} weakest of {len(known)} classes" if len(known) > _CURVES else "each class"
    for axes, title in ((mean, "mean over the classes"), (each, f"{count}, IoU 0.50")):
        axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if len(known):
            _legend(axes)
        else:
            _say(axes, "no objects")
    _save(figure, path)


def draw_class_precision(per_class, path):
    """Bars of AP and AP50 by class, the weakest first.

    Args:
        per_class: what `COCOEvaluator.result_per_class` returns.
        path: the image to write.
    """
    rows = sorted((values["map"], values["map_50"], name) for name, values in per_class.items() if values["map"] >= 0)
    shown = rows[:_BARS]
    figure = _figure(8, 1.6 + 0.24 * max(3, len(shown)))
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(places, [ap50 for _, ap50, _ in shown], color=_BLUE, alpha=0.35, label="AP50")
    axes.barh(places, [ap for ap, _, _ in shown], color=_BLUE, height=0.45, label="AP")
    axes.set_yticks(places, labels=[_short(name) for *_, name in shown], parse_math=False)
    title = "average precision by class" + (f" (the {_BARS} weakest of {len(rows)})" if len(rows) > _BARS else "")
    axes.set(title=title, xlim=(0, 1))
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    if shown:
        axes.legend(loc="upper right")
    else:
        _say(axes, "no objects")
    _save(figure, path)


def draw_confusion_matrix(matrix, names, path):
    """The confusion matrix as shares of its rows, with the counts where there is room.

    Args:
        matrix: [K + 1, K + 1] int, see `ConfusionMatrix.matrix`.
        names: of its rows and columns.
        path: the image to write.
    """
    matrix = np.asarray(matrix)
    rows, kinds = np.arange(len(matrix)), len(matrix) - 1
    if kinds > _CELLS:
        wrong = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
        rows = np.append(np.sort(np.argsort(-wrong[:-1], kind="stable")[:_CELLS]), kinds)
    shown = matrix[np.ix_(rows, rows)]
    shares = shown / np.maximum(matrix.sum(axis=1)[rows, None], 1)
    figure = _figure(*(2.8 + max(2.5, 0.34 * len(rows)), 2.2 + max(2.5, 0.34 * len(rows))))
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    labels = [_short(names[row]) for row in rows]
    axes.set_xticks(np.arange(len(rows)), labels=labels, rotation=90, parse_math=False)
    axes.set_yticks(np.arange(len(rows)), labels=labels, parse_math=False)
    if len(rows) <= _NUMBERS:
        for i, j in zip(*np.nonzero(shown), strict=True):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(shown[i, j]), ha="center", va="center", color=color, fontsize=8)
    more = f" (the {_CELLS} most confused of {kinds})" if kinds > _CELLS else ""
    axes.set(title=f"confusion matrix{more}", xlabel="found", ylabel="true")
    figure.colorbar(image, ax=axes, label="share of the row", shrink=0.7)
    _save(figure, path)


def draw_error_breakdown(result, path):
    """Bars of the kinds of error: how many there are, and the AP each costs.

    Args:
        result: what `ErrorBreakdown.result` returns.
        path: the image to write.
    """
    figure = _figure(10, 3.4)
    kinds = list(ERROR_KINDS)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key, title, form, color in (
        (left, "error_counts", "number of errors", "{:,.0f}", _BLUE),
        (right, "error_costs", f"cost in AP at IoU {result['error_thresholds']['foreground']:g}", "{:.3f}", _ORANGE),
    ):
        bars = axes.barh(kinds, [result[key][kind] for kind in kinds], color=color)
        axes.bar_label(bars, fmt=form, padding=3)
        axes.margins(x=0.18)
        axes.set(title=title)
        axes.set_xlim(left=0)
    left.invert_yaxis()
    _save(figure, path)


def _figure(width, height):
    import matplotlib.figure  # the object interface: no window system, no global state

    return matplotlib.figure.Figure(figsize=(width, height), layout="constrained")


def _save(figure, path):
    with warnings.catch_warnings():
        # A class name in letters that the font lacks is drawn as boxes; it is in the page's table.
        warnings.filterwarnings("ignore", message="Glyph")
        save_figure(figure, path, dpi=100)


def _legend(axes):
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)  # a class may be called "$5 note"


def _say(axes, text):
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def _short(name):
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"
