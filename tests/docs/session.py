"""A reader's session: a process that runs the blocks of pages, one page after the other, and has nothing of the tests.

`run_page` starts it with the package as installed from its wheel, and sends it a line of JSON per page.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback


def main():
    """Answers each line of stdin, a page, with a line of JSON; what the blocks print goes to the page's log."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        page = json.loads(line)
        with open(page["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            error, seconds = run_page(page)
            sys.stdout.flush()
            sys.stderr.flush()
        print(json.dumps({"error": error, "seconds": seconds}), file=answers, flush=True)


def run_page(page):
    """`(traceback of the block that fails or None, CPU seconds of each block)`."""
    import keras_detect

    os.chdir(page["folder"])
    variables, seconds = {"__name__": "__main__", "__file__": page["name"]}, []
    try:
        for place in page["without"]:
            assert not keras_detect.__file__.startswith(place), keras_detect.__file__
        with own_tables(), one_epoch():
            for block in page["blocks"]:
                start = time.process_time()
                run_block(page["name"], block, variables)
                seconds.append(round(time.process_time() - start, 1))
    except BaseException:  # a command may exit
        return traceback.format_exc(), seconds
    return None, seconds


def run_block(page, block, variables):
    """Python in `variables`, `keras-detect` in this process, other commands in a shell."""
    if block["language"] == "python":
        code = "\n" * (block["line"] - 1) + block["code"]  # tracebacks name the line of the page
        exec(compile(code, page, "exec"), variables)
        return
    from keras_detect import cli

    for words in block["commands"]:
        if words[0] == "keras-detect":
            assert not cli.run(cli.parse(words)), f"{page}:{block['line']}: {' '.join(words)}"
        else:
            subprocess.run(" ".join(words), shell=True, check=True)


@contextlib.contextmanager
def own_tables():
    """What a page registers or draws is gone after it."""
    from keras_detect import registry
    from keras_detect.data import load
    from keras_detect.tf_od_api import name_maps

    tables = [value._entries for value in vars(registry).values() if isinstance(value, registry.Registry)]
    tables += [load.FORMATS, name_maps.MODELS]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


@contextlib.contextmanager
def one_epoch():
    """The recipe still chooses everything, and then trains for one epoch."""
    from keras_detect.training import recipe

    before = recipe._epochs
    recipe._epochs = lambda *args: 1
    try:
        yield
    finally:
        recipe._epochs = before


if __name__ == "__main__":
    main()
