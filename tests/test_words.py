"""Words that must not come back: the field has others, or English has."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".cfg"}
#: what users read: every rule holds
FILES = [ROOT / "README.md"] + [
    file
    for folder in ("keras_detect", "docs", "examples")
    for suffix in ("*.py", "*.md", "*.ipynb")
    for file in sorted((ROOT / folder).rglob(suffix))
]
#: the rest of the repository: the spelling holds there too
OTHERS = [
    file for file in sorted(ROOT.iterdir()) if file.suffix in SUFFIXES or file.name in ("NOTICE", "MANIFEST.in")
] + [
    file
    for folder in (".ci", ".github", "benchmarks", "tests", "tools")
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in SUFFIXES and file != pathlib.Path(__file__).resolve()
]
_UNIT = "(image|picture|class|epoch|batch|box|row|object|channel|level)"
#: pattern -> what to write instead
FORBIDDEN = {
    r"[Pp]ictures?": "image",
    r"(?<![Gg]round[ _-])truths?": "ground truth, ground-truth boxes",
    r"[Tt]he original('s)?(?= (API|code|implementation|repository|program|zoo|checkpoint)|[.,;])": "upstream",
    rf"(anchors|boxes|detections|images|pairs|ms|objects|pixels|rows|values) an? {_UNIT}s?": "per",
    r"(an|one) \w+ an? (image|epoch|class|box|row) and class": "per image and class",
    r"none of (ours|yours|theirs)( here)?": "skip, ignore",
    r"wants": "expects, requires",
    r"taken at (its|their) word": "trusted as declared",
    r"knows no|know no": "does not support",
    r"found out|NONE to find out": "auto-detected",
    r"without an up": "without a canonical orientation",
    r"quarter to the (left|right)": "90° counter-clockwise, clockwise",
    r"left out: (found|taken)": "default: auto-detected",
    r"heeded": "respected",
    r"that (is|are) none": "not a ..., invalid",
    r"the near (ones|names?)": "similar names",
    r"unless (it is|they are) told otherwise": "by default",
    r"(is|are) no (regular|positive|plain|integer|array|dict|detector|report|preset|number|JSON|feature map)": "not a",
    r"start(s|ed)? anew": "start over",
    r"by heart": "overfit",
    r"thin covers?": "thin wrapper",
    r"one's own": "your own",
    r"[Ll]ets (?!go)": "makes, allows, or the verb itself",
    r"([Nn]obody|[Ss]omebody|[Ww]hoever|[Aa]nybody)": "no one, the user, the process: who it is",
    r"of ours": "of this package",
}


#: American spelling, as in Keras and in the public names; inside of identifiers too
BRITISH = re.compile(
    r"(normal|quant|local|serial|recogn|random|regular|initial|general|vector|critic|organ|optim|minim|maxim|summar|final"
    r"|synchron|visual|special|categor|emphas|util|central|standard|memor|author|penal|prior|stabil|token|factor|custom"
    r"|parametr|equal|real)is(e|ed|es|ing|ation|ations|er|ers|able)(?![a-z])"
    r"|analys(e[drs]?|ing)(?![a-z])|colour|behaviour|neighbour|favour|honour|(?<![a-z])grey|centre|centring|licence"
    r"|signall(ed|ing)|labell(ed|ing)|modell(ed|ing)|cancell(ed|ing)|travell(ed|ing)|misspelt|learnt|burnt|spoilt"
    r"|(?<![a-z])(whatever|whilst|amongst|towards|afterwards)(?![a-z])|catalogue|artefact|programme(?![drs])",
    re.IGNORECASE,
)


def test_spelling():
    found = []
    for file in FILES + OTHERS:
        for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
            found += [f"{file.relative_to(ROOT)}:{number}: {match.group(0)}" for match in BRITISH.finditer(line)]
    assert not found, "American spelling, and no 'whatever':\n" + "\n".join(found)


def test_words():
    found = []
    for file in FILES:
        text = re.sub(r"\s+", " ", file.read_text(encoding="utf-8").replace("None", "NONE"))
        for pattern, instead in FORBIDDEN.items():
            for match in re.finditer(rf"(?<![\w`])({pattern})(?!\w)", text):
                place = text[max(0, match.start() - 30) : match.end() + 30]
                found.append(f"{file.relative_to(ROOT)}: ... {place} ... Write: {instead}")
    assert not found, "\n".join(found)
