"""One chat record of any known format as validated turns, or the named reason why not."""

from typing import Any, cast

ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
"""Names of the roles in OpenAI's and ShareGPT's formats."""


class Dropped(Exception):  # noqa: N818  # a verdict, not an error
    """A conversation that cannot be used; the text is the reason, as it is counted."""


def messages_of(raw: dict[str, Any]) -> list[Any]:
    """The conversation in OpenAI's form, from that or from ShareGPT's, Alpaca's, prompt/completion or question/answer
    records (GSM8K)."""
    if isinstance(raw.get("messages"), list):
        return with_system(raw, raw["messages"])
    if isinstance(raw.get("conversations"), list):
        return [_renamed(turn) for turn in raw["conversations"]]
    if "instruction" in raw and "output" in raw:
        asked = "\n\n".join(str(text) for text in (raw["instruction"], raw.get("input")) if text)
        system = [{"role": "system", "content": raw["system"]}] if raw.get("system") else []
        return [*system, *_pair(asked, raw["output"])]
    if "prompt" in raw and "completion" in raw:
        prompt, completion = raw["prompt"], raw["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            return [*cast(list[Any], prompt), *cast(list[Any], completion)]
        return _pair(prompt, completion)
    if "question" in raw and "answer" in raw:
        return _pair(raw["question"], raw["answer"])
    raise Dropped("unknown format")


def with_system(raw: dict[str, Any], messages: list[Any]) -> list[Any]:
    """The messages behind the system prompt that SmolTalk2 keeps in `chat_template_kwargs.custom_instructions`."""
    said = _kept_apart(raw).get("custom_instructions")
    if not isinstance(said, str) or not said.strip() or _role(messages[:1]) == "system":
        return messages
    return [{"role": "system", "content": said}, *messages]


def needs_tools(raw: dict[str, Any]) -> bool:
    """Whether the record lists tools beside its messages: the replies call what our template does not show."""
    apart = _kept_apart(raw)
    return any((raw.get("tools"), apart.get("python_tools"), apart.get("xml_tools")))


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
    if not isinstance(content, str):
        raise Dropped("content is not text")
    if not content.strip():
        raise Dropped("empty turn")
    try:
        content.encode()
    except UnicodeEncodeError:
        raise Dropped("content is not valid Unicode") from None
    return {"role": role, "content": content}


def _kept_apart(raw: dict[str, Any]) -> dict[str, Any]:
    kept = raw.get("chat_template_kwargs")
    return cast(dict[str, Any], kept) if isinstance(kept, dict) else {}


def _role(messages: list[Any]) -> str:
    return str(cast(dict[str, Any], messages[0]).get("role")) if messages and isinstance(messages[0], dict) else ""


def _renamed(turn: Any) -> Any:
    if not isinstance(turn, dict):
        return turn
    given = cast(dict[str, Any], turn)
    return {"role": given.get("from"), "content": given.get("value")}


def _pair(asked: Any, answered: Any) -> list[Any]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
