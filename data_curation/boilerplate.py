"""Which blocks of a page are its text, and which are menus, teasers, notices and other furniture."""

import re
from collections.abc import Sequence

from data_curation.html_blocks import Block


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that begin a short block of furniture, surely or perhaps, and words anywhere in a short notice.
_OPENERS = _words(
    """share follow subscribe subscription sign signup newsletter newsletters related recommended advert advertisement
    advertisements sponsored promoted comment comments copyright © filed tag tags category categories click loading skip
    login log register menu search close cookies cookie accept trending popular source sources via join download caption
    print email e-mail poll polls teilen anzeige werbung kommentar kommentare abonnieren abo partager publicité
    commentaires s'abonner abonnez-vous compartir publicidad comentarios suscríbete compartilhe publicidade comentários
    condividi pubblicità commenti iscriviti delen advertentie reacties реклама поделиться комментарии подписаться
    広告 コメント シェア 分享 评论 广告 相关"""
)
_PERHAPS = _words(
    """read more see also most you don't view watch photo photos image images get back breaking like have report first
    last updated published posted continue story become want what tell by next previous written about leave support our
    latest this mehr lesen auch lire voir leer ver leggi lees читать читайте"""
)
_NOTICES = _words(
    """cookie cookies rights reserved subscribe subscription newsletter newsletters facebook twitter instagram privacy
    terms getty reuters image photo photos photograph bloggers inbox reproduced javascript copyright © app advertisement
    email e-mail signup sign click datenschutz confidentialité privacidad"""
)
_WORD = re.compile(r"[\w'-]+|©")
_SILENT = [""]
_DATE = re.compile(r"(?:19|20)\d\d|\d\d?:\d\d")
_QUOTES = frozenset("\"'\u201c\u2018\u00ab\u201e")
_FULL_SIZE = 300
"""Size from which a block says no more about its neighbours by being larger."""
_LINK = 0.8
"""Share of linked characters above which a block is a link."""
_NOTICE_SIZE, _TITLE_SIZE, _TEASER_SIZE = 200, 80, 60
"""Sizes below which a block can be a notice, a date or a title, and the title of a list of teasers."""
_MARKED = 0.7
"""Share of running text in <p> above which text right in a division is beside the text: a caption or a notice."""
_TRUSTED = 0.5
"""Where less of a page's unlinked text is kept the decision went wrong; on the pages it was fitted on .60 was least."""
_INDEX = 0.3
"""Where less of a page is kept without its lists of links, these are what it is about."""

WEIGHTS = {
    "bias": 0.97,
    "p": 0.94,
    "heading": -0.91,
    "h1": -0.96,
    "ends": 0.97,
    "links": -2.10,
    "linked": -0.56,
    "opener": -1.12,
    "perhaps": -0.91,
    "notice": -1.38,
    "teasers": -1.02,
    "section": -0.94,
    "table": 1.84,
    "before": 1.26,
    "before_links": 0.18,
    "after": 1.02,
    "head": -1.00,
    "foot": -0.61,
    "outside": -1.13,
    "date": -0.76,
    "titled": -1.06,
    "url": 1.73,
    "quote": 0.79,
}
"""Logistic regression, in the order of `scores`: benchmarks/extraction_fit.py, first half of the labelled pages."""


def article(blocks: list[Block]) -> list[Block]:
    """The text of a page with much furniture, such as a news page, by the weighted features of its blocks."""
    kept = [
        block
        for block, score in zip(blocks, scores(blocks, tuple(WEIGHTS.values())), strict=True)
        if score > 0 and (block.ends or block.size >= _TEASER_SIZE or _words_of(block.text)[0] not in _OPENERS)
    ]
    unlinked = [block for block in blocks if block.links <= _LINK]
    if sum(block.size for block in kept) < _TRUSTED * sum(block.size for block in unlinked):
        return unlinked
    return kept


def manual(blocks: list[Block]) -> list[Block]:
    """The text of a page with little furniture, such as a manual's: all but its head, its foot and lists of links."""
    body = next((index for index, block in enumerate(blocks) if block.prose), 0)
    start = next((index for index, block in enumerate(blocks[:body]) if block.heading), body)
    end = max((index for index, block in enumerate(blocks) if _lasting(block)), default=len(blocks) - 1)
    links = [False, *(block.links > _LINK and not block.heading for block in blocks), False]
    kept: list[Block] = []
    dropped, closed = end + 1 < len(blocks), True  # the block after was dropped; no text until the next heading
    for index in range(end, start - 1, -1):
        block = blocks[index]
        titles_links = dropped and closed and block.size < _TEASER_SIZE and not block.ends and block.tag != "h1"
        dropped = titles_links or (links[index + 1] and (links[index] or links[index + 2]))
        if not dropped:
            kept.append(block)
            closed = block.heading
    if sum(block.size for block in kept) < _INDEX * sum(block.size for block in blocks[start:]):
        return blocks[start:]
    return kept[::-1]


def prose(blocks: list[Block]) -> int:
    """The size of all paragraphs."""
    return sum(block.size for block in blocks if block.prose)


def scores(blocks: list[Block], weights: Sequence[float]) -> list[float]:
    """For each block the sum of the weights of what is true of it, above 0 for text."""
    bias, p, head, h1, end, links, linked, opener, perhaps, notice, teaser, furniture, *others = weights
    table, earlier, earlier_links, later, above, below, outside, date, titled, url, quote = others
    first, last, marked = _body(blocks)
    near = [block.size / _FULL_SIZE if block.size < _FULL_SIZE else 1.0 for block in blocks]
    found: list[float] = []
    teasers = section = False
    size_before = links_before = 0.0
    for index, (block, size_after) in enumerate(zip(blocks, [*near[1:], 0.0], strict=True)):
        text, tag, size = block.text, block.tag, block.size
        score = bias + links * block.links + earlier * size_before + earlier_links * links_before + later * size_after
        opens = may_open = False
        if size < _NOTICE_SIZE:
            words = _words_of(text)
            if words[0] in _OPENERS:
                opens = True
                score += opener
            if words[0] in _PERHAPS:
                may_open = True
                score += perhaps
            if not _NOTICES.isdisjoint(words):
                score += notice
            if size < _TITLE_SIZE and (":" in text or "20" in text or "19" in text) and _DATE.search(text):
                score += date
        if opens or may_open or teasers or section:
            teasers, section = _sections(block, opens or may_open, teasers, section)
        if teasers:
            score += teaser
        if section:
            score += furniture
        if tag == "p":
            score += p
        elif block.heading:
            score += head + (h1 if tag == "h1" else 0.0)
            if index + 1 < len(blocks) and blocks[index + 1].prose:
                score += titled
        elif marked and not tag:
            score += outside
        if block.links > _LINK:
            score += linked + (url if text.startswith(("http", "www.")) else 0.0)
        if block.ends:
            score += end
        if "\t" in text:
            score += table
        if index < first:
            score += above
        elif index > last:
            score += below
        if text[:1] in _QUOTES:
            score += quote
        found.append(score)
        size_before, links_before = near[index], block.links
    return found


def _body(blocks: list[Block]) -> tuple[int, int, bool]:
    """The first and the last block of running text, and whether most of it is in <p>."""
    body = [index for index, block in enumerate(blocks) if block.prose and block.tag != "pre"]
    paragraphs = sum(blocks[index].size for index in body if blocks[index].tag == "p")
    marked = paragraphs > _MARKED * sum(blocks[index].size for index in body)
    return (body[0], body[-1], marked) if body else (0, len(blocks) - 1, marked)


def _words_of(text: str) -> list[str]:
    """The words of a block in small letters, or one that is empty."""
    return _WORD.findall(text.lower().replace("\u2019", "'")) or _SILENT


def _sections(block: Block, opens: bool, teasers: bool, section: bool) -> tuple[bool, bool]:
    """Whether a block belongs to a list of teasers, and to a section headed as furniture."""
    if block.heading:
        return False, opens and block.size < _TEASER_SIZE
    if block.size < _TEASER_SIZE:
        return teasers or opens, section
    if block.prose and block.links < 0.2:
        return False, section and block.size < 2 * _TITLE_SIZE
    return teasers, section


def _lasting(block: Block) -> bool:
    """Whether a manual's text may end with it."""
    return block.links < 0.5 and (block.size >= 40 or block.tag in ("p", "li", "pre"))
