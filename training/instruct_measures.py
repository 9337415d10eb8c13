"""What `instruct` is measured by, before and after: held-out tasks and conversations."""

import json
from typing import TYPE_CHECKING, Any

from data_curation.artifact import Artifact
from data_curation.counts import Counts
from data_curation.documents import read_rows
from data_curation.place import Piece, Place
from data_curation.settings import ConfigError
from training import measures
from training.chat_loss import heldout_losses, per_token

if TYPE_CHECKING:
    from training.instruct import InstructConfig

Row = dict[str, Any]


def rows_of(dialogues: Artifact, split: str) -> list[Row]:
    """All rows of one split."""
    return [row for uri in dialogues.uris(split, ".parquet") for row in read_rows(uri)]


def seq_len_of(config: "InstructConfig", model: Any) -> int:
    """Tokens of a row: as set, if the model can read so many, else its whole context."""
    context = int(model.config.max_position_embeddings)
    if config.seq_len is not None and config.seq_len > context:
        raise ConfigError(f"instruct.seq_len is {config.seq_len}: the model's context has {context} tokens; lower it")
    return config.seq_len or context


def held_out(
    config: "InstructConfig", model: Any, tokenizer: Any, dialogues: Artifact, counts: Counts
) -> dict[str, list[Row]]:
    """Held-out tasks and conversations that the model can read and answer; the others are counted."""
    from training.chat import encode_all

    rows = rows_of(dialogues, config.held_out)
    tasks = [row for row in rows if row["kind"] == "task"][: config.held_out_tasks]
    tasks = measures.answerable(model, tokenizer, tasks, config.max_new_tokens, counts, "held-out")
    chats = [row for row in rows if row["kind"] == "chat"]
    encoded = encode_all(tokenizer, [row["messages"] for row in chats])
    seq_len = seq_len_of(config, model)
    short = [row for row, (ids, _) in zip(chats, encoded, strict=True) if len(ids) <= seq_len]
    if len(short) < len(chats):
        number = len(chats) - len(short)
        counts.funnel.append({"step": "held-out", "reason": "longer than seq_len", "documents": number, "bytes": 0})
    return {"tasks": tasks, "chats": short[: config.held_out_chats]}


def measured(
    config: "InstructConfig", place: Place, when: str, model: Any, tokenizer: Any, held: dict[str, list[Row]]
) -> Piece:
    """A piece whose note holds {"solved": 0 or 1 a task, "answers", "losses": [nats, trained tokens] a chat}."""
    from training.answers import generate_answers

    prompts = [row["messages"][:-1] for row in held["tasks"]]
    answers = generate_answers(model, tokenizer, prompts, config.max_new_tokens)
    with place.piece(when) as piece:
        piece.piece.note = {
            "solved": [
                measures.solved(row["task"], answer) for row, answer in zip(held["tasks"], answers, strict=True)
            ],
            "answers": [answer.text for answer in answers],
            "losses": heldout_losses(model, tokenizer, [row["messages"] for row in held["chats"]]),
        }
    return piece.piece


def report(counts: Counts, before: Row, after: Row, held: dict[str, list[Row]]) -> None:
    """Metrics, gates and samples from the notes of both moments."""
    for when, note in (("before", before), ("after", after)):
        counts.metrics[f"task accuracy {when}"] = measures.mean(note["solved"])
        counts.metrics[f"conversation loss {when}"] = per_token(note["losses"])
    families: dict[str, list[float]] = {}
    for row, solved in zip(held["tasks"], after["solved"], strict=True):
        families.setdefault(_family(row), []).append(solved)
    for name, values in sorted(families.items()):
        counts.metrics[f"accuracy of {name}"] = measures.mean(values)
    gain = measures.difference(after["solved"], before["solved"])
    counts.gates.append(measures.gate("task accuracy gained, above 0 by 2 standard errors", gain, 0.0, errors=2))
    if held["chats"]:
        # A conversation each, whatever its length, so that the pairs' standard error is the usual one.
        old, new = ([nats / max(1, number) for nats, number in note["losses"]] for note in (before, after))
        fallen = measures.difference(old, new)
        counts.gates.append(
            measures.gate("conversation loss fallen, above 0 by 2 standard errors", fallen, 0, errors=2)
        )
    for row, old, new in list(zip(held["tasks"], before["answers"], after["answers"], strict=True))[:5]:
        text = f"user: {row['messages'][0]['content']}\nbefore: {old}\nafter: {new}"
        counts.samples.append({"title": f"held-out task, {_family(row)}", "text": text})


def _family(row: Row) -> str:
    return str(json.loads(row["task"])["family"])
