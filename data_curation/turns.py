"""One chat record of any known format as validated turns, or the named reason why not."""

import json
from typing import Any, cast

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant",
}  # fmt: skip
"""Names of the roles in OpenAI's and ShareGPT's formats."""


class Dropped(Exception):  # noqa: N818  # a verdict, not an error
    """A conversation that cannot be used; the text is the reason, as it is counted."""


def messages_of(raw: dict[str, Any], unanswered: bool = False) -> list[Any]:
    """The conversation in OpenAI's form, from that or from ShareGPT's, Alpaca's, prompt/completion or question/answer
    records (GSM8K); `unanswered` ones may do without the last reply."""
    for name in ("messages", "conversations"):
        if isinstance(raw.get(name), list):
            return with_system(raw, [_renamed(turn) for turn in raw[name]])
    for name, reply in (("instruction", "output"), ("prompt", "completion"), ("question", "answer")):
        if raw.get(name) is not None and (raw.get(reply) is not None or unanswered):
            asked = _instruction(raw) if name == "instruction" else raw[name]
            answered = [] if raw.get(reply) is None else turns_of(raw[reply], "assistant")
            return with_system(raw, [*turns_of(asked, "user"), *answered])
    raise Dropped("unknown format")


def turns_of(said: Any, role: str) -> list[Any]:
    """A list of messages as it is, anything else as the content of one of the role."""
    turns = cast(list[Any], said) if isinstance(said, list) else []
    if any(isinstance(turn, dict) and "role" in turn for turn in turns):
        return turns
    return [{"role": role, "content": said}]


def with_system(raw: dict[str, Any], messages: list[Any]) -> list[Any]:
    """The messages behind the record's own system prompt: its `system`, or the one that SmolTalk2 keeps in
    `chat_template_kwargs.custom_instructions`. One that stands in the messages goes before."""
    messages = [message for message in messages if not _is_empty_system(message)]
    said = raw.get("system")
    said = _kept_apart(raw).get("custom_instructions") if _is_blank(said) else said
    if _is_blank(said) or _role(messages[:1]) == "system":
        return messages
    return [{"role": "system", "content": said}, *messages]


def needs_tools(raw: dict[str, Any]) -> bool:
    """Whether the record lists tools beside its messages: the replies call what our template does not show."""
    apart = _kept_apart(raw)
    return any(map(_are_listed, (raw.get("tools"), apart.get("python_tools"), apart.get("xml_tools"))))


def validated(messages: list[Any], max_turns: int, max_bytes: int) -> list[dict[str, str]]:
    """The turns: an optional system prompt, then user and assistant in turn, the assistant last, none empty."""
    turns = [_turn(message) for message in messages]
    spoken = [turn["role"] for turn in turns[1 if turns and turns[0]["role"] == "system" else 0 :]]
    if "assistant" not in spoken:
        raise Dropped("no assistant turn")
    if spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise Dropped("roles do not alternate from user to assistant")
    if len(turns) > max_turns:
        raise Dropped("more turns than max_turns")
    if sum(len(turn["content"].encode()) for turn in turns) > max_bytes:
        raise Dropped("longer than max_bytes")
    return turns


def _turn(message: Any) -> dict[str, str]:
    if not isinstance(message, dict):
        raise Dropped("unknown format")
    given = cast(dict[str, Any], message)
    role, content = ROLES.get(str(given.get("role"))), given.get("content")
    if role is None:
        raise Dropped("unknown role")
    content = _joined(cast(list[Any], content)) if isinstance(content, list) else content
    if not isinstance(content, str):
        raise Dropped("content is not text")
    if not content.strip():
        raise Dropped("empty turn")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise Dropped("content is not valid Unicode") from None
    return {"role": role, "content": content}


def _joined(parts: list[Any]) -> Any:
    """The text of OpenAI's parts, one behind the other as chat templates show them."""
    named = [cast(dict[str, Any], part) for part in parts if isinstance(part, dict)]
    if any(isinstance(part.get("type"), str) and part["type"] != "text" for part in named):
        raise Dropped("content has parts other than text")
    texts = [part.get("text") for part in named if part.get("type") == "text"]
    return "".join(map(str, texts)) if len(texts) == len(parts) and all(isinstance(x, str) for x in texts) else None


def _instruction(raw: dict[str, Any]) -> Any:
    """Alpaca's instruction with its input below; what is no text is left for `validated` to refuse."""
    said = (raw["instruction"], raw.get("input"))
    texts = [_joined(cast(list[Any], text)) if isinstance(text, list) else text for text in said if text is not None]
    texts = [text for text in texts if text != ""]
    wrong = [text for text in texts if not isinstance(text, str)]
    return wrong[0] if wrong else "\n\n".join(texts)


def _kept_apart(raw: dict[str, Any]) -> dict[str, Any]:
    kept = raw.get("chat_template_kwargs")
    return cast(dict[str, Any], kept) if isinstance(kept, dict) else {}


def _are_listed(tools: Any) -> bool:
    """Whether there are any; sets of one column for all rows write none as "[]" or "null"."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except (ValueError, RecursionError):
            tools = tools.strip()
    return bool(tools)


def _is_empty_system(message: Any) -> bool:
    given = cast(dict[str, Any], message) if isinstance(message, dict) else {}
    return ROLES.get(str(given.get("role"))) == "system" and _is_blank(given.get("content"))


def _is_blank(content: Any) -> bool:
    """Whether a system prompt says nothing."""
    said = _joined(cast(list[Any], content)) if isinstance(content, list) else content
    return content is None or (isinstance(said, str) and not said.strip())


def _role(messages: list[Any]) -> str:
    """The role of the first message, in OpenAI's words."""
    first = cast(dict[str, Any], messages[0]) if messages and isinstance(messages[0], dict) else {}
    return ROLES.get(str(first.get("role")), "")


def _renamed(turn: Any) -> Any:
    """A turn of ShareGPT's `from` and `value` in OpenAI's form; one that has that form stays."""
    given = cast(dict[str, Any], turn) if isinstance(turn, dict) else {}
    if given.get("from") is None:
        return turn
    return {"role": given["from"], "content": given.get("value")}
