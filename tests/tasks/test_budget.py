"""The budget: epochs, long documents, FLOPs and warnings by hand, and a suggestion that raises none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_curation.counts import Counts
from data_curation.shard_index import Index
from data_curation.shard_writer import write_folder
from data_curation.shards import Document
from tasks.artifact import Manifest
from tasks.budget import LONG_SHARE, OPTIMAL_TOKENS, Budget, budget, suggestion, tables
from tasks.page import stage_page
from tasks.run import Run, RunConfig, StageRecord
from tasks.store import Store
from training.mixing import MixConfig
from training.pretrain import ModelConfig, Phase, PretrainConfig

TINY = ModelConfig(family="llama", hidden_size=32, layers=2, heads=2, kv_heads=1, intermediate_size=64)
PARAMETERS = 2 * (32 * 16 * 2 * 3 + 3 * 32 * 64) + 300 * 32


def histogram(**sources: dict[int, int]) -> dict[str, dict[str, list[int]]]:
    """Tokens by power of two of the length, by source; as many documents as fit."""
    return {
        name: {
            "tokens": [some.get(at, 0) for at in range(24)],
            "documents": [some.get(at, 0) // 2**at for at in range(24)],
        }
        for name, some in sources.items()
    }


LENGTHS = histogram(web={8: 600_000, 11: 200_000}, books={13: 200_000})


def config(*phases: tuple[int, int, MixConfig | None], **given: Any) -> PretrainConfig:
    """Phases of (seq_len, tokens, mix)."""
    made = [Phase(seq_len=a, tokens=b, mix=mix or MixConfig(), learning_rate=1e-3) for a, b, mix in phases]
    return PretrainConfig(**{"model": TINY, "tokens_per_step": 8192, "phases": made} | given)


def plan(*phases: tuple[int, int, MixConfig | None], **given: Any) -> Budget:
    """The budget of these phases against LENGTHS and 300 entries."""
    return budget(config(*phases, **given), 300, LENGTHS)


def test_figures_by_hand() -> None:
    """Tokens are of whole steps; FLOPs are 6 a parameter and token, plus attention; epochs sum over the phases."""
    made = plan((512, 1_000_000, None), (2048, 500_000, None))
    assert made.parameters == PARAMETERS
    assert [phase.tokens for phase in made.phases] == [122 * 8192, 61 * 8192]
    assert made.phases[0].flops == 122 * 8192 * 6 * (PARAMETERS + 2 * 32 * 512)
    assert made.flops == sum(phase.flops for phase in made.phases)
    assert made.phases[1].epochs == pytest.approx({"web": 183 * 8192 / 1e6, "books": 183 * 8192 / 1e6})
    assert [phase.long_tokens for phase in made.phases] == [400_000, 400_000]
    assert made.phases[1].long_share == pytest.approx(0.4)
    assert made.warnings == [] and made.unique == 1_000_000


def test_a_long_phase_of_glued_short_documents_is_warned_of() -> None:
    """Unless its mix prefers long ones; the warning names share, length and remedy."""
    short = plan((2048, 1_000_000, None), (8192, 100_000, MixConfig(sources={"web": 9, "books": 1})))
    (warning,) = short.warnings
    assert "pretrain-8k: only 32% of its tokens lie in documents longer than 2,048" in warning
    assert "mix.long_share to 0.34" in warning
    mix = MixConfig(sources={"web": 9, "books": 1}, long_share=0.5, long_tokens=2048)
    assert plan((2048, 1_000_000, None), (8192, 100_000, mix)).warnings == []


def test_repeats_and_a_limit_are_warned_of() -> None:
    """Beyond four epochs, by source; beyond `max_epochs` the words of the refusal that will come."""
    mix = MixConfig(sources={"books": 1})
    assert "'books' are read 5.1 times" in plan((512, 1_030_000, mix)).warnings[0]
    assert "max_epochs is 2, but pretrain-512 would read" in plan((512, 1_030_000, mix), max_epochs=2).warnings[0]
    assert "no source 'code'" in plan((512, 1_030_000, MixConfig(sources={"code": 1}))).warnings[0]


def test_an_end_before_compute_optimal_is_warned_of() -> None:
    """20 tokens a parameter, rule and source named; more tokens silence it."""
    few = OPTIMAL_TOKENS * PARAMETERS // 2
    (warning,) = plan((512, few, None)).warnings
    assert "Hoffmann et al. 2022" in warning and f"{OPTIMAL_TOKENS * PARAMETERS:,}" in warning
    assert plan((512, 2 * few + 8192, None)).warnings == []


@pytest.mark.parametrize("tokens", [(400_000, 300_000, 90_000), (9_000_000, 4_000_000, 2_000_000)])
def test_the_suggestion_raises_no_warning(tokens: tuple[int, int, int]) -> None:
    """Too little for the model, or far too much of too little data: the suggested phases are within all rules."""
    asked = plan((512, tokens[0], None), (4096, tokens[1], None), (8192, tokens[2], None))
    assert asked.warnings
    phases = [(one["seq_len"], one["tokens"], MixConfig(**one.get("mix", {}))) for one in asked.suggestion]
    made = plan(*phases)
    assert [text for text in made.warnings if "are read" not in text] == []
    assert max(made.phases[0].epochs.values()) <= 4
    assert made.phases[0].tokens > sum(phase.tokens for phase in made.phases[1:])
    assert f"long_share: {LONG_SHARE}" in suggestion(asked)


def test_tables_hold_what_there_is_and_what_is_asked() -> None:
    """Tokens by source and in documents of each phase's length and by length; without shards only the phases."""
    made = plan((512, 1_000_000, None), (8192, 500_000, None))
    (there, header, rows), (_, lengths, spread), (title, _, asked) = tables(made, LENGTHS)
    assert there == "Unique tokens" and header[-1] == "in documents of 8,192 or more"
    assert [row[2:] for row in rows] == [["200,000", "200,000", "200,000"], ["800,000", "200,000", "0"]]
    assert lengths == ["source", "256 to 1k", "1k to 4k", "4k to 16k"]
    assert spread == [["books", "0", "0", "200,000"], ["web", "600,000", "200,000", "0"]]
    assert [row[:2] for row in asked] == [["pretrain-512", "999,424"], ["pretrain-8k", "499,712"]]
    assert f"{1_499_136 / PARAMETERS:.2g} tokens for each of {PARAMETERS:,} parameters (20 are" in title
    bare = budget(config((512, 1_000_000, None)), 300, None)
    assert [len(table[2][0]) for table in tables(bare, None)] == [3] and not bare.suggestion


def test_epochs_of_a_phase_that_prefers_long_documents_are_a_range() -> None:
    """By hand: half of 500k tokens from 400k long ones beside half from 600k short ones, after a whole epoch."""
    made = plan((512, 999_424, None), (2048, 499_712, MixConfig(long_share=0.5)))
    most, least = 0.999424 + 249_856 / 400_000, 0.999424 + 249_856 / 600_000
    assert made.phases[1].epochs == pytest.approx({"web": most, "books": most})
    assert made.phases[1].least == pytest.approx({"web": least, "books": most})
    assert tables(made, LENGTHS)[-1][2][1][-1] == f"books {most:.2f}, web {least:.2f} to {most:.2f}"


def test_the_page_of_shard_shows_the_budget(tmp_path: Path) -> None:
    """Unique tokens, what the phases ask for, the warnings and the phases that the data allow."""
    tokens = np.arange(1000, dtype=np.uint32)
    documents = [Document(f"{at}", "web", "en", 1, tokens) for at in range(20)]
    write_folder(tmp_path / "shards", Index(1000, 0, "", ("web",), ("en",)), documents)
    asked = config((64, 32_768, None), (2048, 16_384, None))
    run = Run("toy", {"pretrain": asked.model_dump(mode="json")}, RunConfig(), Store(str(tmp_path / "store")), "make")
    facts: dict[str, Any] = {key: {} for key in ("config", "inputs", "sources", "parts", "packages", "machine")}
    words = dict.fromkeys(("word", "key", "code", "commit", "made", "run"), "shard")
    numbers = {"attempt": 1, "version": 1, "seconds": 1.0, "peak_memory": 1}
    manifest = Manifest(**facts, **words, **numbers, records=[], counts=Counts())
    page = stage_page(StageRecord("shard", "shard", "made", "never made", uri=str(tmp_path), manifest=manifest), run)
    assert "| web | 20 | 20,000 | 20,000 | 0 |" in page
    assert "| pretrain-2k | 16,384 |" in page
    assert "> pretrain-2k: only 0% of its tokens lie in documents longer than 64" not in page
    assert "before the compute-optimal" in page and "- {seq_len: 64, tokens: " in page
