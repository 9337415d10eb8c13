"""HTML that pydoc renders from the installed libraries: real pages where nothing can be fetched."""

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
_RENDER = """
import importlib, io, pathlib, pydoc, re, sys, warnings
warnings.simplefilter("ignore")
page, out = pydoc.HTMLDoc(), pathlib.Path(sys.argv[1])
sys.stdout = io.StringIO()
left = int(sys.argv[2])
for name in sys.argv[3:]:
    if not left:
        break
    try:
        html = page.page(pydoc.describe(sys.modules.get(name) or importlib.import_module(name)),
                         page.document(importlib.import_module(name), name))
    except BaseException:
        continue
    # Addresses and folders differ from machine to machine.
    html = re.sub(r" at 0x[0-9a-fA-F]+", "", html)
    html = re.sub(r'<a href="file:[^"]*">[^<]*</a>', "", html)
    (out / (name + ".html")).write_text(html, "utf-8", "replace")
    left -= 1
"""


def write_installed(limit: int | None, folder: Path) -> int:
    """Write pydoc's pages of the standard library as WARC files; returns their number."""
    names = [name for name in sorted(sys.stdlib_module_names) if not name.startswith("_") and name not in _LEFT_OUT]
    with tempfile.TemporaryDirectory() as scratch:
        # A process of its own: it imports every module, and some of them change the one that imports them.
        command = [sys.executable, "-c", _RENDER, scratch, str(limit or -1), *names]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run(command, cwd=scratch, env=environment, capture_output=True, timeout=SECONDS, check=False)
        files = sorted(Path(scratch).glob("*.html"))
        if not files:
            raise InputError(f"pydoc of {sys.executable} rendered no page: give a source of your own")
        return write([Page(f"https://python.example/{path.name}", path) for path in files], folder)
