"""Chat sources and generated tasks -> validated, unique conversations in splits that share no prompt."""

import hashlib
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from data_curation import exercises
from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.decontaminate import DecontaminateConfig
from data_curation.dialogue_rows import Dialogue, Drops
from data_curation.dialogue_tables import publish
from data_curation.language import Language
from data_curation.place import Place
from data_curation.settings import InputError, Settings
from data_curation.sources.source import Source

SPLITS: tuple[exercises.Split, ...] = ("train", "dev", "test")
KINDS = ("jsonl", "parquet", "hub", "chat-packages")
"""Kinds of sources that hold conversations."""


class Tasks(Settings):
    """How many generated tasks each split gets; the sources' own tasks come beside them."""

    train: int = Field(default=40_000, ge=0)
    """Tasks to learn from."""
    dev: int = Field(default=1_000, ge=0)
    """Tasks on which settings are chosen."""
    test: int = Field(default=1_000, ge=0)
    """Tasks that only the evaluation reads."""


class Near(Settings):
    """When two texts count as nearly equal; MinHash suspects pairs with probability 1 - (1 - s^rows)^bands, and each
    is checked."""

    similarity: float = Field(default=0.8, gt=0, le=1)
    """Least Jaccard index of the two texts' sets of runs of words."""
    ngram: int = Field(default=3, ge=1)
    """Words per run; a shorter text is one run."""
    bands: int = Field(default=20, ge=1, le=100)
    """Bands of the MinHash signature; with 20 of 6 rows, 998 of 1,000 pairs of similarity 0.8 are suspected."""
    rows: int = Field(default=6, ge=1)
    """Hashes per band."""


class NearPrompts(Near):
    """When two prompts count as nearly equal: their sets of words, so that order and a word or two do not matter."""

    similarity: float = Field(default=0.7, gt=0, le=1)
    """Least Jaccard index of the two prompts' sets of runs of words."""
    ngram: int = Field(default=1, ge=1)
    """Words per run: single words, since a prompt of ten words has few runs of more and one edit changes most."""
    bands: int = Field(default=24, ge=1, le=100)
    """Bands of the MinHash signature; with 24 of 5 rows, 988 of 1,000 pairs of similarity 0.7 are suspected."""
    rows: int = Field(default=5, ge=1)
    """Hashes per band."""


class DialoguesConfig(Settings):
    """Which conversations are kept, and how they are split."""

    sources: list[Source] = []
    """Chat sources: packages, JSONL, Parquet or hub datasets of conversations, tasks or preference records. `weight` is
    bytes of a source's conversations relative to the others', after all filters; of its tasks, of its preferences."""
    tasks: Tasks = Tasks()
    """Generated tasks per split; tasks of the sources come beside them."""
    families: list[str] = []
    """Families of generated tasks, drawn in turn; empty takes all."""
    seed: int = 0
    """Seed of the generated tasks and of the order of rows."""
    max_turns: int = Field(default=64, ge=2)
    """Messages of a conversation; longer ones are dropped."""
    max_bytes: int = Field(default=32_000, ge=1)
    """UTF-8 bytes of a conversation's contents; longer ones are dropped."""
    languages: list[Language] = []
    """Languages to keep (stop words are of no use here); empty keeps all."""
    language_characters: int = Field(default=2000, ge=1)
    """Characters at a conversation's start that the language identification reads."""
    repetition: float = Field(default=0.5, ge=0, le=1)
    """Largest share of the replies' runs of 5 words that stood in them before: more is a model that ran in circles. 0
    keeps all."""
    repetition_words: int = Field(default=50, ge=5)
    """Words of the shortest replies, all of a conversation together, that are judged so."""
    near: Near | None = Near()
    """Of conversations of which both what was asked and what was answered are nearly equal the longest stays: other
    replies to one prompt are no repeats. None drops exact repeats alone."""
    near_prompts: NearPrompts | None = NearPrompts()
    """Conversations whose first prompts are nearly equal go to one split; none: those equal but for case, marks and
    space."""
    decontaminate: bool = True
    """Conversations that hold a text of `decontaminate.evaluations`, found by that section's rules, are dropped."""
    max_passes: float = Field(default=1.0, gt=0)
    """Most times that `train` holds a conversation or preference record so that its source reaches its weight; 1 only
    leaves out. Tasks come once at most."""
    dev_share: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of prompt clusters that go to `dev`."""
    test_share: float = Field(default=0.02, ge=0, lt=0.5)
    """Share of prompt clusters that go to `test`."""

    @model_validator(mode="after")
    def _sources_fit(self) -> Self:
        for number, source in enumerate(self.sources):
            if source.kind not in KINDS:
                raise ValueError(f"dialogues.sources[{number}].kind is {source.kind!r}: use one of {', '.join(KINDS)}")
            if source.name in [other.name for other in self.sources[:number]]:
                raise ValueError(f"dialogues.sources[{number}].name is {source.name!r}, as of another: rename one")
            if (source.weight is None) != (self.sources[0].weight is None):
                raise ValueError(
                    f"dialogues.sources[{number}].weight is {source.weight}: give all sources one, or none"
                )
        return self

    def against(self, section: DecontaminateConfig) -> "DialoguesRun":
        """What the stage depends on: the section `decontaminate` is in it only where that names evaluation sets."""
        used = section if self.decontaminate and section.evaluations else None
        return DialoguesRun(**{name: getattr(self, name) for name in DialoguesConfig.model_fields}, evaluations=used)


class DialoguesRun(DialoguesConfig):
    """The settings with the evaluation sets that no conversation may hold a text of."""

    evaluations: DecontaminateConfig | None = None
    """How their texts are found."""


def dialogues(
    config: DialoguesRun, sources: list[Artifact], place: Place, evaluations: list[Artifact] | None = None
) -> Counts:
    """Parts train, dev and test: one table each, chats and tasks mixed in an order drawn from the seed.

    Preference records are the parts `train-preferences` and so on, of the same splits. `evaluations` are the listings
    of `config.evaluations.evaluations`.
    """
    counts, drops = Counts(), Drops()
    tasks = {split: _tasks(config, split) for split in SPLITS}
    found = _conversations(config, sources, evaluations or [], place, counts, drops)
    splits = _split(config, tasks, found, drops)
    counts.funnel = drops.rows()
    if sources and all(len(splits[split]) == len(tasks[split]) for split in SPLITS):
        raise InputError(f"dialogues.sources: none of {counts.taken['conversations']} conversations survived: "
                         f"{drops.text() or 'the files are empty'}")  # fmt: skip
    if all(one.rejected for one, _ in splits["train"]):
        raise InputError("dialogues: the split `train` is empty: raise dialogues.tasks.train or add a source")
    for split in SPLITS:
        publish(place, split, splits[split], config.seed, counts)
    counts.samples += drops.samples()
    return counts


def _conversations(
    config: DialoguesRun, sources: list[Artifact], evaluations: list[Artifact], place: Place, counts: Counts,
    drops: Drops,
) -> list[tuple[Dialogue, int]]:  # fmt: skip
    """What stays of the sources, each with the times that `train` holds it."""
    from data_curation.dialogue_clusters import unique
    from data_curation.dialogue_evaluations import decontaminated
    from data_curation.dialogue_filters import filtered
    from data_curation.dialogue_mix import mixed, taken
    from data_curation.dialogue_records import read

    kept = list(filtered(config, read(config, sources, counts, drops), drops))
    sides = [[one for one in kept if bool(one.rejected) == preferences] for preferences in (False, True)]
    different = [one for side in sides for one in unique(config.near, side, drops)]
    clean = decontaminated(config.evaluations, evaluations, different, place, counts, drops)
    return mixed(config.sources, taken(config.sources, clean, drops), config.max_passes, counts, drops)


def _split(
    config: DialoguesConfig,
    tasks: dict[str, list[Dialogue]],
    found: Sequence[tuple[Dialogue, int]],
    drops: Drops,
) -> dict[str, list[tuple[Dialogue, int]]]:
    """Each conversation in the split of its prompt's cluster; held-out ones once."""
    from data_curation.dialogue_clusters import prompt_names

    owner = {dialogue.prompt: split for split in SPLITS for dialogue in tasks[split]}
    splits = {split: [(task, 1) for task in tasks[split]] for split in SPLITS}
    generated = {task.id for split in SPLITS for task in tasks[split]}
    names = prompt_names(config.near_prompts, [dialogue for dialogue, _ in found])
    for dialogue, times in found:
        split = _split_of(*names[dialogue.prompt], len(found), config)
        if dialogue.id in generated:
            drops.drop("split", "equal to a generated task", dialogue)
        elif owner.get(dialogue.prompt, split) == split:
            splits[split].append((dialogue, times if split == "train" else 1))
        else:
            drops.drop("split", "prompt of a task of another split", dialogue)
    return splits


def _split_of(name: str, size: int, number: int, config: DialoguesConfig) -> exercises.Split:
    """By the hash of the cluster's name; a cluster larger than the held-out share (a template) trains."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    if place < config.test_share:
        split, share = "test", config.test_share
    elif place < config.test_share + config.dev_share:
        split, share = "dev", config.dev_share
    else:
        return "train"
    return split if size <= max(1.0, share * number) else "train"


def _tasks(config: DialoguesConfig, split: exercises.Split) -> list[Dialogue]:
    made = exercises.generate(split, getattr(config.tasks, split), config.seed, config.families)
    return [
        Dialogue(
            "exercises",
            [{"role": "user", "content": one.prompt}, {"role": "assistant", "content": one.answer}],
            one.task,
        )
        for one in made
    ]
