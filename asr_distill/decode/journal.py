"""What decoding has found, a line an utterance, so that a killed run goes on where it stopped.

hypotheses.jsonl holds the best words. nbest.jsonl, where n best were asked for: {"id", "words" (one string a path),
"graph_costs", "acoustic_costs"}; it is written first, so every utterance of the former is in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO, TypeVar

from asr_distill.decode.decoder import Hypothesis, NbestPath
from asr_distill.errors import UserError
from asr_distill.files import write_text

JOURNAL = "hypotheses.jsonl"
NBEST = "nbest.jsonl"
Entry = TypeVar("Entry")


class Journals:
    """Appends to both files of a folder; opened after `read_hypotheses(repair=True)`."""

    def __init__(self, work: Path, *, with_paths: bool):
        self._files = ExitStack()
        if with_paths:
            _whole_lines(work / NBEST, repair=True)
            self._nbest = self._files.enter_context(open(work / NBEST, "a", encoding="utf-8"))
        self._hypotheses = self._files.enter_context(open(work / JOURNAL, "a", encoding="utf-8"))
        self._with_paths = with_paths

    def __enter__(self) -> Journals:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def append(self, hypothesis: Hypothesis, paths: Sequence[NbestPath]) -> None:
        if self._with_paths:
            _write(self._nbest, {"id": hypothesis.id, "words": [" ".join(path.words) for path in paths],
                                 "graph_costs": [round(path.graph_cost, 4) for path in paths],
                                 "acoustic_costs": [round(path.acoustic_cost, 3) for path in paths]})
        _write(self._hypotheses, dataclasses.asdict(hypothesis))


def read_hypotheses(path: Path, *, repair: bool = False) -> list[Hypothesis]:
    """The hypotheses of a journal; none where it does not exist. A torn last line (the writer was killed) is left out,
    and with `repair` also cut from the file. Raises UserError for any other damage.
    """
    return _read_lines(path, _hypothesis, repair=repair)


def write_hypotheses(path: Path, hypotheses: Sequence[Hypothesis]) -> None:
    """A whole journal at once."""
    write_text(path, "".join(_line(dataclasses.asdict(hypothesis)) for hypothesis in hypotheses))


def read_nbest(path: Path) -> dict[str, list[NbestPath]]:
    """Word sequences by utterance id, best first, as decoding wrote them. Raises UserError for a damaged file."""
    return dict(_read_lines(path, _nbest))


def _write(file: TextIO, entry: dict[str, Any]) -> None:
    file.write(_line(entry))
    file.flush()


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _hypothesis(fields: dict[str, Any]) -> Hypothesis:
    return Hypothesis(**(fields | {"words": tuple(fields["words"])}))


def _nbest(fields: dict[str, Any]) -> tuple[str, list[NbestPath]]:
    return fields["id"], [NbestPath(tuple(words.split()), graph, acoustic) for words, graph, acoustic in
                          zip(fields["words"], fields["graph_costs"], fields["acoustic_costs"], strict=True)]


def _read_lines(path: Path, parse: Callable[[dict[str, Any]], Entry], *, repair: bool = False) -> list[Entry]:
    entries = []
    for number, line in enumerate(_whole_lines(path, repair=repair), 1):
        try:
            entries.append(parse(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UserError(f"{path}:{number}: not a line of decoding; delete the file and decode again") from None
    return entries


def _whole_lines(path: Path, *, repair: bool) -> list[bytes]:
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if repair and whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
    return data[:whole].split(b"\n")[:-1]
