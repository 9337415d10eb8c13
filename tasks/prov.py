"""Lineage as W3C PROV-JSON: artifacts and source files are entities, making one is an activity of a revision.

https://www.w3.org/submissions/prov-json/ - `prov` for Python and ProvStore read it.
"""

import json
from typing import Any

PREFIXES = {"tokenmill": "https://tokenmill.invalid/ns#", "prov": "http://www.w3.org/ns/prov#"}
"""`.invalid` is reserved (RFC 2606): the names are ours and nothing is to be fetched there."""


def prov(graph: dict[str, Any]) -> dict[str, Any]:
    """The graph of `Lineage.graph` as one PROV-JSON document."""
    found: dict[str, dict[str, Any]] = {
        name: {} for name in ("entity", "activity", "agent", "wasGeneratedBy", "used", "wasAssociatedWith", "hadMember")
    }
    for source in graph["sources"]:
        found["entity"][_id(source["id"])] = {
            "prov:label": source["name"],
            "prov:type": _name("prov:Collection"),
            "prov:location": source["path"],
            "tokenmill:digest": source["digest"],
        }
        for file in source["files"] or []:
            entity = _id(f"file/{file['sha256']}")
            about = {"prov:label": file["path"], "tokenmill:sha256": file["sha256"], "tokenmill:bytes": file["size"]}
            found["entity"][entity] = about
            _relate(found["hadMember"], {"prov:collection": _id(source["id"]), "prov:entity": entity})
    for artifact in graph["artifacts"]:
        _add(found, artifact)
    return {"prefix": PREFIXES, **{name: some for name, some in found.items() if some}}


def _add(found: dict[str, dict[str, Any]], artifact: dict[str, Any]) -> None:
    entity, activity = _id(artifact["id"]), _id(f"making/{artifact['id']}")
    found["entity"][entity] = {
        "prov:label": artifact["name"],
        "prov:location": artifact["uri"],
        "tokenmill:key": artifact["key"],
        "tokenmill:state": artifact["state"],
    }
    if artifact["state"] == "gone":
        return
    found["entity"][entity]["tokenmill:digest"] = artifact["digest"]
    found["activity"][activity] = {
        "prov:endTime": artifact["made"],
        "prov:label": f"{artifact['name']} of run {artifact['run']}",
        "tokenmill:seconds": artifact["seconds"],
        "tokenmill:version": artifact["version"],
        **{f"tokenmill:config.{name}": _plain(value) for name, value in artifact["config"].items()},
    }
    agent = _id(f"commit/{artifact['commit'] or 'unknown'}")
    found["agent"][agent] = {"prov:type": _name("prov:SoftwareAgent"), "tokenmill:commit": artifact["commit"]}
    _relate(found["wasAssociatedWith"], {"prov:activity": activity, "prov:agent": agent})
    _relate(found["wasGeneratedBy"], {"prov:entity": entity, "prov:activity": activity, "prov:time": artifact["made"]})
    for read in artifact["inputs"]:
        used = _id(read.get("artifact") or read["source"])
        _relate(
            found["used"],
            {"prov:activity": activity, "prov:entity": used, "prov:role": f"tokenmill:{read['argument']}"},
        )


def _relate(relations: dict[str, Any], relation: dict[str, Any]) -> None:
    relations[f"_:{next(iter(relation)).split(':')[1]}{len(relations)}"] = relation


def _id(name: str) -> str:
    return f"tokenmill:{name.replace('+', '-changed')}"


def _name(name: str) -> dict[str, str]:
    return {"$": name, "type": "prov:QUALIFIED_NAME"}


def _plain(value: Any) -> Any:
    """Attributes are text, numbers or truth values; anything deeper as JSON text."""
    return value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
