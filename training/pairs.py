"""Chosen and rejected answers: the model's own samples, judged by the verifiers first, and given preferences."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows, write_table
from data_curation.place import Piece, Place
from data_curation.settings import InputError, Settings, StageError, sha256_of
from training import measures
from training.judging import judge, verified

if TYPE_CHECKING:
    from training.answers import Answer

PAIRS = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("task", pa.string()),  # JSON, empty where no verifier judged
        ("given", pa.bool_()),  # a preference record: its sides are in the order of the data
        ("margin", pa.float64()),  # by which the chosen side of one was scored higher, null where nobody scored
    ]
)

PROMPTS = pa.schema([field for field in PAIRS if field.name in ("id", "prompt", "task")])
BIAS = 0.1  # of the mean length: a smaller difference teaches little about length


class PairsConfig(Settings):
    """Settings of `pairs`."""

    samples: int = Field(default=8, ge=2)
    """Answers sampled per train prompt."""
    test_samples: int = Field(default=4, ge=2)
    """Answers sampled per held-out prompt: more prompts measure better than more answers to one."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature; 1 samples from the model's own distribution."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest sampled answer, in tokens; one that is cut there is wrong, whatever stands in it."""
    families: list[str] = Field(default_factory=list)
    """Task families whose prompts are taken; none listed: all. Those left out leave `reinforce` something to teach."""
    prompts: int | None = Field(default=None, ge=0)
    """Task prompts taken from the train part, in its order; none takes all."""
    test_prompts: int | None = Field(default=2000, ge=0)
    """Task prompts taken from the held-out part; none takes all."""
    chat_prompts: int = Field(default=0, ge=0)
    """Chat prompts beside the tasks: chosen = the reply of the data, rejected = a sample; no verifier judges them."""
    preferences: int | None = Field(default=None, ge=0)
    """Preference records of `dialogues` that become train pairs as they are, in their order; none takes all."""
    test_preferences: int | None = Field(default=2000, ge=0)
    """The same of the held-out part."""
    held_out: Literal["dev", "test"] = "test"
    """Part of the dialogues whose prompts make the test pairs."""
    chosen: Literal["sample", "reference", "sample-or-reference"] = "sample"
    """Chosen side: a sample that the verifier accepts, the reference answer, or the reference where no sample is
    right."""
    pairs_per_prompt: int = Field(default=1, ge=1)
    """Most pairs of one train prompt, of other answers where there are enough; a held-out prompt gives one at most, so
    that test pairs are independent."""
    prompts_per_piece: int = Field(default=2048, gt=0)
    """Prompts of one output file; a crash loses at most one file's work."""
    seed: int = 0
    """Seed of the sampling."""


def pairs(config: PairsConfig, model: Artifact, dialogues: Artifact, place: Place) -> Counts:
    """Sample answers to every prompt and pair right with wrong ones; parts `train`, `test` and `prompts`.

    `prompts` are all held-out tasks: those that made pairs hide it when a model unlearns what it always solved.
    """
    train, test = _read(dialogues, "train"), _read(dialogues, config.held_out)
    given, given_test = _read(dialogues, "train-preferences"), _read(dialogues, f"{config.held_out}-preferences")
    known = {prompt_key(row) for row in [*train, *given]}
    fresh, fresh_given = ([row for row in rows if prompt_key(row) not in known] for rows in (test, given_test))
    stale = [row for row in [*test, *given_test] if prompt_key(row) in known]
    ready = {"train": given[: config.preferences], "test": fresh_given[: config.test_preferences]}
    work = [("train", rows) for rows in _pieces(config, _chosen_rows(config, train, config.prompts))]
    asked = _chosen_rows(config, fresh, config.test_prompts)
    work += [("test", rows) for rows in _pieces(config, asked)]
    if not ready["train"] and not any(part == "train" for part, _ in work):
        raise InputError(
            f"{dialogues.name}: part train has no task prompts for pairs and no preference records; "
            "dialogues must generate tasks or read a source of preferences"
        )

    sampler = Sampler(config, model, place)
    progress = place.progress("prompts", sum(len(rows) for _, rows in work))
    counts = Counts(taken={"prompts": sum(len(rows) for _, rows in work)})
    if stale:
        counts.funnel.append(_drop("held-out", "prompt also in train", stale))
    numbers = {"train": 0, "test": 0}
    for part, rows in work:
        name = f"{part}-{numbers[part]:05d}"
        done = place.done(name) or _make(config, sampler, place, name, part, rows)
        numbers[part] += 1
        counts.add(done.counts)
        progress.update(len(rows))
    if place.done("prompts") is None:
        with place.piece("prompts") as piece:
            tasks = {prompt_key(row): row | {"prompt": measures.prompt_of(row)} for row in asked if row["task"]}
            held = [{name: row[name] for name in PROMPTS.names} for row in tasks.values()]
            write_table(piece, "prompts", "prompts.parquet", held, PROMPTS)
    for part, rows in ready.items():
        if rows:
            counts.taken["preferences"] = counts.taken.get("preferences", 0) + len(rows)
            counts.add((place.done(f"{part}-given") or _give(place, part, rows)).counts)
    return _summed(counts, place, config)


def prompt_key(row: dict[str, Any]) -> str:
    """What makes two dialogue rows the same prompt: all turns but the last answer, white space aside."""
    return sha256_of([[turn["role"], " ".join(turn["content"].split())] for turn in row["messages"][:-1]])


class Sampler:
    """Samples answers from the model, which it loads at the first use: a stage of adopted pieces needs no model."""

    def __init__(self, config: PairsConfig, model: Artifact, place: Place) -> None:
        self.config, self.artifact, self.place = config, model, place
        self.loaded: tuple[Any, Any] | None = None

    def __call__(self, rows: Sequence[dict[str, Any]], name: str, k: int) -> list[list["Answer"]]:
        """`k` answers for each row, none where its prompt leaves no room; the seed follows from the piece's name."""
        from training.answers import generate_answers
        from training.chat import check_contract

        if self.loaded is None:
            folder = self.artifact.folder("model", self.place.scratch)
            self.loaded = measures.load_policy(folder, self.place)
            check_contract(self.loaded[1], folder)
        most = self.config.max_new_tokens
        fits = measures.fitting(*self.loaded, [row["messages"][:-1] for row in rows], most)
        asked = [row["messages"][:-1] for row, fit in zip(rows, fits, strict=True) if fit for _ in range(k)]
        seed = int(sha256_of([self.config.seed, name])[:8], 16)
        answers = iter(generate_answers(*self.loaded, asked, most, temperature=self.config.temperature, seed=seed))
        return [[next(answers) for _ in range(k)] if fit else [] for fit in fits]


def _make(
    config: PairsConfig, sampler: Sampler, place: Place, name: str, part: str, rows: list[dict[str, Any]]
) -> Piece:
    made, counts = list[dict[str, Any]](), Counts()
    shares, cut = list[float](), list[float]()
    k = config.samples if part == "train" else config.test_samples
    for row, answers in zip(rows, sampler(rows, name, k), strict=True):
        judged = judge(config, row, answers)
        kept = judged.pairs if part == "train" else judged.pairs[:1]
        cut += [float(not answer.ended) for answer in answers]
        if row["task"] and answers:
            shares.append(len(verified(json.loads(row["task"]), answers)[0]) / len(answers))
        if judged.reason:
            counts.funnel.append(_drop(part, judged.reason, [row]))
        for index, (chosen, rejected) in enumerate(kept):
            made.append(
                {"id": f"{row['id']}-{index}", "prompt": row["messages"][:-1], "chosen": chosen,
                 "rejected": rejected, "task": row["task"], "given": False, "margin": None}
            )  # fmt: skip
    return _written(place, name, part, made, counts, {"right": shares, "cut": cut})


def _give(place: Place, part: str, rows: list[dict[str, Any]]) -> Piece:
    """The preference records as pairs; `dialogues` has refused those whose sides are equal or empty."""
    made = [
        {"id": row["id"], "prompt": row["messages"][:-1], "chosen": row["messages"][-1]["content"],
         "rejected": row["rejected"], "task": "", "given": True, "margin": row["margin"]}
        for row in rows
    ]  # fmt: skip
    return _written(place, f"{part}-given", part, made, Counts(), {"right": [], "cut": []})


def _written(
    place: Place, name: str, part: str, made: list[dict[str, Any]], counts: Counts, note: dict[str, list[float]]
) -> Piece:
    counts.made = {f"{part} pairs": len(made)}
    with place.piece(name) as piece:
        write_table(piece, part, f"{name.removeprefix(part + '-')}.parquet", made, PAIRS)
        merged = Counts()
        merged.add(counts)
        piece.piece.counts = merged
        piece.piece.note = {
            **note,
            "longer": [float(len(pair["chosen"].encode()) - len(pair["rejected"].encode())) for pair in made],
            "size": [float(len(pair["chosen"].encode())) for pair in made],
            "sample": made[:2],
        }
    return piece.piece


def _summed(counts: Counts, place: Place, config: PairsConfig) -> Counts:
    notes = {
        part: [piece.note for piece in place.pieces() if piece.name.startswith(part)] for part in ("train", "test")
    }
    if not counts.made.get("train pairs"):
        reasons = ", ".join(f"{row['reason']}: {row['documents']}" for row in counts.funnel if row["step"] == "train")
        raise StageError(
            f"pairs: no prompt gave a right and a wrong sample ({reasons}); raise pairs.samples or pairs.prompts, "
            "train the model further in instruct, or set pairs.chosen to sample-or-reference"
        )
    for part, some in notes.items():
        counts.metrics[f"{part} sample accuracy"] = measures.mean([x for note in some for x in note["right"]])
        counts.metrics[f"{part} samples cut at max_new_tokens"] = measures.mean([x for one in some for x in one["cut"]])
        longer = measures.mean([x for note in some for x in note["longer"]])
        counts.metrics[f"{part} chosen minus rejected, bytes"] = longer
        size = measures.mean([x for note in some for x in note["size"]])["value"] or 0.0
        bias, error = abs(longer["value"] or 0.0), longer["standard_error"] or 0.0
        if part == "train" and bias > max(2 * error, BIAS * size):
            word = "longer" if longer["value"] > 0 else "shorter"
            counts.warnings.append(
                f"length bias: chosen answers are {bias:.1f} bytes {word} than rejected ones on average"
            )
    if not counts.made.get("test pairs"):
        counts.warnings.append(f"no test pairs: part {config.held_out} gave no prompt with a right and a wrong sample")
    for note in notes["train"][:1]:
        for pair in note["sample"]:
            text = f"{pair['prompt'][-1]['content']}\n+ {pair['chosen']}\n- {pair['rejected']}"
            counts.samples.append({"title": f"pair {pair['id']}", "text": text})
    return counts


def _read(dialogues: Artifact, part: str) -> list[dict[str, Any]]:
    return [row for uri in dialogues.uris(part, ".parquet") for row in read_rows(uri)]


def _chosen_rows(config: PairsConfig, rows: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    usable = [row for row in rows if row["messages"] and row["messages"][-1]["role"] == "assistant"]
    tasks = [row for row in usable if row["task"] and _wanted(config, row)]
    chats = list({row["id"]: row for row in usable if not row["task"]}.values())  # `train` may repeat some
    return tasks[:limit] + chats[: config.chat_prompts]


def _wanted(config: PairsConfig, row: dict[str, Any]) -> bool:
    return not config.families or json.loads(row["task"])["family"] in config.families


def _pieces(config: PairsConfig, rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    size = config.prompts_per_piece
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _drop(step: str, reason: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    size = sum(len(turn["content"].encode()) for row in rows for turn in row["messages"])
    return {"step": step, "reason": reason, "documents": len(rows), "bytes": size}
