"""Which presets there are."""

from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "configs"


def presets() -> list[str]:
    """Names of the presets in configs/."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))
