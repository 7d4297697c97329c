"""The house rules of the design: who imports whom, where TensorFlow may be imported, ceilings on size."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_detect"
FILES = sorted(PACKAGE.rglob("*.py"))

# room -> rooms it may import from (besides itself); a room is a folder or a file of the package
BASE = {"fields", "registry", "native_kernels"}
MODEL_PARTS = BASE | {"boxes", "layers", "losses", "postprocessing", "backbones", "necks", "box_predictors"}
ALL_MODELS = MODEL_PARTS | {"feature_extractors", "meta_architectures"}
MAY_IMPORT = {
    "fields": set(),
    "registry": set(),
    "native_kernels": set(),
    "boxes": BASE,
    "layers": BASE,
    "losses": BASE | {"boxes"},
    "postprocessing": BASE | {"boxes"},
    "backbones": BASE | {"layers"},
    "necks": BASE | {"layers"},
    "box_predictors": BASE | {"layers"},
    "feature_extractors": MODEL_PARTS,
    "meta_architectures": MODEL_PARTS | {"feature_extractors"},
    # it translates the training half of a config too
    "tf_od_api": ALL_MODELS | {"training", "preprocessing"},
    "training": ALL_MODELS,
    "export": ALL_MODELS,
    "presets": ALL_MODELS | {"tf_od_api"},
    "data": BASE | {"boxes", "preprocessing"},
    "preprocessing": BASE | {"boxes"},
    "evaluation": BASE | {"boxes", "data"},
    "visualization": BASE | {"boxes", "data"},
}
ABOVE_ALL = {"cli", "demo", "__init__"}

# (file, imported module): the function-local imports of `DetectionModel` that reach up or aside
EXCEPTIONS = {
    ("meta_architectures/detection_model.py", "keras_detect.presets"),
    ("meta_architectures/detection_model.py", "keras_detect.presets.directory"),
    ("meta_architectures/detection_model.py", "keras_detect.tf_od_api.restore_model"),
    ("meta_architectures/detection_model.py", "keras_detect.tf_od_api.restore"),
    ("meta_architectures/detection_model.py", "keras_detect.data.picture"),
}

# TensorFlow, and what imports it, may be imported in these rooms only, and never when the package is imported
TENSORFLOW_ROOMS = {"data", "preprocessing", "tf_od_api", "export", "training"}
TENSORFLOW_FILES = {"backbones/keras_models.py", "native_kernels.py"}
BRINGS_TENSORFLOW = {"tensorflow", "keras_cv", "keras_hub", "tensorflow_datasets"}

TABLES = ("presets/", "tf_od_api/name_maps")  # files of rows, free of the line ceiling
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_CONSTRUCTOR_PARAMETERS = 500, 60, 12
KERAS_PARAMETERS = {"self", "name", "dtype", "trainable", "kwargs"}


def room_of(path):
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree):
    """(module, node) of every import, `from package import name` as "package.name" where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "keras_detect":
                yield from ((f"keras_detect.{alias.name}", node) for alias in node.names)
            else:
                yield node.module, node


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_follow_the_rooms(path):
    room = room_of(path)
    if room in ABOVE_ALL:
        return
    assert room in MAY_IMPORT, f"{relative(path)} stands in a room that the house does not have"
    tree = ast.parse(path.read_text())
    for module, node in imports(tree):
        if not module.startswith("keras_detect"):
            continue
        target = module.split(".")[1] if "." in module else "__init__"
        allowed = target == room or target in MAY_IMPORT[room] or (relative(path), module) in EXCEPTIONS
        assert allowed, f"{relative(path)}:{node.lineno} imports {module}; {room} may import {sorted(MAY_IMPORT[room])}"
        if (relative(path), module) in EXCEPTIONS:
            assert node not in tree.body, f"{relative(path)}:{node.lineno}: this import must stand inside its function"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_tensorflow_is_imported_lazily_and_in_its_rooms_only(path):
    tree = ast.parse(path.read_text())
    for module, node in imports(tree):
        if module.split(".")[0] in BRINGS_TENSORFLOW:
            where = f"{relative(path)}:{node.lineno} imports {module}"
            assert room_of(path) in TENSORFLOW_ROOMS or relative(path) in TENSORFLOW_FILES, f"{where} outside its rooms"
            assert node not in tree.body, f"{where} at module level: import it inside the function that needs it"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_ceilings(path):
    text = path.read_text()
    if not relative(path).startswith(TABLES):
        assert text.count("\n") <= MAX_FILE_LINES, f"{relative(path)} has more than {MAX_FILE_LINES} lines"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        where = f"{relative(path)}:{node.lineno} {node.name}"
        docstring = ast.get_docstring(node, clean=False)
        length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
        assert length <= MAX_FUNCTION_LINES, f"{where} has {length} lines without its docstring"
        if node.name == "__init__":
            names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)} - KERAS_PARAMETERS
            assert len(names) <= MAX_CONSTRUCTOR_PARAMETERS, f"{where} takes {len(names)} parameters"


def test_no_catch_all_module():
    assert not [relative(path) for path in FILES if path.name in ("utils.py", "common.py", "helpers.py", "misc.py")]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_importing_the_package_under_another_backend_leaves_tensorflow_alone(backend):
    pytest.importorskip(backend)
    code = "import sys, keras_detect; print([m for m in ('tensorflow', 'keras_cv') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"KERAS_BACKEND": backend, "PATH": "", "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]", f"import keras_detect under {backend} imports {run.stdout}"
