"""Free disk against what is planned: what would only fail hours later is said before."""

import shutil

from data_curation.files import is_local, local_path
from data_curation.settings import ConfigError
from tasks.run import Run


def check_disk(run: Run, what: str, need: int) -> None:
    """A ConfigError if a local store has not the bytes that the plan, or one stage, is expected to need."""
    if not is_local(run.store.root):
        return
    folder = local_path(run.store.root)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    keep = run.settings.free_gigabytes * 1e9
    if need + keep > free:
        raise ConfigError(
            f"run.store: {what} needs {need / 1e9:.1f} GB and {keep / 1e9:.1f} GB must stay free "
            f"(run.free_gigabytes), {run.store.root} has {free / 1e9:.1f} GB: free some or choose another store"
        )
