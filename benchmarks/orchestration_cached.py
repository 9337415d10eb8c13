"""Times the cached road in one process, for benchmarks/orchestration.py.

python -m benchmarks.orchestration_cached STORE FOLDER       (against PREFECT_API_URL; the last line is JSON)
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.orchestration import sets

TIMES = 6  # a flow ends up to a second after its work: its heartbeat's thread is waited for


def main(store: str, folder: str) -> None:
    """Run the road and its first stage several times; the quickest call of each counts, the first one imports."""
    from flows.run import pipeline

    overlaid = [*sets(Path(folder)), f"run.store={store}", f"run.export={folder}/export"]
    found: dict[str, Any] = {}
    for _ in range(TIMES):
        for name, until in (("road", None), ("first", "dialogues")):
            began, cpu = time.monotonic(), time.process_time()
            summary = pipeline(preset="demo", set=overlaid, until=until)
            assert all(stage["state"] == "cached" for stage in summary["stages"]), summary
            spent = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
            found[name] = {key: min(value, found.get(name, spent)[key]) for key, value in spent.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
