"""Text with mojibake undone and Unicode in its composed form, everything else as it was."""

import re
import unicodedata
from functools import cache
from typing import Any

_PLAIN = bytes(range(32, 127)) + b"\t\n"
_LIGATURES = "ĲĳŉǱǲǳǄǅǆǇǈǉǊǋǌﬀﬁﬂﬃﬄﬅﬆ"
_BREAKS = "\u2028\u2029\x85"
_CONTROLS = "".join(map(chr, [*range(9), *range(11, 32), 0x7F, *range(0x206A, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFD)]))
_SPECIAL = frozenset(_LIGATURES + _BREAKS + _CONTROLS)
"""Signs that ftfy takes out or replaces wherever they stand."""
_PAIR = re.compile("[^\x00-\x7f]{2,}|[\x80-\x9fÂÃŒœ]")
"""What ftfy takes for badly decoded holds two signs beyond ASCII in a row, or one of these."""
_REACH = 2
"""Signs beside them that it looks at."""


def normalise(text: str) -> str:
    """What ftfy makes of a text: wrongly decoded bytes decoded again, ligatures and line ends plain, NFC.

    Quotation marks, dashes and wide letters stay, and so do entities: whoever writes about `&amp;` means it. Text that
    holds nothing to repair, nearly all of it, is told from the rest at a tenth of ftfy's cost.
    """
    return text if _clean(text) else _ftfy().fix_text(text, _settings())


def _clean(text: str) -> bool:
    """Whether ftfy would leave the text as it is; in doubt it is not."""
    try:
        other = text.encode().translate(None, _PLAIN)
    except UnicodeEncodeError:
        return False
    if not other:
        return True
    if not _SPECIAL.isdisjoint(other.decode()) or not unicodedata.is_normalized("NFC", text):
        return False
    near = [text[max(0, hit.start() - _REACH) : hit.end() + _REACH] for hit in _PAIR.finditer(text)]
    # ftfy looks at each line, and there `^` is the line's start.
    return not (_ftfy().is_bad("\0".join(near)) or "\nÃ " in text or "\nÂ " in text)


@cache
def _ftfy() -> Any:
    import ftfy

    return ftfy


@cache
def _settings() -> Any:
    return _ftfy().TextFixerConfig(
        unescape_html=False, uncurl_quotes=False, fix_character_width=False, normalization="NFC", explain=False
    )
