"""The examples as a part of the page: players, and lines of words that play from where they are spoken."""

from __future__ import annotations

from asr_distill.report.figures import size
from asr_distill.report.page.audio import data_url
from asr_distill.report.page.choice import FIXED, LEAST_WORDS, SPOILT
from asr_distill.report.page.examples import Example, Examples, Line, Token
from asr_distill.report.page.markup import Content, Html, join, tag
from asr_distill.report.page.sections import section

KINDS = {"S": "substituted", "I": "inserted", "D": "deleted"}
CLASSES = {"": None, "S": "sub", "I": "ins", "D": "del"}


def examples_section(examples: Examples) -> Html:
    """Or one line that says why there are none."""
    if not examples.items:
        return section("examples", "Examples", tag("p", examples.reason, class_="note"))
    cards = []
    for number, item in enumerate(examples.items, 1):
        rank = sum(other.kind == item.kind for other in examples.items[:number])
        cards.append(_card(number, item, "" if rank == 1 else f" ({rank})"))
    return section("examples", "Examples", *_about(examples), _marks(), *cards)


def _about(examples: Examples) -> list[Html]:
    kinds = {item.kind for item in examples.items}
    compared = "where it differs most from the baseline for the better and for the worse, " \
        if kinds & {FIXED, SPOILT} else ""
    missing = f" {examples.left_out} more were chosen but are over the limit or could not be read." \
        if examples.left_out else ""
    times = "Words play from where the exported student's forced alignment puts them" if examples.aligned else \
        "Word times are guesses where marked: the words' letters spread evenly over the recording"
    return [tag("p", f"{len(examples.items)} utterances of {examples.split}, chosen by rule from the errors "
                     f"of {examples.subject}, in turn: {compared}its worst, median and best by word error rate "
                     f"(of at least {LEAST_WORDS} words). {size(examples.bytes)} of audio are part of this page."
                     f"{missing}"),
            tag("p", f"{times}. Arrow keys go from word to word, Enter plays.", class_="note screen")]


def _marks() -> Html:
    """What the marks mean, each shown as it is used."""
    shown = [("S", "heard", "said"), ("I", "heard", ""), ("D", "", "said")]
    return tag("ul", *(tag("li", tag("span", _inside(Token(mark, word, reference, 0, 0)),
                                     class_=f"word {CLASSES[mark]}"), f" {KINDS[mark]}")
                       for mark, word, reference in shown), class_="legend marks")


def _card(number: int, example: Example, rank: str) -> Html:
    identity = f"example-{number}"
    guessed = not all(line.aligned for line in example.lines)
    about = f"{example.id}, {example.seconds:.1f} s" + (", word times guessed" if guessed else "")
    player = tag("audio", controls=True, preload="metadata", src=data_url(example.flac),
                 aria_label=f"Recording of {example.id}")
    return tag("article", tag("h3", f"{number}. {example.kind.capitalize()}{rank}", " ", tag("small", about),
                              id=f"{identity}-heading"),
               player, *(_line(line) for line in example.lines), class_="example", id=identity,
               aria_labelledby=f"{identity}-heading")


def _line(line: Line) -> Html:
    reference = line.system == "reference"
    note = _counted(len(line.tokens), "word") if reference else _errors(line)
    words = [_word(token, first=at == 0) for at, token in enumerate(line.tokens)] or [tag("em", "nothing")]
    return tag("div", tag("div", tag("b", line.system), " ", tag("span", note), class_="who"),
               tag("div", *_spaced(words), class_="said", role="group", aria_label=f"{line.system}: {note}"),
               class_="row")


def _word(token: Token, *, first: bool) -> Html:
    """One stop of the Tab key a line; arrow keys reach the others (page.js)."""
    spoken = {"": None, "S": f"{token.word}, substituted for {token.reference}", "I": f"{token.word}, inserted",
              "D": f"{token.reference}, deleted"}[token.mark]
    return tag("button", _inside(token), type="button", class_=" ".join(filter(None, ["word", CLASSES[token.mark]])),
               aria_label=spoken, data_at=f"{token.start:.3f}", data_until=f"{token.end:.3f}",
               tabindex=0 if first else -1)


def _inside(token: Token) -> Html:
    """The word; of a wrong one the letter of its kind, and what was said struck through."""
    if not token.mark:
        return join(token.word)
    parts: list[Content] = [tag("sup", token.mark)]
    if token.word:
        parts.append(tag("span", token.word, class_="heard"))
    if token.reference:
        parts.append(tag("s", token.reference))
    return join(*_spaced(parts))


def _errors(line: Line) -> str:
    total = sum(line.counts.values())
    if not total:
        return "no error"
    kinds = ", ".join(f"{count} {KINDS[mark]}" for mark, count in line.counts.items() if count)
    return f"{_counted(total, 'error')} ({kinds})"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _spaced(parts: list[Html] | list[Content]) -> list[Content]:
    """A space between neighbours: what is copied or read aloud keeps its words apart."""
    return [piece for part in parts for piece in (part, " ")][:-1]
