"""Guarantees of the probes after a phase: they tell models that use their context from models that do not."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.files import sha256_file
from data_curation.place import Place
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document
from tests.training.phases import TINY, config, counting_shards, published
from training import model as models
from training.architecture import Rope
from training.decoder import Decoder
from training.gates import ProbeConfig, gates_of
from training.parallel import Ranks
from training.pretrain import Phase, pretrain
from training.probes import probe
from training.reading import Reader

CPU = torch.device("cpu")
SURE = 20.0


class Copier:
    """Stands in for a decoder: predicts what followed the last two tokens when they stood together before.

    It looks back `reach` tokens; what it has not seen it holds for equally likely.
    """

    kernel = "sdpa"

    def __init__(self, vocabulary: int, reach: int) -> None:
        self.head, self.reach = nn.Linear(vocabulary, vocabulary, bias=False), reach
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(vocabulary))

    def hidden(self, tokens: Tensor, positions: Tensor, layout: Any) -> Tensor:
        """The logits themselves."""
        found = torch.zeros(*tokens.shape, len(self.head.weight))
        for row, line in enumerate(tokens.tolist()):
            for at in range(1, len(line)):
                start = at - int(positions[row, at])
                for before in range(at - 1, max(start, at - self.reach), -1):
                    if line[before - 1 : before + 1] == line[at - 1 : at + 1]:
                        found[row, at] = SURE * one_hot(torch.tensor(line[before + 1]), len(self.head.weight))
                        break
        return found.flatten(0, 1)


def repeating(number: int) -> Iterator[Document]:
    """Documents of 257 tokens: 80 random ones again and again; and short ones of 10 random tokens."""
    draw = np.random.default_rng(5)
    for index in range(number):
        tokens = np.resize(draw.integers(20, 270, 80), 257) if index % 2 else draw.integers(20, 270, 10)
        yield Document(f"{index:032x}", "made", "en", len(tokens), tokens.astype(np.uint16))


@pytest.fixture(scope="module")
def heldout(chat_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten repeating documents."""
    folder = tmp_path_factory.mktemp("heldout") / "heldout"
    sha256 = sha256_file(str(chat_tokenizer / "tokenizer.json"))
    write_folder(folder, Index(300, 0, sha256, ("made",), ("en",)), repeating(10))
    return folder


def run_of(**probes: Any) -> Any:
    """The second of two phases, of 64 and 256 tokens."""
    phases = [Phase(seq_len=64, tokens=2048, learning_rate=1e-3), Phase(seq_len=256, tokens=512, learning_rate=1e-3)]
    return config(phases=phases, probes=ProbeConfig(**{"needles": 10} | probes)).run_of(1)


def measured(decoder: Any, before: Any, heldout: Path, tokenizer: Path, place: Place, **probes: Any) -> Counts:
    """What the probes say of a model, with another one before it."""
    from transformers import AutoTokenizer

    reader = Reader(decoder, 256, Ranks(), CPU, lambda: None)
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    return probe(run_of(**probes), place, reader, lambda: before, heldout, loaded)


def test_a_model_that_looks_back_far_uses_its_context_and_one_that_does_not_is_found_out(
    heldout: Path, chat_tokenizer: Path, new_place: Callable[..., Place]
) -> None:
    """What repeats after 80 tokens is free with all 256 in sight, and as dear as ever to a model that sees 64."""
    # The digits of the needle are random: nothing in the filler foretells them.
    far, near = (
        measured(Copier(270, reach), Copier(270, reach), heldout, chat_tokenizer, new_place(f"{reach}"))
        for reach in (256, 64)
    )
    gain, none = (counts.metrics["context_gain"] for counts in (far, near))
    assert gain["value"] == pytest.approx(np.log(270), rel=0.01) and gain["n"] == 5
    assert (none["value"], none["n"]) == (0.0, 5)
    assert far.metrics["loss/position/128-255"]["value"] < 0.01 < far.metrics["loss/position/0-63"]["value"]
    assert far.metrics["loss/position/64-127"]["n"] == 5 * 64
    assert far.metrics["needle_accuracy"] == {"value": 1.0, "n": 10, "standard_error": 0.0}
    assert far.metrics["needle_gain"]["value"] > 5 * np.log(270) - 2 * np.log(270)
    assert near.metrics["needle_accuracy"]["value"] == pytest.approx(0.2)
    assert near.metrics["needle_accuracy/depth/90%"]["value"] == 1.0
    assert near.metrics["needle_accuracy/depth/10%"]["value"] == 0.0


def test_forgetting_is_measured_document_by_document_and_stops_the_run(
    heldout: Path, chat_tokenizer: Path, new_place: Callable[..., Place]
) -> None:
    """Short random documents cost log2(270) bits a token; a model that is sure of something else has forgotten."""
    worse = Copier(270, 256)
    with torch.no_grad():
        worse.head.weight[20] += 1e-9
    worse.hidden = lambda tokens, positions, layout: SURE * one_hot(torch.full((tokens.numel(),), 20), 270).float()  # type: ignore[method-assign]
    same = measured(Copier(270, 256), Copier(270, 256), heldout, chat_tokenizer, new_place("same"), short_rise=0.01)
    forgot = measured(worse, Copier(270, 256), heldout, chat_tokenizer, new_place("worse"), short_rise=0.01)
    sizes = models.bytes_of_tokens(chat_tokenizer)
    short = [document.tokens[1:] for document in repeating(10) if len(document.tokens) == 10]
    bits, read = sum(len(one) for one in short) * np.log2(270), sum(int(sizes[one].sum()) for one in short)
    assert same.metrics["short_bits_per_byte"]["value"] == pytest.approx(bits / read)
    assert same.metrics["short_rise"] == {"value": 0.0, "n": 5, "standard_error": 0.0}
    assert forgot.metrics["short_rise"]["value"] > 5
    assert [(gate["gate"], gate["passed"]) for gate in same.gates] == [("short_rise", True), ("context_gain", True)]
    assert [(gate["gate"], gate["passed"]) for gate in forgot.gates] == [("short_rise", False), ("context_gain", True)]


def test_gates_fail_only_beyond_noise() -> None:
    """Two standard errors are given away; without a limit or a value there is no gate."""
    limits = ProbeConfig(short_rise=0.1, context_gain=0.2)
    for rise, gain, error, passed in ((0.11, 0.19, 0.01, True), (0.13, 0.17, 0.01, False), (0.11, 0.19, None, False)):
        metrics = {
            "short_rise": {"value": rise, "n": 9, "standard_error": error},
            "context_gain": {"value": gain, "n": 9, "standard_error": error},
        }
        assert [gate["passed"] for gate in gates_of(limits, metrics)] == [passed, passed]
    assert gates_of(ProbeConfig(short_rise=None, context_gain=None), metrics) == gates_of(limits, {}) == []


def test_packed_sequences_have_the_losses_that_transformers_gives_them_alone(chat_tokenizer: Path) -> None:
    """Sequences of any length, several in a row, an odd number of rows: each as if alone."""
    from transformers import AutoTokenizer

    strong = TINY.model_copy(update={"initializer_range": 0.3})
    model = models.build(strong, AutoTokenizer.from_pretrained(chat_tokenizer), Rope(theta=1e4), 700, seed=1).eval()
    draw = np.random.default_rng(1)
    sequences = [draw.integers(20, 270, size) for size in (700, 2, 350, 340, 699, 5, 600, 100)]
    reader = Reader(Decoder(model, torch.float32, "sdpa", compile=False), 699, Ranks(), CPU, lambda: None)
    losses, hits = reader.read(sequences)
    model.set_attn_implementation("eager")
    for sequence, loss, hit in zip(sequences, losses, hits, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(sequence[None, :-1])).logits[0]
        labels = torch.from_numpy(sequence[1:])
        expected = cross_entropy(logits, labels, reduction="none").double().numpy()
        np.testing.assert_allclose(loss, expected, atol=1e-4)
        assert (hit == (logits.argmax(-1) == labels).numpy()).all()


def test_the_stage_measures_after_every_phase_whatever_the_ranks(
    chat_tokenizer: Path, tokenizer: Artifact, new_place: Callable[..., Place], tmp_path: Path
) -> None:
    """Shards with held-out documents give metrics, gates and plots; two ranks those of one; other sizes no new key."""
    counting_shards(chat_tokenizer, tmp_path)
    sha256 = sha256_file(str(chat_tokenizer / "tokenizer.json"))
    write_folder(tmp_path / "heldout", Index(300, 0, sha256, ("made",), ("en",)), repeating(10))
    from tests.training.conftest import artifact

    shards, chosen = artifact("shard", tmp_path), config(probes=ProbeConfig(needles=0))
    one, two, after = new_place("one"), new_place("two", ranks=2), new_place("after")
    first = pretrain(chosen.run_of(0), shards, tokenizer, None, one)
    other = pretrain(chosen.run_of(0), shards, tokenizer, None, two)
    second = pretrain(chosen.run_of(1), shards, tokenizer, published(one), after)
    for name in ("context_gain", "short_bits_per_byte", "loss/position/0-31"):
        assert other.metrics[name] == pytest.approx(first.metrics[name], rel=1e-4, abs=1e-6)
    assert "short_rise" not in first.metrics and second.metrics["short_rise"]["n"] == 5
    assert [gate["gate"] for gate in second.gates] == ["short_rise", "context_gain"]
    assert Path(after.home, "records", "plot-loss-by-position.json").exists()
    assert config().run_of(1).identity() == chosen.run_of(1).identity()
