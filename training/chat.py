"""Conversations as token ids, and the contract of template and stop token."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from data_curation.settings import StageError
from data_curation.template_trial import CPU_SECONDS, ends

Messages = Sequence[Mapping[str, str]]
PROBE = ({"role": "user", "content": "Say one."}, {"role": "assistant", "content": "One."})
SHOWN = 80
"""Characters of a conversation's first user turn in an error."""
_SENTINEL = re.compile("\ue000([0-9]+)\ue001")


def encode(tokenizer: Any, messages: Messages, add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
    """Token ids and a mask of equal length: 1 where the assistant speaks, its end-of-turn token included.

    Only the template writes control tokens; those typed inside a content stay text. For contents without any the ids
    equal `tokenizer.apply_chat_template`'s.
    """
    return encode_all(tokenizer, [messages], add_generation_prompt)[0]


def encode_all(
    tokenizer: Any, conversations: Sequence[Messages], add_generation_prompt: bool = False
) -> list[tuple[list[int], list[int]]]:
    """`encode` of many conversations: their texts go to the tokenizer in one batch."""
    rendered = [_named(tokenizer, messages, add_generation_prompt) for messages in conversations]
    texts = [text[start:end] for text, _, runs in rendered for start, end, control in runs if control < 0]
    coded = tokenizer(texts, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True,
                      return_attention_mask=False) if texts else {"input_ids": [], "offset_mapping": []}  # fmt: skip
    tokens = zip(coded["input_ids"], coded["offset_mapping"], strict=True)
    encoded: list[tuple[list[int], list[int]]] = []
    for _, spans, runs in rendered:
        ids: list[int] = []
        mask: list[int] = []
        for start, end, control in runs:
            for token, first, last in [(control, start, end)] if control >= 0 else _placed(*next(tokens), start):
                ids.append(token)
                mask.append(int(any(first < stop and last > begin for begin, stop in spans)))
        encoded.append((ids, mask))
    return encoded


def template_hash(tokenizer: Any) -> str:
    """Hex sha256 of the chat template; it must not change from stage to stage."""
    return hashlib.sha256(_template(tokenizer).encode()).hexdigest()


def check_contract(tokenizer: Any, model_folder: Path) -> str:
    """Stop token of tokenizer, template and generation config agree and are trained; returns the template's hash.

    StageError names the folder, also for a template that does not end or fails.
    """
    try:
        return _checked(tokenizer, model_folder)
    except StageError as error:
        words = str(error)
        raise StageError(words if words.startswith(str(model_folder)) else f"{model_folder}: {words}") from error


def _checked(tokenizer: Any, model_folder: Path) -> str:
    digest = template_hash(tokenizer)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    if eos is None or pad is None or eos == pad:
        raise StageError(f"{model_folder}: eos is {eos} and pad is {pad}: the tokenizer needs both, and they differ")
    if not re.search(r"\{%-?\s*generation\s*-?%\}", tokenizer.chat_template):
        raise StageError(f"{model_folder}: the chat template marks no {{% generation %}}: add it round the answers")
    if not ends(tokenizer.chat_template, tuple(sorted(tokenizer.special_tokens_map.items()))):
        raise StageError(
            f"{model_folder}: the chat template does not come to an end: after {CPU_SECONDS} s it was still at two "
            "short conversations: mend its loops"
        )
    ids, mask = encode(tokenizer, PROBE)
    trained = [token for token, on in zip(ids, mask, strict=True) if on]
    if not trained or trained[-1] != eos:
        last = tokenizer.decode(trained[-1:])
        raise StageError(f"{model_folder}: the last trained token is {last!r}, eos is {tokenizer.eos_token!r}: "
                         "end {% generation %} after the end-of-turn token")  # fmt: skip
    _check_configs(model_folder, eos, len(tokenizer))
    return digest


def _check_configs(model_folder: Path, eos: int, vocabulary: int) -> None:
    path = model_folder / "generation_config.json"
    stop = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
    if stop != eos and stop != [eos]:
        raise StageError(f"{path}: eos_token_id is {stop}, the template ends a turn with {eos}: write {eos} there")
    rows = json.loads((model_folder / "config.json").read_text()).get("vocab_size")
    if rows is None or rows < vocabulary:
        raise StageError(f"{model_folder}/config.json: vocab_size is {rows}, the tokenizer has {vocabulary} tokens")


def _template(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        raise StageError("the tokenizer has no chat template: give one that marks {% generation %}")
    if not isinstance(tokenizer.chat_template, str):
        names = ", ".join(tokenizer.chat_template)
        raise StageError(f"the tokenizer has several chat templates ({names}): give the one to use")
    return tokenizer.chat_template


def _named(tokenizer: Any, messages: Messages, add_generation_prompt: bool) -> Any:
    """`_rendered`, whose errors name the conversation: one among thousands has to be found."""
    try:
        return _rendered(tokenizer, messages, add_generation_prompt)
    except StageError as error:
        first = next((message["content"] for message in messages if message["role"] == "user"), "")
        words = " ".join(first.split())
        shown = words if len(words) <= SHOWN else words[:SHOWN] + "..."
        raise StageError(f"{error}; in the conversation that begins with {shown!r}") from error


def _rendered(
    tokenizer: Any, messages: Messages, add_generation_prompt: bool
) -> tuple[str, list[tuple[int, int]], list[tuple[int, int, int]]]:
    """The rendered text, spans of it that are trained, and consecutive runs (start, end, control token or -1)."""
    template, names = _template(tokenizer), tuple(sorted(tokenizer.special_tokens_map.items()))
    roles = tuple(message["role"] for message in messages)
    skeleton, marked = _skeleton(template, names, roles, add_generation_prompt)
    direct = _render(template, names, [dict(message) for message in messages], add_generation_prompt)[0]
    contents = [message["content"] for message in messages]
    # Some templates trim contents; any other rewriting cannot be followed token by token.
    for texts in (contents, [text.strip() for text in contents]):
        text, places, runs = _filled(skeleton, texts, tokenizer)
        if text == direct:
            return text, [(places(start), places(end)) for start, end in marked], runs
    raise StageError("the chat template rewrites contents: what a user types could not be kept apart from its tokens")


def _filled(skeleton: str, contents: list[str], tokenizer: Any) -> tuple[str, Any, list[tuple[int, int, int]]]:
    text, moved, runs = "", [(0, 0)], list[tuple[int, int, int]]()
    controls = _controls(tuple(tokenizer.all_special_tokens) + _added(tokenizer))
    position = open_run = 0
    for match in [*_SENTINEL.finditer(skeleton), None]:
        stop = match.start() if match else len(skeleton)
        for found in controls.finditer(skeleton, position, stop):
            start, end = len(text) + found.start() - position, len(text) + found.end() - position
            runs += [(open_run, start, -1)] if start > open_run else []
            runs.append((start, end, tokenizer.convert_tokens_to_ids(found.group())))
            open_run = end
        text += skeleton[position:stop]
        if match:
            moved.append((match.start(), len(text)))
            text += contents[int(match.group(1))]
            moved.append((match.end(), len(text)))
            position = match.end()
    runs += [(open_run, len(text), -1)] if len(text) > open_run else []

    def place(offset: int) -> int:
        before, now = max(pair for pair in moved if pair[0] <= offset)
        return now + offset - before

    return text, place, runs


def _placed(ids: list[int], offsets: list[tuple[int, int]], start: int) -> list[tuple[int, int, int]]:
    """Tokens of a run with the characters that each covers; what offsets leave out counts to the token after it."""
    tokens: list[tuple[int, int, int]] = []
    last = start
    for token, (first, stop) in zip(ids, offsets, strict=True):
        tokens.append((token, min(last, start + first), start + stop))
        last = start + stop
    return tokens


@lru_cache(maxsize=512)
def _skeleton(
    template: str, names: tuple[tuple[str, str], ...], roles: tuple[str, ...], add_generation_prompt: bool
) -> tuple[str, list[tuple[int, int]]]:
    marks = [{"role": role, "content": f"\ue000{index}\ue001"} for index, role in enumerate(roles)]
    return _render(template, names, marks, add_generation_prompt)


def _render(
    template: str, names: tuple[tuple[str, str], ...], messages: list[dict[str, str]], add_generation_prompt: bool
) -> tuple[str, list[tuple[int, int]]]:
    special: dict[str, Any] = dict(names)
    try:
        rendered: Any = render_jinja_template(
            conversations=[messages], chat_template=template, return_assistant_tokens_mask=True,
            add_generation_prompt=add_generation_prompt, **special,
        )  # fmt: skip
    except (TemplateError, OverflowError) as error:  # its own complaint, or a loop that the sandbox stopped
        raise StageError(f"the chat template fails: {error}") from error
    except Exception as error:  # a template is a program: it divides by zero, calls itself without end, adds none
        raise StageError(f"the chat template fails: {type(error).__name__}: {error}") from error
    texts, spans = rendered
    return texts[0], [(start, end) for start, end in spans[0]]


@lru_cache(maxsize=16)
def _controls(tokens: tuple[str, ...]) -> re.Pattern[str]:
    # Longest first: a token must not hide one that begins with it.
    return re.compile("|".join(re.escape(token) for token in sorted(set(tokens), key=len, reverse=True)))


def _added(tokenizer: Any) -> tuple[str, ...]:
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
