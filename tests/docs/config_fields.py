"""Which fields of a `pipeline.config` the package reads, ignores or refuses by value: as its source says them."""

import ast
import pathlib

import keras_detect

FOLDER = pathlib.Path(keras_detect.__file__).parent / "tf_od_api"
FILES = (
    "build.py",
    "build_parts.py",
    "build_ssd_features.py",
    "build_faster_rcnn.py",
    "build_center_net.py",
    "build_center_net_features.py",
    "train_config.py",
    "train_augmentations.py",
)
#: methods of `text_proto.Node` whose arguments are names of fields
READ = ("scalar", "message", "repeated", "has")
SEVERAL = ("oneof", "ignore")
#: functions beside these that take a node and then names of fields
HELPERS = ("_count", "_pair")


def fields() -> set[str]:
    """Names of all fields."""
    return set().union(*(_of(ast.parse((FOLDER / name).read_text())) for name in FILES))


def _of(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            taken = node.args[:1] if function in READ else node.args if function in SEVERAL else []
            taken = node.args[1:] if function in HELPERS else taken
            for argument in taken:
                names |= _texts(argument, tree)
            if function == "refuse_values":
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
    return names


def _texts(argument: ast.expr, tree: ast.Module) -> set[str]:
    """The text, or the texts of the tuple or the keys of the dict that a name stands for anywhere in the file."""
    if isinstance(argument, ast.Constant):
        return {argument.value} if isinstance(argument.value, str) else set()
    if isinstance(argument, ast.Starred):
        return _texts(argument.value, tree)
    if isinstance(argument, ast.Tuple | ast.List):
        return set().union(*(_texts(element, tree) for element in argument.elts), set())
    if isinstance(argument, ast.Dict):
        return set().union(*(_texts(key, tree) for key in argument.keys if key is not None), set())
    if isinstance(argument, ast.Name):
        values = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == argument.id for target in node.targets)
        ]
        return set().union(*(_texts(value, tree) for value in values if not isinstance(value, ast.Call)), set())
    return set()
