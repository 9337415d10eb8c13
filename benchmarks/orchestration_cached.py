"""Times the cached road in one process, for benchmarks/orchestration.py.

python -m benchmarks.orchestration_cached STORE FOLDER       (against PREFECT_API_URL; the last line is JSON)
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.orchestration import sets

TIMES = 6


def main(store: str, folder: str) -> None:
    """Run the road, and without heartbeats the road and its first stage; the quickest call of each counts.

    A flow with heartbeats ends up to a second after its work, which would hide what a stage costs.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.run import pipeline

    overlaid = [*sets(Path(folder)), f"run.store={store}", f"run.export={folder}/export"]
    found: dict[str, Any] = {}
    for _ in range(TIMES):
        for name, until, beats in (("cached", None, 30), ("road", None, None), ("first", "dialogues", None)):
            began, cpu = time.monotonic(), time.process_time()
            with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: beats}):
                summary = pipeline(preset="demo", set=overlaid, until=until)
            assert all(stage["state"] == "cached" for stage in summary["stages"]), summary
            spent = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
            found[name] = {key: min(value, found.get(name, spent)[key]) for key, value in spent.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
