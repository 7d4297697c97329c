"""The rules of the architecture: who imports whom, where TensorFlow may be imported, ceilings on size."""

import ast
import importlib
import pathlib
import subprocess
import sys

import keras
import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "keras_detect"
FILES = sorted(PACKAGE.rglob("*.py"))

# package -> level; a file imports from lower levels and from its own package. Packages on one level do not meet, but
# for those of level 5, each of which may import the ones before it.
LEVELS = {
    **dict.fromkeys(
        ("schema", "registry", "compat", "config_bounds", "files", "kernels", "messages", "startup", "text_proto"), 0
    ),
    **dict.fromkeys(("boxes", "layers", "transforms"), 1),
    **dict.fromkeys(("losses", "backbones", "necks", "heads"), 2),
    "weights": 3,
    "meta_architectures": 4,
    **{name: 5 + order / 10 for order, name in enumerate(("training", "tf_od_api", "presets", "export", "inference"))},
    **dict.fromkeys(("cli", "__init__", "anchors", "callbacks", "masks", "metrics", "py.typed", "tasks"), 6),
}
# they meet models through the dicts of `schema` alone
BESIDE = {"data", "evaluation", "visualization"}
BESIDE_MAY_IMPORT = {
    "schema",
    "registry",
    "compat",
    "files",
    "kernels",
    "messages",
    "text_proto",
    "boxes",
    "transforms",
}
BESIDE_MAY_IMPORT |= BESIDE
MAY_IMPORT_BESIDE = {"training", "export", "inference", "cli", "__init__", "callbacks", "masks", "metrics"}

# TensorFlow, and what imports it, may be imported in these packages only, and never when the package is imported
TENSORFLOW_PACKAGES = {"data", "transforms", "kernels", "tf_od_api", "weights", "export", "training", "inference"}
TENSORFLOW_FILES = {"backbones/keras_cv_models.py"}
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
    assert package in LEVELS or package in BESIDE, f"{relative(path)} is in a package that the design does not have"
    for module, node in imports(ast.parse(path.read_text())):
        if not module.startswith("keras_detect"):
            continue
        target = module.split(".")[1] if "." in module else "__init__"
        where = f"{relative(path)}:{node.lineno} imports {module}"
        assert may_import(package, target), f"{where}, which is not below {package}"


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def module_graph():
    """`{module: modules it imports}` within the package, imports inside functions included."""
    names = {module_name(path) for path in FILES}
    graph = {}
    for path in FILES:
        module = module_name(path)
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


def keras_names():
    """The private names of Keras' objects, methods and attributes alike."""
    inputs = keras.Input((2,))
    objects = [
        keras.Model(inputs, keras.layers.Dense(1)(inputs)),
        type("Subclassed", (keras.Model,), {})(),
        keras.layers.BatchNormalization(),
        keras.metrics.Mean(),
        keras.losses.MeanSquaredError(),
        keras.optimizers.AdamW(),
        keras.callbacks.Callback(),
        keras.utils.PyDataset(),
        keras.Variable(1.0),
        keras.KerasTensor((1,)),
        keras.random.SeedGenerator(0),
    ]
    return {name for entry in objects for name in dir(entry) if is_private(name)}


def is_private(name):
    public = ("_asdict", "_replace", "_exit")  # of NamedTuple and os, documented
    return name.startswith("_") and not name.startswith("__") and name not in public


def defined_names(tree):
    """Private names that a file gives to its own functions, classes, attributes and variables."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
            names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "object.__setattr__":
            names.add(getattr(node.args[1], "value", None))
    return names


def test_private_names_of_keras_stand_in_one_file():
    """A private name that a file reads is its own, or of another file of the package and none of Keras'."""
    trees = {path: ast.parse(path.read_text()) for path in FILES if relative(path) != "compat.py"}
    defined = {path: defined_names(tree) for path, tree in trees.items()}
    ours, theirs = set().union(*defined.values()), keras_names()
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            where = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                if node.attr not in defined[path] and (node.attr in theirs or node.attr not in ours):
                    found.append(f"{where} reads {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras.src"):
                found.append(f"{where} imports {node.module}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
                name = getattr(node.args[1], "value", None)
                found += [f"{where} names {name!r}"] if name in theirs else []
    assert not found, "private names of Keras belong into compat.py"


def test_no_class_overrides_a_private_name_of_keras():
    """Methods and attributes of our subclasses of Keras' classes that hide one of Keras', but for compat's own."""
    found = []
    for path in FILES:
        if path.name == "__main__.py":
            continue
        module = importlib.import_module(module_name(path))
        for cls in vars(module).values():
            if not isinstance(cls, type) or cls.__module__ != module.__name__ or path.name == "compat.py":
                continue
            bases = [base for base in cls.__mro__ if base.__module__.startswith("keras.")]
            hidden = {name for name in vars(cls) if is_private(name) for base in bases if name in vars(base)}
            found += [f"{relative(path)} {cls.__name__}.{name}" for name in hidden - {"_abc_impl", "_auto_config"}]
    assert not found


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
