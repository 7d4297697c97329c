"""What export refuses, and what it lacks."""

import importlib.metadata


class ExportError(ValueError):
    """A model, a part or an operation that a format cannot express, or a file whose answers differ from `predict`."""


class MissingPackageError(ImportError, ExportError):
    """A format needs packages that are not installed."""


def require_packages(format, distributions):
    """Raises `MissingPackageError` unless each of the named distributions is installed."""
    missing = [name for name in distributions if not _is_installed(name)]
    if missing:
        *others, last = missing
        named = f"{', '.join(others)} and {last}, which are" if others else f"{last}, which is"
        raise MissingPackageError(
            f"The format '{format}' needs {named} not installed. Install the extra: pip install 'keras-detect[export]'."
        )


def _is_installed(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
