"""A tiny chat tokenizer, a tiny Llama and tiny artifacts for the tests of training."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_curation.artifact import Artifact, Part
from data_curation.files import File
from data_curation.place import Place, Resources

if not Path("/dev/nvidiactl").exists():  # asked before torch or Triton are imported, which read this once
    os.environ.setdefault("TRITON_INTERPRET", "1")  # numpy runs Triton's kernels, one program after the other

TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if not loop.first -%}{{ '\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{%- else -%}{{ message['content'] + '<|im_end|>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\n<|im_start|>assistant\n' }}{%- endif -%}"
)
DIALOGUES = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("kind", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("task", pa.string()),
    ]
)


def sums(start: int, stop: int) -> list[dict[str, Any]]:
    """Dialogue rows "Add 3 and 4." -> "7": the pairs (a, b) of digits number `start` to `stop`, in a mixed order."""
    rows: list[dict[str, Any]] = []
    for index in range(start, stop):
        a, b = divmod(index * 37 % 100, 10)
        question = {"role": "user", "content": f"Add {a} and {b}."}
        answer = {"role": "assistant", "content": str(a + b)}
        task = {"family": "sums", "checker": "number", "answer": str(a + b)}
        rows.append(
            {
                "id": f"sum-{index}",
                "source": "exercises",
                "kind": "task",
                "messages": [question, answer],
                "task": json.dumps(task),
            }
        )
    return rows


def coins(start: int, stop: int) -> list[dict[str, Any]]:
    """Dialogue rows "Coin 17?" -> "yes" or "no" in turn; the verifier accepts "yes" alone."""
    task = json.dumps({"family": "coins", "checker": "exact", "answer": "yes"})
    return [
        {
            "id": f"coin-{index}",
            "source": "exercises",
            "kind": "task",
            "messages": [
                {"role": "user", "content": f"Coin {index}?"},
                {"role": "assistant", "content": ("yes", "no")[index % 2]},
            ],
            "task": task,
        }
        for index in range(start, stop)
    ]


def parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """The rows as the bytes of one Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), out)
    return out.getvalue()


def artifact(name: str, home: Path, parts: dict[str, dict[str, bytes]] | None = None) -> Artifact:
    """An artifact of files: those given (written below `home`) and those that lie there already, a folder a part."""
    for part, contents in (parts or {}).items():
        for path, data in contents.items():
            target = home / part / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    found: dict[str, Part] = {}
    for folder in sorted(path for path in home.iterdir() if path.is_dir()):
        files = [
            File(
                path.relative_to(folder).as_posix(), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        found[folder.name] = Part(tuple(files))
    return Artifact(name, str(home), found, key=name)


@pytest.fixture(scope="session")
def chat_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a byte-level BPE of 300 tokens with the project's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(["Add and.", "user\n", "assistant\n", "system\n"] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(chat_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Artifact with part `model`: an untrained Llama of 50k parameters, its tokenizer and generation_config."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(chat_tokenizer)
    home = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )  # fmt: skip
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(home / "model")
    for path in chat_tokenizer.iterdir():
        (home / "model" / path.name).write_bytes(path.read_bytes())
    return artifact("tiny", home)


@pytest.fixture(scope="session")
def coin_model(tiny_model: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Artifact with part `model`: the tiny model, taught to answer `coins` with "yes" half of the time, then stop."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from training.chat import encode_all
    from training.trainers import save_model

    source = Path(tiny_model.uri("model"))
    tokenizer = AutoTokenizer.from_pretrained(source)
    model: Any = AutoModelForCausalLM.from_pretrained(source)
    # Both answers to every question, so that no question predicts its answer.
    both = [
        [row["messages"][0], {"role": "assistant", "content": answer}]
        for row in coins(0, 100)
        for answer in ("yes", "no")
    ]
    coded = encode_all(tokenizer, both)
    width = max(len(ids) for ids, _ in coded)
    ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in coded])
    labels = torch.tensor(
        [[t if on else -100 for t, on in zip(*row, strict=True)] + [-100] * (width - len(row[0])) for row in coded]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        model(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    home = tmp_path_factory.mktemp("coin")
    save_model(model, source, home / "model", tokenizer.eos_token_id, tokenizer.pad_token_id)
    return artifact("coin", home)


@pytest.fixture
def new_place(tmp_path: Path) -> Callable[..., Place]:
    """A maker of fresh places: `new_place("first")`, on the CPU with one thread."""

    def make(name: str = "attempt", **resources: Any) -> Place:
        scratch = tmp_path / f"{name}-scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        given = Resources(**{"device": "cpu", "threads": 1, "log_seconds": 1e9, **resources})
        return Place(str(tmp_path / name), scratch, given, name)

    return make


@pytest.fixture
def pairs(tmp_path: Path) -> Artifact:
    """ "yes" before "no" on coin prompts: 96 pairs to train, 40 held out."""
    from training.pairs import PAIRS, PROMPTS

    made = [
        {"id": row["id"], "prompt": row["messages"][:1], "chosen": "yes", "rejected": "no", "task": row["task"]}
        for row in coins(100, 240)
    ]
    parts = {"train": made[:96], "test": made[100:]}
    files = {part: {"00000.parquet": parquet(rows, PAIRS)} for part, rows in parts.items()}
    files["prompts"] = {"prompts.parquet": parquet([{k: row[k] for k in PROMPTS.names} for row in made[100:]], PROMPTS)}
    return artifact("pairs", tmp_path / "pairs", files)


@pytest.fixture
def unfit(tmp_path: Path) -> Artifact:
    """A reward model that must not be used: its part `model` would not even load."""
    files = {"model": {"config.json": b"{}"}, "verdict": {"verdict.json": b'{"fit": false}'}}
    return artifact("reward", tmp_path / "reward", files)


@pytest.fixture(scope="session")
def tokenizer(chat_tokenizer: Path) -> Artifact:
    """The tiny tokenizer as an artifact."""
    return artifact("tokenizer", chat_tokenizer.parent)


@pytest.fixture(scope="session")
def shards(chat_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Shards of counting documents, made with the tiny tokenizer."""
    from tests.training.phases import counting_shards  # which takes from this module

    return counting_shards(chat_tokenizer, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of one epoch of 131,072 tokens in documents of many lengths."""
    from tests.training.numbered import shards, sizes_of

    return shards(tmp_path_factory.mktemp("shards"), sizes_of(1 << 17), ("web", "books", "code"), number=5)
