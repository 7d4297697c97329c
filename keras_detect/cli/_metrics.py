"""Metrics as a table on the terminal."""


def print_metrics(metrics):
    """One line per number of what `evaluation.evaluate_coco` returns; -1 means that no object was annotated."""
    tables = {key.removesuffix("_per_class"): value for key, value in metrics.items() if isinstance(value, dict)}
    per_class = {f"{metric} of {name}": value for metric, table in tables.items() for name, value in table.items()}
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
    for name, value in {**numbers, **per_class}.items():
        print(f"{name:24s} {value:7.4f}" if value >= 0 else f"{name:24s}     n/a  (no such objects)")
