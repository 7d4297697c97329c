"""The rules of the architecture: who imports whom, where TensorFlow may be imported, ceilings on size."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_detect"
FILES = sorted(PACKAGE.rglob("*.py"))

# package -> level; a file imports from lower levels and from its own package. Packages on one level do not meet, but
# for those of level 5, each of which may import the ones before it.
LEVELS = {
    **dict.fromkeys(("schema", "registry", "compat", "files", "kernels", "text_proto"), 0),
    **dict.fromkeys(("boxes", "layers", "transforms"), 1),
    **dict.fromkeys(("losses", "backbones", "necks", "heads"), 2),
    "weights": 3,
    "meta_architectures": 4,
    **{name: 5 + order / 10 for order, name in enumerate(("training", "tf_od_api", "presets", "export", "inference"))},
    **dict.fromkeys(("cli", "__init__", "py.typed"), 6),
}
# they meet models through the dicts of `schema` alone
BESIDE = {"data", "evaluation", "visualization"}
BESIDE_MAY_IMPORT = {"schema", "registry", "kernels", "text_proto", "boxes", "transforms", *BESIDE}
MAY_IMPORT_BESIDE = {"training", "export", "inference", "cli", "__init__"}

# (file, imported module): imports upward that are still to go (issue 10)
EXCEPTIONS = {
    ("meta_architectures/detection_model.py", "keras_detect.presets"),
    ("meta_architectures/detection_model.py", "keras_detect.presets.directory"),
    ("meta_architectures/detection_model.py", "keras_detect.tf_od_api.restore_model"),
    ("meta_architectures/detection_model.py", "keras_detect.data.image"),
}

# TensorFlow, and what imports it, may be imported in these packages only, and never when the package is imported
TENSORFLOW_PACKAGES = {"data", "transforms", "kernels", "tf_od_api", "weights", "export", "training", "inference"}
TENSORFLOW_FILES = {"backbones/keras_models.py"}
BRINGS_TENSORFLOW = {"tensorflow", "keras_cv", "keras_hub", "tensorflow_datasets"}

TABLES = ("presets/", "tf_od_api/name_maps")  # files of rows, free of the line ceiling
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_CONSTRUCTOR_PARAMETERS = 500, 60, 12
KERAS_PARAMETERS = {"self", "name", "dtype", "trainable", "kwargs"}


def package_of(path):
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


def may_import(package, target):
    if package == target or LEVELS.get(package) == 6:
        return True
    if package in BESIDE:
        return target in BESIDE_MAY_IMPORT
    if target in BESIDE:
        return package in MAY_IMPORT_BESIDE
    return LEVELS[target] < LEVELS[package] or LEVELS[package] == LEVELS[target] == 0


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_point_downward(path):
    package = package_of(path)
    assert package in LEVELS or package in BESIDE, f"{relative(path)} stands in a package that the design does not have"
    for module, node in imports(ast.parse(path.read_text())):
        if not module.startswith("keras_detect"):
            continue
        target = module.split(".")[1] if "." in module else "__init__"
        allowed = may_import(package, target) or (relative(path), module) in EXCEPTIONS
        assert allowed, f"{relative(path)}:{node.lineno} imports {module}, which is not below {package}"


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def module_graph():
    """`{module: modules it imports}` within the package, imports inside functions included."""
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES
    }
    graph = {}
    for path in FILES:
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("keras_detect"):
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        # a package's `__init__` runs before its modules and may gather them
        graph[module] = {name for name in found & names if name != module and not module.startswith(name + ".")}
    return graph


def test_no_import_cycle():
    graph = module_graph()

    def reached(start):
        seen, waiting = set(), list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        return seen

    assert not [module for module in graph if module in reached(module)]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_tensorflow_is_imported_lazily_and_in_its_packages_only(path):
    tree = ast.parse(path.read_text())
    for module, node in imports(tree):
        if module.split(".")[0] in BRINGS_TENSORFLOW:
            where = f"{relative(path)}:{node.lineno} imports {module}"
            assert package_of(path) in TENSORFLOW_PACKAGES or relative(path) in TENSORFLOW_FILES, (
                f"{where} outside its packages"
            )
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
