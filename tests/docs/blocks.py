"""The code blocks of the Markdown pages, and what a good reason is not to run one."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import shlex
from collections.abc import Iterator

from keras_detect import cli, presets
from tests.goldens import BACKEND

ROOT = pathlib.Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<reason>[^>]*?) -->\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
LANGUAGES = ("python", "bash")

#: reason for not running a block -> what must be in the block that gives it
REASONS = {
    "install": r"pip install|apt-get",
    "network": r"https?://|hf://|imagenet|" + "|".join(map(re.escape, presets.names())),
    "hours": r"tests/run_all\.py|epochs=\d\d",
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of code: its page, the number of its first line, language, text, and why it is not run ("": it is)."""

    page: str
    line: int
    language: str
    code: str
    reason: str

    @property
    def is_run(self) -> bool:
        """Whether it can be run here; "needs NAME" runs where the module is installed."""
        needed = re.fullmatch(r"needs (\w+)", self.reason)
        return importlib.util.find_spec(needed[1]) is not None if needed else not self.reason


def blocks(page: str) -> list[Block]:
    """The Python and shell blocks of a page, a path below the repository."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        if match["language"] in LANGUAGES:
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.MULTILINE)
            line = text.count("\n", 0, match.start("code")) + 1
            found.append(Block(page, line, match["language"], code, (match["reason"] or "").strip()))
    return found


def pages() -> list[str]:
    """Every page for users that has code to run; `tests/examples` runs that of the examples."""
    paths = [ROOT / "README.md", ROOT / "PACKAGE.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths if blocks(path.relative_to(ROOT).as_posix()))


def why_not(block: Block) -> str:
    """What is wrong with the reason that a block gives for not being run; "" if it is a good one."""
    if block.reason.startswith("tests/"):
        path, _, name = block.reason.partition("::")
        file = ROOT / path
        if not file.is_file() or (name and f"def {name}(" not in file.read_text()):
            return f"there is no {block.reason}"
        return ""
    if re.fullmatch(r"needs \w+", block.reason):
        return ""
    if block.reason.endswith(".md"):  # another page runs the same lines
        there = any(other.is_run and block.code in other.code for other in blocks(block.reason))
        return "" if there else f"{block.reason} does not run it"
    wanted = REASONS.get(block.reason)
    if wanted is None:
        return f"unknown reason {block.reason!r}"
    return "" if re.search(wanted, block.code) else f"{block.reason!r} does not apply"


def check_syntax(block: Block) -> None:
    """Raises for a block that could not be run at all: no Python, or a command that `keras-detect` does not know."""
    if block.language == "python":
        ast.parse(block.code)
        return
    for words in commands(block.code):
        if words[0] == "keras-detect":
            cli.parse(words)


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command of a shell block; another backend in front of a command is a word, too."""
    for line in code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", line):
            words = shlex.split(part, comments=True)
            if words[:1] == [f"KERAS_BACKEND={BACKEND}"]:  # the one that is running
                words = words[1:]
            if words:
                yield words
