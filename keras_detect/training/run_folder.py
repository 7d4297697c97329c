"""The folder of a training run: whose it is, and what is in it."""

import hashlib
import json
import os
import pathlib

from keras_detect.files import write_json

MODEL, HISTORY, CURVE, METRICS = "model.keras", "history.csv", "curve.png", "metrics.json"
CHECKPOINT, RUN = "checkpoint.npz", "run.json"


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during `train`. The message says what is saved."""


class RunFolder:
    """A folder that one run at a time writes to, and that never loses an earlier model by accident.

    `run.json` holds the settings of the run, and once it is finished its history. With it an interrupted run is told
    from a finished one and from a folder of something else.

    Args:
        path: of the folder, which need not exist.
        resume: whether an interrupted run in it may continue.
        overwrite: whether a run may replace what an earlier one left.

    Raises:
        ValueError: both `resume` and `overwrite`.
        FileExistsError: the folder holds a model, or the checkpoint of an interrupted run, and neither is given; or
            with `resume`, a model of which no `run.json` tells.
    """

    def __init__(self, path: str | os.PathLike, resume: bool = False, overwrite: bool = False):
        if resume and overwrite:
            raise ValueError(
                "A run is either resumed or started over. Received: resume=True and overwrite=True. Pass only one."
            )
        self.path = pathlib.Path(path).expanduser()
        self.resume, self.overwrite = resume, overwrite
        self.model, self.checkpoint = self.path / MODEL, self.path / CHECKPOINT
        self.run = _read_run(self.path / RUN) if resume else None
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"The output is a folder. {self.path} is a file.")
        if resume and self.run is None and self.model.exists():
            raise FileExistsError(
                f"{self.model} belongs to an earlier run, which cannot be resumed: {self.path} has no {RUN}. Choose "
                "another output, or start over with overwrite (--overwrite), which replaces the model."
            )
        if not (resume or overwrite):
            self._refuse_earlier()

    def _refuse_earlier(self):
        for file, what in ((self.checkpoint, "an interrupted run"), (self.model, "the model of an earlier run")):
            if file.exists():
                raise FileExistsError(
                    f"{self.path} holds {what} ({file.name}). Choose another output, continue the run with resume "
                    "(--resume), or replace it with overwrite (--overwrite)."
                )

    def begin(self, settings: dict) -> dict | None:
        """Claims the folder for a run with these settings (that JSON can hold).

        Returns what `finish` wrote where this very run is finished already, else None.

        Raises:
            ValueError: the run in the folder has other settings.
        """
        settings = json.loads(json.dumps(settings, default=lambda number: number.item()))  # numpy's
        if self.run is not None:
            before = self.run["settings"]
            others = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
            if others:
                received = ", ".join(f"{name}={settings.get(name)!r} ({before.get(name)!r} before)" for name in others)
                raise ValueError(
                    f"A run must be resumed with its original settings and data. Received for {self.path}: {received}. "
                    "Pass the original ones, or start over with overwrite (--overwrite)."
                )
            if self.run.get("finished"):
                return self.run["finished"]
        else:
            for name in (CHECKPOINT, RUN, HISTORY, CURVE, METRICS):  # of an earlier run; its model stays until replaced
                (self.path / name).unlink(missing_ok=True)
            write_json(self.path / RUN, {"settings": settings, "finished": None})
            self.run = {"settings": settings, "finished": None}
        return None

    def finish(self, result: dict) -> None:
        """Marks the run as finished, with what JSON can hold of its result, and deletes its checkpoint."""
        write_json(self.path / RUN, {**(self.run or {}), "finished": result})
        self.checkpoint.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Forgets a run that cannot continue, because it diverged; a model stays."""
        for file in (self.checkpoint, self.path / RUN):
            file.unlink(missing_ok=True)

    def contents(self, best_epoch: int | None = None) -> str:
        """One sentence or two: which model is saved and whether the run can continue.

        Args:
            best_epoch: from 0, of the model that this run saved last; None if it has saved none.
        """
        if best_epoch is not None:
            saved = f"{self.model} holds the model of epoch {best_epoch + 1}."
        elif self.model.exists():
            saved = f"{self.model} is the model of an earlier run."
        else:
            saved = "No model is saved yet."
        if self.checkpoint.exists():
            saved += " The same command with --resume (resume=True) continues from the last checkpoint."
        return saved


def fingerprint(dataset) -> str | None:
    """A short digest of file names, boxes and labels of a `DetectionDataset`: whether two runs see the same data."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(record.file_name.encode("utf-8", "surrogateescape"))
        digest.update(record.boxes.tobytes() + record.labels.tobytes())
    return digest.hexdigest()[:16]


def _read_run(path):
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error}). Start over with overwrite (--overwrite).") from None
    if not isinstance(run, dict) or not isinstance(run.get("settings"), dict):
        raise ValueError(f"{path}: not written by a training run. Start over with overwrite (--overwrite).")
    return run
