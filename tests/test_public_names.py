"""The public surface: each namespace shows what it lists and nothing else, and every name in the texts resolves."""

import ast
import importlib
import inspect
import pathlib
import re

import pytest

import keras_detect

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAMESPACES = ["keras_detect"] + [
    f"keras_detect.{name}"
    for name in (
        *(
            "anchors",
            "backbones",
            "callbacks",
            "data",
            "evaluation",
            "export",
            "heads",
            "inference",
            "losses",
            "masks",
            "metrics",
        ),
        *("necks", "presets", "tasks", "tf_od_api", "training", "transforms", "visualization", "weights"),
    )
]
TEXTS = [ROOT / "README.md", *(ROOT / "docs").glob("**/*.md"), *(ROOT / "examples").glob("**/*.md")]
CODE = [*(ROOT / "keras_detect").rglob("*.py"), *(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]


@pytest.mark.parametrize("name", NAMESPACES)
def test_a_namespace_shows_what_it_lists(name):
    namespace = importlib.import_module(name)
    shown = [entry for entry in dir(namespace) if not entry.startswith("_")]
    assert shown == sorted(set(namespace.__all__))
    for entry in shown:
        value = getattr(namespace, entry)
        public = name == "keras_detect" and f"keras_detect.{entry}" in NAMESPACES
        assert public or not isinstance(value, type(ast)), f"{name}.{entry} is a module"
        assert value.__doc__ or not callable(value), f"{name}.{entry} has no docstring"


def test_the_namespaces_are_attributes_of_the_package():
    for name in NAMESPACES[1:]:
        assert getattr(keras_detect, name.split(".")[1]) is importlib.import_module(name)


def resolves(dotted):
    """Whether `keras_detect.x.y` is a module, or an attribute of what is before its last dot."""
    value, parts = keras_detect, dotted.split(".")[1:]
    for number, part in enumerate(parts):
        if not hasattr(value, part):
            try:
                importlib.import_module(".".join(["keras_detect", *parts[: number + 1]]))
            except ImportError:
                return False
        value = getattr(value, part)
    return True


def is_public(dotted):
    """Whether `keras_detect.x.y` is reached through what each namespace lists."""
    value = keras_detect
    for part in dotted.split(".")[1:]:
        if not hasattr(value, part) or part not in getattr(value, "__all__", [part]):
            return False
        value = getattr(value, part)
    return True


@pytest.mark.parametrize("name", NAMESPACES)
def test_public_functions_have_type_hints(name):
    namespace = importlib.import_module(name)
    for entry in namespace.__all__:
        function = getattr(namespace, entry)
        if inspect.isfunction(function) and function.__module__.startswith("keras_detect"):
            signature = inspect.signature(function)
            parts = [*signature.parameters.values()]
            bare = [part.name for part in parts if part.annotation is part.empty and part.kind is not part.VAR_KEYWORD]
            bare += ["the result"] if signature.return_annotation is signature.empty else []
            assert not bare, f"{name}.{entry} lacks type hints of {', '.join(bare)}"


def methods(cls):
    """`(name, function)` of the constructor, the call and the public methods and properties of a class."""
    for base in cls.__mro__:
        if base.__module__.startswith("keras_detect"):
            for key, value in vars(base).items():
                function = getattr(value, "__func__", getattr(value, "fget", value))
                function = inspect.unwrap(function) if callable(function) else function
                shown = not key.startswith("_") or key in ("__init__", "__call__")
                if shown and inspect.isfunction(function) and function.__module__.startswith("keras_detect"):
                    yield f"{base.__name__}.{key}", function


@pytest.mark.parametrize("name", NAMESPACES)
def test_methods_of_public_classes_have_type_hints(name):
    namespace = importlib.import_module(name)
    bare = set()
    for entry in namespace.__all__:
        value = getattr(namespace, entry)
        for method, function in methods(value) if inspect.isclass(value) else ():
            signature = inspect.signature(function)
            parts = [part for part in signature.parameters.values() if part.name not in ("self", "cls")]
            untyped = [part.name for part in parts if part.annotation is part.empty and part.kind < part.VAR_KEYWORD]
            untyped += ["->"] if signature.return_annotation is signature.empty and "__init__" not in method else []
            bare |= {f"{method}: {', '.join(untyped)}"} if untyped else set()
    assert not sorted(bare)


def names_in(text):
    """Every `keras_detect.x.y` of a text that is not a file and no path."""
    found = re.findall(r"(?<![\w/.@-])(?:keras_detect|kd)((?:\.[A-Za-z_]\w*)+)(?!/)", text)
    formats = (".named_weights", ".inside_axis")  # of a file format and of an ONNX domain, not of modules
    return {f"keras_detect{name}" for name in found if not name.endswith((".py", ".git", ".md", *formats))}


def strings(path):
    """The texts of a Python file: docstrings and errors, and no string without a space, which is for the program."""
    tree = ast.parse(path.read_text())
    nodes = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(value for value in nodes if isinstance(value, str) and " " in value)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_name_in_a_text_is_public(path):
    # mkdocstrings reads the sources, where a name that is loaded on first use is in its own file
    known = resolves if path.parent.name == "api" else is_public
    assert not [name for name in sorted(names_in(path.read_text())) if not known(name)]


def test_every_name_in_a_docstring_or_an_error_is_public():
    """But for two modules that a shell runs, and one that a benchmark measures."""
    known = {"keras_detect.cli", "keras_detect.export.second_process", "keras_detect.meta_architectures.batch_checks"}
    hidden = {path.name: {name for name in names_in(strings(path)) if not is_public(name)} - known for path in CODE}
    assert not {path: names for path, names in hidden.items() if names}


def test_the_package_says_that_it_has_types():
    assert (ROOT / "keras_detect" / "py.typed").is_file()
    assert "py.typed" in (ROOT / "pyproject.toml").read_text()
