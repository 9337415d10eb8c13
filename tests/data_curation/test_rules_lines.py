"""Guarantees of the rule of lines: what is no prose is taken out, whatever it is made of, and nothing else."""

from data_curation.rules.lines import LinesConfig
from data_curation.rules.text import Batch, Text
from data_curation.rules.vocabulary import Vocabulary


def test_lines_are_told_from_prose():
    """Shouting, numbers and counters are taken out, sentences that hold some of each stay."""
    out = ["READ MORE", "12.5 %", "3 likes", "1,204 Views", "5.1k followers", "*** 7 comments ***"]
    stay = ["He READ it to us", "In 1999 it was sold.", "3 likes are few, said he", "—", "the NATO of old"]
    one = "\n".join([*out, *stay])
    batch = Batch([Text(one, "en")], Vocabulary({}))
    rule = LinesConfig()
    (scores,) = rule.measure(batch, False)
    assert batch.texts[0].left == "\n".join(stay)
    lost = sum(len(line.split()) for line in out)
    assert scores["removed_words"] == lost / len(one.split())
    assert rule.judge(scores) == "removed-lines" and rule.passage(batch.texts[0], "removed-lines") == "\n".join(out)
