"""Guarantees of the measurements: planted truths come out, with their standard errors."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_curation.artifact import Artifact
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.settings import InputError
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document
from tests.training.conftest import DIALOGUES, artifact, coins, parquet
from training.evaluate import EvaluateConfig, evaluate
from training.heldout import measure, ratio
from training.model import load

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("task", pa.string()),
    ]
)
TEXTS = {
    "en": ["Some words stand here, and then some more of them. " * 4, "Short one.", "Digits 0123456789 and so on."],
    "de": ["Ein Satz mit ümläuten: äöüß, und noch einer dazu. " * 2],
}


@pytest.fixture(scope="module")
def tools(tiny_model: Artifact) -> tuple[Any, Any]:
    """The tiny model as transformers loads it, and its tokenizer."""
    return tools_of(tiny_model)


def tools_of(model: Artifact) -> tuple[Any, Any]:
    """A model as transformers loads it, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(model.uri("model"))
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def heldout(home: Path, tokenizer: Any, folder: Path, texts: dict[str, list[str]]) -> Artifact:
    """Shards with part `heldout` of these texts, by language."""
    documents = []
    for language, some in texts.items():
        for text in some:
            tokens = np.array([*tokenizer(text)["input_ids"], tokenizer.bos_token_id], np.uint16)
            documents.append(Document(f"{len(documents):032x}", "made", language, len(text.encode()), tokens))
    digest = sha256_file(str(folder / "tokenizer.json"))
    index = Index(len(tokenizer), tokenizer.bos_token_id, digest, ("made",), tuple(texts))
    write_folder(home / "heldout", index, documents)
    return artifact("shard", home)


def chat(number: int, task: str = "") -> dict[str, Any]:
    """One dialogue row."""
    messages = [{"role": "user", "content": f"Number {number}?"}, {"role": "assistant", "content": "x" * (number + 1)}]
    return {
        "id": f"row-{number}",
        "source": "made",
        "kind": "task" if task else "chat",
        "messages": messages,
        "task": task,
    }


def cost(model: Any, tokens: list[int]) -> list[float]:
    """Nats of every token after the first, by transformers' own attention."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens])).logits[0].double()
    return (-logits.log_softmax(-1)[range(len(tokens) - 1), tokens[1:]]).tolist()


def test_bits_per_byte_equal_those_counted_by_hand(
    tools: tuple[Any, Any], tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Windows and packing change nothing: sums of losses and bytes are those of a plain loop over windows."""
    model, tokenizer = tools
    folder = Path(tiny_model.uri("model"))
    shards = heldout(tmp_path / "shard", tokenizer, folder, TEXTS)
    packed = load(folder).eval()
    for width in (16, 64):
        nats = {"en": 0.0, "de": 0.0}
        read = {"en": 0, "de": 0}
        for language, texts in TEXTS.items():
            for text in texts:
                tokens = tokenizer(text)["input_ids"]
                for start in range(0, len(tokens) - 1, width):
                    nats[language] += sum(cost(model, tokens[start : start + width + 1]))
                read[language] += len(text.encode()) - len(tokenizer.decode(tokens[:1]).encode())
        text = measure(packed, Path(shards.uri("heldout")), folder, 10**6, width, new_place())
        assert text.bits_per_byte()["value"] == pytest.approx(
            sum(nats.values()) / math.log(2) / sum(read.values()), 1e-5
        )
        assert text.bits_per_byte(language="de")["value"] == pytest.approx(nats["de"] / math.log(2) / read["de"], 1e-5)
        places = [place for bucket in text.positions for place in bucket.documents.values()]
        assert sum(size for _, size in places) == sum(read.values())
        assert sum(cost for cost, _ in places) == pytest.approx(sum(nats.values()), 1e-5)


def test_no_more_held_out_text_is_read_than_asked_for(
    tools: tuple[Any, Any], tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """The limit counts predicted tokens, over documents in their order; no text at all is an error."""
    folder = Path(tiny_model.uri("model"))
    shards = heldout(tmp_path / "shard", tools[1], folder, TEXTS)
    text = measure(load(folder).eval(), Path(shards.uri("heldout")), folder, 50, 16, new_place())
    assert (text.tokens, len(text.documents)) == (50, 1)
    empty = heldout(tmp_path / "empty", tools[1], folder, {"en": []})
    with pytest.raises(InputError, match="no held-out document"):
        measure(load(folder).eval(), Path(empty.uri("heldout")), folder, 50, 16, new_place())


def test_a_ratio_has_the_standard_error_of_its_residuals() -> None:
    """By hand: 10 of 20 with residuals -1, 0, 1; equal shares have no error; nothing measured has no value."""
    found = ratio([1.0, 3.0, 6.0], [4, 6, 10])
    assert found["value"] == 0.5
    assert found["standard_error"] == pytest.approx(math.sqrt(2 * 3 / 2) / 20)
    assert ratio([1.0, 2.0], [2, 4])["standard_error"] == 0.0
    assert ratio([], []) == {"value": None, "n": 0, "standard_error": None}


def test_planted_truths_come_out(coin_model: Artifact, new_place: Callable[..., Place], tmp_path: Path) -> None:
    """Three of four tasks hold the model's own answer; of four pairs one is turned round; both are measured as such."""
    from training.answers import generate_answers
    from training.chat import encode

    model, tokenizer = tools_of(coin_model)
    config = EvaluateConfig(max_new_tokens=4, seq_len=64)
    asked = coins(0, 4)  # to which it answers and ends
    prompts = [row["messages"][:1] for row in asked]
    answers = [answer.text for answer in generate_answers(model, tokenizer, prompts, 4)]
    answers[0] += "!"
    tasks = [
        row | {"task": json.dumps({"family": ("even", "odd")[number % 2], "checker": "exact", "answer": answer})}
        for number, (row, answer) in enumerate(zip(asked, answers, strict=True))
    ]
    likely = {}
    for text in ("a", "much longer and less likely"):
        ids = encode(tokenizer, [*prompts[0], {"role": "assistant", "content": text}])[0]
        likely[text] = -sum(cost(model, ids))
    good, bad = sorted(likely, key=lambda text: -likely[text])
    pairs = [{"id": f"pair-{n}", "prompt": prompts[0], "chosen": good, "rejected": bad, "task": ""} for n in range(4)]
    pairs[2] |= {"chosen": bad, "rejected": good}
    rows = tasks + [chat(number) for number in (10, 11)]
    place = new_place()
    counts = evaluate(
        config,
        coin_model,
        heldout(tmp_path / "shard", tokenizer, Path(coin_model.uri("model")), TEXTS),
        artifact("dialogues", tmp_path / "chats", {"test": {"00000.parquet": parquet(rows, DIALOGUES)}}),
        artifact("pairs", tmp_path / "pairs", {"test": {"00000.parquet": parquet(pairs, PAIRS)}}),
        place,
    )
    scores = json.loads(Path(place.home, "scores", "scores.json").read_text())
    assert scores == counts.metrics
    assert scores["task_accuracy"] == {"value": 0.75, "n": 4, "standard_error": 0.25}
    assert scores["task_accuracy/even"]["value"] == 0.5 and scores["task_accuracy/odd"]["value"] == 1.0
    assert (scores["preference_accuracy"]["value"], scores["preference_accuracy"]["n"]) == (0.75, 4)
    nats, tokens = 0.0, 0
    for row in rows[-2:]:
        ids, mask = encode(tokenizer, row["messages"])
        nats += sum(value for value, on in zip(cost(model, ids), mask[1:], strict=True) if on)
        tokens += sum(mask)
    assert scores["answer_loss"]["value"] == pytest.approx(nats / tokens, 1e-4)
    outcomes = json.loads(Path(place.home, "records", "outcomes.json").read_text())
    assert outcomes["task_accuracy"][asked[0]["id"]] == 0.0 and sum(outcomes["task_accuracy"].values()) == 3.0


def test_a_base_model_without_pairs_is_measured_too(
    tools: tuple[Any, Any], tiny_model: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Without pairs there is no preference accuracy; everything else is there; equal inputs give equal bytes."""
    shards = heldout(tmp_path / "shard", tools[1], Path(tiny_model.uri("model")), TEXTS)
    task = json.dumps({"family": "sums", "checker": "number", "answer": "3"})
    rows = parquet([chat(0, task), chat(1)], DIALOGUES)
    chats = artifact("dialogues", tmp_path / "chats", {"test": {"00000.parquet": rows}})
    found = []
    for name in ("one", "two"):
        place = new_place(name)
        evaluate(EvaluateConfig(max_new_tokens=4), tiny_model, shards, chats, None, place)
        found.append(Path(place.home, "scores", "scores.json").read_bytes())
    assert found[0] == found[1]
    names = {name.split("/")[0] for name in json.loads(found[0])}
    assert names == {
        "bits_per_byte",
        "loss",
        "needle_accuracy",
        "needle_gain",
        "task_accuracy",
        "answer_loss",
        "refusal",
    }
