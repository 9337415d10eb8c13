"""A tiny road of toy stages on a real store and a real Prefect server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.run import Run, RunConfig, running
from tasks.stage import stage
from tasks.store import Store
from tests.tasks.toys import SeedConfig, SortConfig

seed = stage("tests.tasks.toys:seed", version=1)
sort = stage("tests.tasks.toys:sort", version=1)

Road = Callable[..., Run]


@pytest.fixture
def road(prefect_api: str, tmp_path: Path) -> Road:
    """Run (or plan) `seed -> sort`; keyword `seed`/`sort` are configs, the rest goes to the Run."""
    from prefect import flow

    def go(
        seed_config: SeedConfig = SeedConfig(),  # noqa: B008 - frozen
        sort_config: SortConfig = SortConfig(),  # noqa: B008
        mode: Any = "make",
        store: str = str(tmp_path / "store"),
        preset: str = "toy",
        **options: Any,
    ) -> Run:
        settings = RunConfig(store=store, retries=1, retry_seconds=0.01)
        run = Run(preset, {}, settings, Store(store), mode, **options)

        def body() -> None:
            with running(run):
                sort(sort_config, numbers=seed(seed_config))

        try:
            (flow(name="toy")(body) if mode == "make" else body)()
        finally:
            if mode == "make":
                run.save("done")
        return run

    return go
