"""Metrics as a table on the terminal."""


def print_metrics(metrics):
    """One line per number of what `evaluation.evaluate_coco` returns; -1 means that no object was annotated."""
    per_class = {f"map of {name}": value for name, value in metrics["map_per_class"].items()}
    numbers = {name: value for name, value in metrics.items() if name != "map_per_class"}
    for name, value in {**numbers, **per_class}.items():
        print(f"{name:24s} {value:7.4f}" if value >= 0 else f"{name:24s}     n/a  (no such objects)")
