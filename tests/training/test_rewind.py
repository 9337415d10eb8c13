"""Guarantees of rewinds: poisoned documents are stepped over and named, by all ranks alike, also across a kill."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_curation.artifact import Artifact
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from tests.training.conftest import artifact
from tests.training.phases import TINY, config, digests, documents, losses, published, taken
from training import step as step_module
from training.batches import Batches
from training.phases import Phase
from training.pretrain import PhaseRun, PretrainConfig, pretrain
from training.state import State

POISON, POISONED = 275, range(7, 60, 9)
"""A token whose embedding is no number, and the documents that hold it."""


def phases() -> PretrainConfig:
    """A short phase after a long one."""
    long = Phase(seq_len=32, tokens=42 * 256, learning_rate=1e-2)
    model = TINY.model_copy(update={"tie_embeddings": False})
    return config(model=model, phases=[long, Phase(seq_len=64, tokens=40 * 256, learning_rate=1e-3)])


@pytest.fixture(scope="module")
def poisoned(chat_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Shards of counting documents, some of which hold the token."""
    home = tmp_path_factory.mktemp("poisoned")
    index = Index(300, 0, sha256_file(str(chat_tokenizer / "tokenizer.json")), ("made",), ("en",))
    some = list(documents(60, 300))
    for number in POISONED:
        tokens = some[number].tokens.copy()
        tokens[len(tokens) // 2] = POISON
        some[number] = replace(some[number], tokens=tokens)
    write_folder(home / "shards", index, iter(some))
    return artifact("shard", home)


@pytest.fixture(scope="module")
def spoilt(poisoned: Artifact, tokenizer: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The first phase's output, the token's embedding replaced by what is no number."""
    from safetensors.numpy import load_file, save_file

    home = tmp_path_factory.mktemp("spoilt")
    place = Place(str(home / "first"), home / "scratch", name="first")
    place.scratch.mkdir()
    pretrain(phases().run_of(0), poisoned, tokenizer, None, place)
    path = Path(place.home, "model", "model.safetensors")
    tensors = load_file(path)
    tensors["model.embed_tokens.weight"][POISON] = np.nan
    save_file(tensors, path, {"format": "pt"})
    shown = artifact("first", Path(place.home))
    return shown.only(("model", "state"))


def bad_steps(run: PhaseRun, shards: Artifact) -> set[int]:
    """The steps of the second phase in whose batches the token is."""
    batches = Batches(
        Path(shards.uri("shards")), seed=run.seed, tokens_per_step=run.tokens_per_step, phases=run.lengths,
        mixes=run.mixes,
    )  # fmt: skip
    return {step for step in range(run.steps) if (batches.batch(1, step).tokens == POISON).any()}


def skipped(place: Place) -> list[dict[str, Any]]:
    """The steps that were not taken, by a finished training's records."""
    return json.loads(Path(place.home, "records", "skipped.json").read_text())


def test_poisoned_documents_are_stepped_over_and_named(
    poisoned: Artifact, tokenizer: Artifact, spoilt: Artifact, new_place: Callable[..., Place],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Five bad steps of ten lead back to before the first of them; the steps since are not taken, others are."""
    run, place = phases().run_of(1), new_place("one", checkpoint_seconds=0)
    bad = bad_steps(run, poisoned)
    assert sorted(bad) == [0, 2, 8, 14, 15, 17, 18, 21, 28, 32, 33, 35]
    with caplog.at_level(logging.WARNING, "tokenmill"):
        counts = pretrain(run, poisoned, tokenizer, spoilt, place)
    passed = range(5, 22)  # 14 is the first of the five; eight steps before it are 5, 6, 7, 9, 10, 11, 12, 13
    assert [step["step"] for step in taken(place)] == [n for n in range(40) if n not in bad | {*passed}]
    not_taken = {step["step"]: step for step in skipped(place)}
    assert set(not_taken) == bad | {*passed}
    assert {not_taken[step]["why"] for step in passed} == {"5 of 10 steps were skipped, step 21 because loss is nan"}
    guilty = {f"{number:032x}" for number in POISONED}
    assert {step for step, one in not_taken.items() if guilty & {*one["documents"]}} >= bad
    assert counts.metrics["rewinds"]["value"] == 1
    assert counts.metrics["skipped_steps"]["value"] == len(not_taken)
    assert counts.metrics["skipped_tokens"]["value"] == 256 * len(not_taken)
    assert any("steps 5 to 21 were stepped over, because 5 of 10" in text for text in counts.warnings)
    [line] = [one.getMessage() for one in caplog.records if "steps over steps" in one.getMessage()]
    assert "it goes on from step 0 and steps over steps 5 to 21, of documents 0" in line


def test_a_rewind_outlives_a_kill(
    poisoned: Artifact, tokenizer: Artifact, spoilt: Artifact, new_place: Callable[..., Place],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Stopped after it, with no checkpoint since, training takes the same samples, whatever the checkpoints' rhythm."""
    run = phases().run_of(1)
    unbroken, broken, again = new_place("one", checkpoint_seconds=0), new_place("broken"), new_place("again")
    pretrain(run, poisoned, tokenizer, spoilt, unbroken)
    step, asked = step_module.Trainer.step, []

    def stop(trainer: step_module.Trainer, state: State) -> None:
        asked.append(state.step)
        if state.step == 25:
            raise KeyboardInterrupt
        step(trainer, state)

    monkeypatch.setattr(step_module.Trainer, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(run, poisoned, tokenizer, spoilt, broken)
    assert asked == [*range(22), *range(5), *range(22, 26)]
    assert again.adopt(broken.home) == ["checkpoint-000000", "rewind-000005-000022"]
    monkeypatch.setattr(step_module.Trainer, "step", step)
    pretrain(run, poisoned, tokenizer, spoilt, again)
    assert digests(published(again)) == digests(published(unbroken))
    assert skipped(again) == skipped(unbroken)
    assert taken(again) == taken(unbroken)


def test_ranks_rewind_alike(
    poisoned: Artifact, tokenizer: Artifact, spoilt: Artifact, new_place: Callable[..., Place]
) -> None:
    """Two ranks skip and step over what one does, and their curve is that of one."""
    run, one, two = phases().run_of(1), new_place("one"), new_place("two", ranks=2, checkpoint_seconds=0)
    for place in (one, two):
        pretrain(run, poisoned, tokenizer, spoilt, place)
    assert skipped(two) == skipped(one)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
