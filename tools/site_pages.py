"""Hook of `mkdocs.yml`: the site also holds pages of the repository that lie outside `docs/`.

The files of `OUTSIDE` come into the site under their own paths, below its root. A link that leads out of `docs/` then
loses one `..`, a link back into `docs/` its `docs`; a link to a file of the repository that is not in the site (source
code) becomes its text. Every other broken link fails the strict build.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/*.md",
    "examples/**/*.md",
    "examples/**/*.ipynb",
    "examples/**/*.jpg",
    "examples/**/*.png",
)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"(^ *```.*?^ *```$)", re.DOTALL | re.MULTILINE)


def outside():
    """Paths, relative to the repository, of the files that come into the site."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in OUTSIDE for path in ROOT.glob(pattern))


def on_files(files, config):
    """Adds the files of `OUTSIDE`."""
    for path in outside():
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Leads relative links to where the files are in the site."""
    path = page.file.src_uri
    source = path if path in outside() else f"docs/{path}"
    known = {file.src_uri for file in files}
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _relinked(link, source, path, known), part) for part in parts[::2]]
    return "".join(parts)


def _relinked(link, source, path, known):
    image, text, target, anchor = link.groups()
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))  # in the repository
    inside = wanted.removeprefix("docs/")
    if inside in known:
        place = posixpath.relpath(inside, posixpath.dirname(path) or ".")
        return f"{image}[{text}]({place}{anchor or ''})"
    return text if (ROOT / wanted).exists() else link[0]
