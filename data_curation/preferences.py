"""One preference record of any known format as a prompt with two different replies."""

import math
import random
import re
from typing import Any, cast

from data_curation.turns import Dropped, turns_of, validated, with_system

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def preference_of(raw: dict[str, Any]) -> dict[str, Any] | None:
    """The record with a `chosen` and a `rejected` side, none if it holds no preference (a null is no side).

    Of several rated replies to an `instruction` (UltraFeedback as its authors published it) the best one is chosen and
    one of those rated lower rejected, drawn by the prompt: always the worst would make the pairs easy (Zephyr, Tunstall
    et al. 2023). The ratings are the means of the four aspects, which the set's wrong overall scores do not touch.
    """
    if raw.get("chosen") is not None and raw.get("rejected") is not None:
        return raw
    if "instruction" not in raw or not isinstance(raw.get("completions"), list):
        return None
    rated = _rated(cast(list[Any], raw["completions"]))
    if not rated and "output" in raw:
        return None
    worse = [one for one in rated if one[1] < rated[0][1]]
    if not worse:
        raise Dropped("no reply is rated above another")
    # As bytes a prompt of halves of signs seeds as well: what is wrong with it is said where turns are checked.
    seed = str(raw["instruction"]).encode("utf-8", "surrogatepass")
    (chosen, best), (rejected, lower) = rated[0], random.Random(seed).choice(worse)
    sides = {"prompt": raw["instruction"], "chosen": chosen, "rejected": rejected}
    return sides | {"score_chosen": best, "score_rejected": lower}


def _rated(completions: list[Any]) -> list[tuple[str, float]]:
    """Replies with text and their ratings, the best first: the means of the aspects or, without any, overall scores."""
    replies = [cast(dict[str, Any], one) for one in completions if isinstance(one, dict) and one.get("response")]
    for name in ("fine-grained_score", "overall_score"):
        if rated := [(one["response"], float(one[name])) for one in replies if _is_score(one.get(name))]:
            return sorted(rated, key=lambda one: -one[1])
    return []


def sides_of(raw: dict[str, Any], max_turns: int, max_bytes: int) -> tuple[list[dict[str, str]], str]:
    """The validated conversation with the chosen reply last, and the reply that was rejected.

    Sides are replies (strings, or messages behind `prompt` or, in Orca's pairs, `question`), whole conversations
    (UltraFeedback binarised, Tulu 3, SmolTalk2), or transcripts of "Human:" and "Assistant:" (HH).
    """
    prompt = raw["prompt"] if raw.get("prompt") is not None else raw.get("question")
    chosen, rejected = (
        validated(with_system(raw, _side(raw[name], prompt)), max_turns, max_bytes) for name in ("chosen", "rejected")
    )
    if chosen[:-1] != rejected[:-1]:
        raise Dropped("sides answer different prompts")
    if chosen[-1]["content"].split() == rejected[-1]["content"].split():
        raise Dropped("identical sides")
    return chosen, rejected[-1]["content"]


def margin_of(raw: dict[str, Any]) -> float | None:
    """By which the chosen side was scored higher (UltraFeedback's `score_chosen`), none where it was not."""
    scores = [raw.get(name) for name in ("score_chosen", "score_rejected")]
    if not all(_is_score(score) for score in scores):
        return None
    chosen, rejected = (float(cast(float, score)) for score in scores)
    if chosen < rejected:
        raise Dropped("chosen side has the lower score")
    margin = chosen - rejected
    return margin if math.isfinite(margin) else None


def _is_score(score: Any) -> bool:
    try:
        return isinstance(score, int | float) and math.isfinite(score)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _side(side: Any, prompt: Any) -> list[Any]:
    if isinstance(side, str) and prompt is None:
        return _transcript(side)
    if isinstance(side, str):
        return [*turns_of(prompt, "user"), {"role": "assistant", "content": side}]
    if not isinstance(side, list):
        raise Dropped("unknown format")
    turns = cast(list[Any], side)
    roles = [cast(dict[str, Any], turn).get("role") for turn in turns if isinstance(turn, dict)]
    # A side of one reply stands behind the prompt; one that has a user's turn repeats the prompt itself.
    return [*turns_of(prompt, "user"), *turns] if roles == ["assistant"] and prompt is not None else turns


def _transcript(text: str) -> list[Any]:
    before, *parts = _SPEAKER.split(text)
    if before.strip() or not parts:
        raise Dropped("unknown format")
    return [{"role": _ROLES[name], "content": said.strip()} for name, said in zip(parts[::2], parts[1::2], strict=True)]
