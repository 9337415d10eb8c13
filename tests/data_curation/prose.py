"""Generated prose in three languages, and web pages around it; every text follows from its number."""

import random

_WORDS = {
    "en": {
        "adjective": "old young patient honest new tired quiet wooden heavy broken unusual silver dry narrow green"
        " early bitter gentle hollow famous empty golden crooked careful sudden warm strange proud simple rusty",
        "person": "gardener teacher doctor neighbour captain baker librarian traveller farmer painter singer judge"
        " sailor widow miller soldier uncle merchant pupil shepherd tailor guest hunter poet carpenter mayor",
        "verb": "carried painted described repaired discovered measured remembered collected examined promised borrowed"
        " watched ignored followed admired sold mentioned covered needed opened",
        "thing": "bridge basket clock story letter map lantern branch wall coin boat window kitchen river hat orchard"
        " mirror ladder barrel tower blanket garden harbour road candle violin stove field drawer cart",
        "link": "because while although until before after when since",
        "pattern": "the A P V the A T L the P V that T of the A P|L a A P V the T, the A P V a T with the A T"
        "|to the A T came a A P, and the P V the T of that A P|the P that V the A T was not the A P of the T"
        "|a T and a A T have to be with the P L the A P V it|in the A T the P V what the A P of the T V",
    },
    "de": {
        "adjective": "alte junge müde ehrliche neue stille schwere seltsame dunkle warme fremde kleine große leere",
        "person": "Lehrerin Ärztin Nachbarin Bäckerin Sängerin Bäuerin Malerin Köchin Richterin Tante Schülerin Gräfin",
        "verb": "beschrieb bemalte fand suchte kaufte sammelte prüfte zeigte vergaß öffnete bedeckte brauchte",
        "thing": "Brücke Uhr Geschichte Karte Laterne Mauer Münze Küche Leiter Tür Straße Kerze Insel Decke Schachtel",
        "link": "weil während obwohl bis bevor nachdem als",
        "pattern": "die A P V die A T, L die P nicht mit der T kam|L die A P von der T kam, V die P eine A T"
        "|und die P V das nicht, L die A T zu der A P kam|in der Stadt V die A P eine T und die A T",
    },
    "sv": {
        "adjective": "gamla unga trötta ärliga nya tysta tunga mörka varma främmande lilla stora tomma vackra",
        "person": "läkaren grannen bagaren sångaren bonden målaren kocken domaren eleven sjömannen",
        "verb": "beskrev målade hittade sökte köpte samlade visade glömde öppnade behövde",
        "thing": "bron klockan berättelsen kartan lyktan muren myntet köket stegen dörren vägen ljuset ön",
        "link": "eftersom medan fastän innan när",
        "pattern": "den A P V den A T L den A P inte V det|L P V den A T, så V den A P också T och T",
    },
}
_SLOTS = {"A": "adjective", "P": "person", "V": "verb", "T": "thing", "L": "link"}


def sentence(number: int, language: str = "en") -> str:
    """One sentence of about fifteen words; equal numbers give equal sentences, others no long run in common."""
    draw, words = random.Random(f"{language} {number}"), _WORDS[language]
    pattern = draw.choice(words["pattern"].split("|")).replace(",", " ,").split()
    drawn = [draw.choice(words[_SLOTS[word]].split()) if word in _SLOTS else word for word in pattern]
    text = " ".join(drawn).replace(" ,", ",")
    return text[0].upper() + text[1:] + "."


def paragraphs(number: int, language: str = "en", count: int = 5, length: int = 4) -> list[str]:
    """Paragraphs of a document, all of its own."""
    start = number * 1000
    return [
        " ".join(sentence(start + row * length + column, language) for column in range(length)) for row in range(count)
    ]


def text(number: int, language: str = "en", count: int = 5) -> str:
    """A document's text: paragraphs with blank lines between them."""
    return "\n\n".join(paragraphs(number, language, count))


def page(number: int, language: str = "en", count: int = 5) -> bytes:
    """A web page with navigation, a title and that text."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs(number, language, count))
    menu = "".join(f'<li><a href="/{item}">Item {item}</a></li>' for item in range(8))
    return (
        f'<!DOCTYPE html><html lang="{language}"><head><meta charset="utf-8"><title>Page {number}</title></head>'
        f"<body><nav><ul>{menu}</ul></nav><main><h1>Page {number}</h1>{body}</main>"
        "<footer>Imprint</footer></body></html>"
    ).encode()
