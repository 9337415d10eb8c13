"""A toy stage that says of its gates what it is told to say."""

from typing import Any

from data_curation.counts import Counts
from data_curation.place import Place
from data_curation.settings import Settings


class GatedConfig(Settings):
    """The gates of the toy stage."""

    gates: list[dict[str, Any]]
    """Rows of Counts.gates; the value `nan` is a float that is no number."""


def gated(config: GatedConfig, place: Place) -> Counts:
    """Write something, and say the gates."""
    with place.piece("all") as piece:
        piece.send_json("gated", "gates.json", len(config.gates))
    rows = [row | {"value": float("nan")} if row["value"] == "nan" else row for row in config.gates]
    return Counts(made={"gates": len(rows)}, gates=rows)
