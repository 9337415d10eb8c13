"""A tokenizer's folder: written by hand, copied from a folder or a hub, made fit for chat, checked."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_curation.encoding import SEPARATOR, Encoder
from data_curation.settings import ConfigError, InputError
from data_curation.template_trial import CPU_SECONDS, ends

END_OF_TURN, PAD = "<|im_end|>", "<|pad|>"
SPECIAL = [SEPARATOR, "<|im_start|>", END_OF_TURN, PAD, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
HUB = "hub://"
NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt"),
)
# The newline stands before the NEXT turn, so that the last token an answer is trained on is the end of the turn.
TEMPLATE = """\
{%- for message in messages -%}
{{- ('' if loop.first else '\\n') + '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\\n<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def given(path: str, setting: str) -> list[Path]:
    """The tokenizer files of a folder or of hub://OWNER/NAME[@REVISION]; weights that lie beside them stay there."""
    folder = fetched(path, setting, NAMES) if path.startswith(HUB) else Path(path)
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if not any(file.name == "tokenizer.json" for file in found):
        raise ConfigError(f"{setting}: no tokenizer.json in {path}; give a folder or hub name with a fast tokenizer")
    return found


def fetched(path: str, setting: str, patterns: Sequence[str], cached: bool = True) -> Path:
    """The files of hub://OWNER/NAME[@REVISION] that match; a commit that is `cached` here needs no network.

    Such a snapshot may hold what others have asked of it alone.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    name, _, revision = path.removeprefix(HUB).partition("@")
    try:
        if cached and re.fullmatch("[0-9a-f]{40}", revision):  # a commit never changes
            with suppress(LocalEntryNotFoundError):
                return Path(snapshot_download(name, revision=revision, local_files_only=True))
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:  # the network's errors come in the classes of several libraries
        words = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise ConfigError(f"{setting}: {path} could not be fetched ({words}); correct it or give a folder") from error


def write_folder(folder: Path, made: str) -> None:
    """A plain AutoTokenizer folder from the text of tokenizer.json."""
    # Written by hand, not by save_pretrained: no release of transformers may change the bytes.
    (folder / "tokenizer.json").write_text(made, encoding="utf-8")
    write_chat(folder, SEPARATOR)


def write_chat(folder: Path, separator: str) -> None:
    """The settings and the template by which a tokenizer that has our special tokens is used for chat."""
    settings = {
        "bos_token": separator,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "extra_special_tokens": [token for token in SPECIAL if token not in (SEPARATOR, END_OF_TURN, PAD)],
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (folder / "special_tokens_map.json").unlink(missing_ok=True)


def add_chat(folder: Path) -> None:
    """Give a tokenizer the special tokens that it lacks, as new entries at its end, and our template."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    added = {token["content"]: token for token in data["added_tokens"]}
    model = data["model"]["vocab"]
    known = model if isinstance(model, dict) else {entry[0]: at for at, entry in enumerate(model)}
    following = 1 + max([*known.values(), *(token["id"] for token in added.values())])
    for name in SPECIAL:
        if name not in added:
            number = known.get(name, following)
            following += number == following
            flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            data["added_tokens"].append({"id": number, "content": name, **flags, "special": True})
        else:
            added[name]["special"] = True
    data["added_tokens"].sort(key=lambda token: token["id"])
    path.write_text(json.dumps(data, ensure_ascii=False, indent=2), encoding="utf-8")
    loaded = Tokenizer.from_file(str(path))
    for token in data["added_tokens"]:
        if loaded.token_to_id(token["content"]) != token["id"]:
            raise InputError(
                f"{folder}: {token['content']} would be {loaded.token_to_id(token['content'])} and not {token['id']}: "
                "its numbers have holes, so no token can be added"
            )
    write_chat(folder, SEPARATOR)


def check_contract(folder: Path) -> None:
    """Refuse a tokenizer whose chat template or special tokens would spoil training later on."""
    from transformers import AutoTokenizer

    made: Any = AutoTokenizer.from_pretrained(str(folder))
    names = tuple(sorted((name, str(token)) for name, token in made.special_tokens_map.items()))
    if isinstance(made.chat_template, str) and not ends(made.chat_template, names):
        raise InputError(f"{folder}: its chat template does not come to an end within {CPU_SECONDS} s: mend its loops")
    if made.eos_token is None or made.pad_token is None or made.pad_token == made.eos_token:
        raise InputError(f"{folder}: eos_token is {made.eos_token!r}, pad_token {made.pad_token!r}; two are needed")
    if not made.chat_template or "generation" not in made.chat_template:
        raise InputError(f"{folder}: its chat template needs {{% generation %}} markers around the assistant's words")
    turns = [{"role": role, "content": "a"} for role in ("system", "user", "assistant", "user", "assistant")]
    found = made.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    trained = [token for token, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    if not trained or trained[-1] != made.eos_token_id:
        last = made.convert_ids_to_tokens(trained[-1:])
        raise InputError(f"{folder}: the last trained token of a conversation is {last}, not eos {made.eos_token!r}")
    Encoder(folder, fast=False)
