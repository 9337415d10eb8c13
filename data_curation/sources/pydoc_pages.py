"""Pages of what pydoc knows of the installed libraries: real prose where nothing can be fetched."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from data_curation.settings import InputError
from data_curation.sources.warc import Page, write

SECONDS = 300
# Importing these opens a browser, prints, starts a window or runs tests.
_LEFT_OUT = ("antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3", "test", "__phello__")
_LIBRARIES = ("numpy", "numpy.random", "scipy.optimize", "torch.nn", "torch.optim", "torch.utils.data", "nltk")
# pydoc's own HTML repeats every inherited method on every page, which no quality rule lets pass: the same texts are
# set as one page per topic, module and class, each text once, without the examples in code.
_RENDER = """
import html, importlib, inspect, io, pathlib, pydoc, re, sys, warnings
from pydoc_data.topics import topics
warnings.simplefilter("ignore")
out, left, seen = pathlib.Path(sys.argv[1]), int(sys.argv[2]), set()

def paragraphs(text):
    for block in re.split(r"\\n\\s*\\n", inspect.cleandoc(text)):
        plain = " ".join(line.strip() for line in block.splitlines() if not set(line) <= set("=-*~ "))
        if ">>>" not in block and "|" not in block and plain.endswith((".", "!", "?", ":")):
            yield f"<p>{html.escape(plain)}</p>"

def save(name, texts):
    global left
    fresh = [(title, text) for title, text in texts if text not in seen]
    seen.update(text for _, text in fresh)
    body = "".join(f"<h2>{html.escape(title)}</h2>{''.join(paragraphs(text))}\\n" for title, text in fresh)
    if left and len(body) > 500:
        left -= 1
        page = f"<html lang='en'><head><meta charset='utf-8'><title>{name}</title></head><body>{body}</body></html>"
        # Addresses differ from run to run.
        (out / (name + ".html")).write_text(re.sub(r" at 0x[0-9a-fA-F]+", "", page), "utf-8", "replace")

def members(holder):
    return [(key, value) for key, value in sorted(vars(holder).items()) if key[0] != "_" and callable(value)]

for name, text in sorted(topics.items()):
    save("topic-" + name, [(name, text)])
sys.stdout = io.StringIO()
for name in sys.argv[3:]:
    if not left:
        break
    try:
        module = importlib.import_module(name)
        functions = [(key, pydoc.getdoc(value)) for key, value in members(module) if not inspect.isclass(value)]
        save(name, [(name, pydoc.getdoc(module)), *functions])
        for key, value in members(module):
            if inspect.isclass(value):
                methods = [(inner, pydoc.getdoc(member)) for inner, member in members(value)]
                save(name + "." + key, [(key, pydoc.getdoc(value)), *methods])
    except BaseException:
        continue
"""


def write_installed(limit: int | None, folder: Path) -> int:
    """Write pages of Python's topics, its standard library and some packages as WARC files; returns their number."""
    names = [name for name in sorted(sys.stdlib_module_names) if not name.startswith("_") and name not in _LEFT_OUT]
    with tempfile.TemporaryDirectory() as scratch:
        # A process of its own: it imports every module, and some of them change the one that imports them.
        command = [sys.executable, "-c", _RENDER, scratch, str(limit or -1), *names, *_LIBRARIES]
        subprocess.run(command, cwd=scratch, env={**os.environ}, capture_output=True, timeout=SECONDS, check=False)
        files = sorted(Path(scratch).glob("*.html"))
        if not files:
            raise InputError(f"pydoc of {sys.executable} rendered no page: give a source of your own")
        return write([Page(f"https://python.example/{path.name}", path) for path in files], folder)
