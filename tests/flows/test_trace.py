"""Guarantees of `tokenmill trace`: a model's whole origin, the documents of any step, the way of every document."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from prov.model import ProvDocument

from data_curation.files import sha256_file
from data_curation.shards import Shards
from tests.flows.crawls import page, preset, url
from tests.flows.test_road import tokenmill
from training.batches import Batches


@pytest.fixture(scope="module")
def home(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished road over 60 pages."""
    folder = tmp_path_factory.mktemp("traced")
    code, _, said = tokenmill("run", preset(folder, range(60)), "--until", "pretrain")
    assert code == 0, said
    return folder


def asked(home: Path, *words: str | Path) -> dict[str, Any]:
    """The answer of `tokenmill trace`."""
    code, answer, said = tokenmill("trace", *words, "--store", home / "store")
    assert code == 0, said
    return answer


def the_run(home: Path) -> str:
    """Name of the one run."""
    return next((home / "store" / "runs").iterdir()).name


def test_the_tree_reaches_the_source_files(home: Path) -> None:
    """From the last phase down to the bytes of every source file: keys, digests, configurations, commits."""
    graph = asked(home, the_run(home))
    artifacts = {one["id"]: one for one in graph["artifacts"]}
    names = {one["name"] for one in artifacts.values()}
    assert names >= {"pretrain-128", "pretrain-64", "shard", "tokenizer", "decontaminate", "dedup", "clean", "extract"}
    assert artifacts[graph["model"]]["name"] == "pretrain-128"
    for one in artifacts.values():
        manifest = json.loads((Path(one["uri"]) / "manifest.json").read_text())
        assert (one["digest"], one["config"], one["commit"]) == tuple(
            manifest[n] for n in ("digest", "config", "commit")
        )
        for read in one["inputs"]:  # what was read is what the other artifact made
            made = artifacts[read["artifact"]]["parts"] if "artifact" in read else read["parts"]
            assert read["parts"].items() <= made.items()
    (source,) = graph["sources"]
    files = {file["path"]: file["sha256"] for file in source["files"]}
    assert files == {path.name: sha256_file(str(path)) for path in (home / "pages").iterdir()}


def test_a_copied_model_folder_is_known_by_its_weights(home: Path, tmp_path: Path) -> None:
    """Folder, run, start of a key or digest all name one artifact; a folder of other weights names none."""
    graph = asked(home, the_run(home))
    model = next(one for one in graph["artifacts"] if one["id"] == graph["model"])
    shutil.copytree(Path(model["uri"]) / "model", tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("mine")
    for name in (tmp_path / "copy", model["key"][:10], model["digest"][:12], model["id"], model["uri"]):
        assert asked(home, name)["model"] == model["id"]
    weights = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(weights)
    code, _, said = tokenmill("trace", tmp_path / "copy", "--store", home / "store")
    assert code == 2 and "no folder, run, key, digest, document id or URL" in said


@pytest.mark.parametrize(
    ("step", "phase", "index", "within"), [(0, "", 0, 0), (81, "", 1, 1), (3, "pretrain-128", 1, 3)]
)
def test_the_documents_of_a_step(home: Path, step: int, phase: str, index: int, within: int) -> None:
    """They are those of the batch that the trainer read, with URL and source, over the run or in one phase."""
    words = ["--step", str(step), *(["--phase", phase] if phase else [])]
    answer = asked(home, the_run(home), *words)
    shards = next((home / "store" / "shard").glob("*/1/shards"))
    batches = Batches(shards, seed=0, tokens_per_step=512, phases=[(64, 80), (128, 4)])
    assert [one["id"] for one in answer["documents"]] == batches.documents(index, [within])
    assert (answer["phase"], answer["step_of_run"]) == (("pretrain-64", "pretrain-128")[index], 80 * index + within)
    for one in answer["documents"]:
        assert one["source"] == "pages" and one["url"].startswith("https://a.example/")


def test_a_step_that_no_phase_took_is_refused(home: Path) -> None:
    """The message says how many there were."""
    code, _, said = tokenmill("trace", the_run(home), "--step", "84", "--store", home / "store")
    assert code == 2 and "--step 84: all phases took 84 steps: give 0 to 83" in said
    code, _, said = tokenmill("trace", the_run(home), "--step", "1", "--phase", "x", "--store", home / "store")
    assert code == 2 and "--phase x: this model has gone through pretrain-64, pretrain-128" in said


def test_the_way_of_a_document(home: Path) -> None:
    """A URL in any spelling: what each stage decided and why, and which models have read it, in which steps."""
    (seven,) = asked(home, url(7).replace("https://", "HTTP://www."))["documents"]
    (eight,) = asked(home, url(8))["documents"]
    (nine,) = asked(home, url(9))["documents"]
    assert [one["name"] for one in nine["stages"]] == ["extract", "clean"]
    assert (nine["stages"][1]["step"], nine["models"]) == ("c4", []) and not nine["stages"][1]["kept"]
    (dropped,) = [one for one in (seven, eight) if not one["stages"][-1]["kept"]]
    (stays,) = [one for one in (seven, eight) if one["stages"][-1]["kept"]]
    assert dropped["stages"][-1]["reason"] == "near-duplicate" and dropped["shards"] == []
    assert json.loads(dropped["stages"][-1]["scores"])["kept"] == stays["id"]
    assert asked(home, stays["id"])["documents"] == [stays]
    shards = next((home / "store" / "shard").glob("*/1/shards"))
    batches = Batches(shards, seed=0, tokens_per_step=512, phases=[(64, 80), (128, 4)])
    assert [model["name"] for model in stays["models"]] == ["pretrain-64", "pretrain-128"]
    for index, phase in enumerate(stays["models"][1]["phases"]):
        steps = range(batches.phases[index][1])
        assert phase["steps"] == [step for step in steps if stays["id"] in batches.documents(index, [step])]


def test_who_was_read_by_then(home: Path) -> None:
    """Of all pages of one step every one counts as read by the phase that took the step, and by all models after it."""
    first = asked(home, the_run(home), "--step", "0")["documents"][0]
    (document,) = asked(home, first["id"])["documents"]
    trained = {model["name"]: model["trained"] for model in document["models"]}
    assert trained == {"pretrain-64": True, "pretrain-128": True}
    assert 0 in document["models"][0]["phases"][0]["steps"]
    tokens = document["models"][0]["phases"][0]["tokens"]
    assert 0 < tokens <= len(page(0)["text"]) * 40
    shards = Shards(next((home / "store" / "shard").glob("*/1/shards")))
    assert document["shards"][0]["part"] == "shards" and shards.find({first["id"], "0" * 32}).keys() == {first["id"]}


def test_lineage_as_prov(home: Path, tmp_path: Path) -> None:
    """Every relation of the PROV-JSON names what it declares, and an independent library reads and keeps all of it."""
    graph = asked(home, the_run(home), "--prov", tmp_path / "prov.json")
    document = json.loads((tmp_path / "prov.json").read_text())
    declared = {kind: set(document[kind]) for kind in ("entity", "activity", "agent")}
    relations = {
        "wasGeneratedBy": ("entity", "activity"),
        "used": ("activity", "entity"),
        "wasAssociatedWith": ("activity", "agent"),
        "hadMember": ("collection", "entity"),
    }
    assert set(document) == {"prefix", *declared, *relations}
    for relation, (left, right) in relations.items():
        for one in document[relation].values():
            for end in (left, right):
                assert one[f"prov:{end}"] in declared["entity" if end == "collection" else end]
    read: Any = ProvDocument.deserialize(str(tmp_path / "prov.json"), format="json")
    assert len(read.get_records()) == sum(len(some) for name, some in document.items() if name != "prefix")
    assert ProvDocument.deserialize(content=read.serialize(format="json"), format="json") == read
    assert len(document["wasGeneratedBy"]) == len(graph["artifacts"])
    assert len(document["hadMember"]) == len(list((home / "pages").iterdir()))
