"""The tree as people read it, and the command that prints it."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path

import pytest
from tree_toys import PHONES, SILENCE, STATES, toy_corpus, toy_hmm

from asr_distill.errors import UserError
from asr_distill.hmm import tree_command
from asr_distill.hmm.decision_tree import LEFT, PHONE, RIGHT, DecisionTree
from asr_distill.hmm.model import HmmModel, monophone_model
from asr_distill.hmm.tree_build import TreeConfig, build_tree
from asr_distill.hmm.tree_stats import accumulate_tree_stats
from asr_distill.hmm.tree_text import PhoneNames, pdf_text, tree_text

MANY = tuple("SIL AH0_B AH0_E AH1_B AH1_E B D F G K L M N".split())
IDS = {phone: index for index, phone in enumerate(MANY, 1)}
CONSONANTS = frozenset(IDS[phone] for phone in "B D F G K L M".split())
AH = 0  # node where AH's tree begins
MODEL = HmmModel(MANY, (1,) * 13, DecisionTree(
    sets=(CONSONANTS, frozenset({4, 5}), frozenset({1}), frozenset({6, 7})),
    nodes=((LEFT, 0, 1, 2), (PHONE, 1, -2, -3), (RIGHT, 3, -4, 3), (RIGHT, 2, -2, -5)),
    roots=((-1,), (AH,), (AH,), (AH,), (AH,), *[(-6,)] * 8)))


def test_a_shared_tree_is_printed_with_names_sets_and_pdfs() -> None:
    assert tree_text(MODEL, "AH") == """\
AH, state 0: 4 pdfs
  left in set 1 (B ... 7 names)?
  yes: phone in stress 1?
    yes: pdf 1
    no:  pdf 2
  no:  right in {B D}?
    yes: pdf 3
    no:  right in silence?
      yes: pdf 1
      no:  pdf 4

Sets of phones
  set 1: B D F G K L M"""


def test_a_variant_sees_its_own_way() -> None:
    assert tree_text(MODEL, "AH1_E", 0).splitlines()[:4] == [
        "AH1_E, state 0: 4 pdfs", "  left in set 1 (B ... 7 names)?", "  yes: pdf 1", "  no:  right in {B D}?"]
    assert tree_text(MODEL, "AH0_E").splitlines()[2] == "  yes: pdf 2"


def test_the_summary_counts_pdfs_and_questions() -> None:
    text = tree_text(MODEL)
    assert text.startswith("SIL, state 0: 1 pdf\n  pdf 0\n\nAH, state 0: 4 pdfs\n")
    assert "6 pdfs, 4 questions asked, 4 sets of phones" in text
    lines = text[text.index("Pdfs of each root") :].splitlines()
    assert [line.split() for line in lines[1:4]] == [["SIL", "1"], ["AH", "4"], [*"BDFGKLMN", "1"]]
    assert "Asked about: right 2, left 1, phone 1" in lines
    assert "     1  right in silence" in lines and "     1  phone in stress 1" in lines


def test_the_ways_to_a_pdf_are_named() -> None:
    assert pdf_text(MODEL, 1) == """\
pdf 1
  AH1_B AH1_E, state 0: left any but edge SIL AH N; right any
  AH, state 0: left edge SIL AH N; right SIL"""
    assert pdf_text(MODEL, 0) == "pdf 0\n  SIL, state 0: left any; right any"
    assert pdf_text(MODEL, 4).splitlines()[1].endswith("right any but SIL B D")


def test_ways_are_just_the_contexts_that_the_tree_sends_there() -> None:
    features, alignment, offsets, _ = toy_corpus(utterances=30)
    stats = accumulate_tree_stats(features, alignment, offsets, toy_hmm(), SILENCE)
    tree, _ = build_tree(stats, PHONES, STATES, TreeConfig(leaves=60, min_count=4, split_threshold=3))
    hmm = dataclasses.replace(toy_hmm(), tree=tree)
    names = PhoneNames(PHONES)

    def read(side: str) -> set[int]:
        everything = set(range(len(PHONES) + 1))
        if side == "any":
            return everything
        words = side.removeprefix("any but ").split()
        ids = {0} if "edge" in words else set()
        ids |= {index for word in words if word != "edge" for index in names.ids(word)}
        return everything - ids if side.startswith("any but ") else ids

    reached: dict[tuple[int, int, int, int], int] = {}
    for pdf in range(hmm.num_pdfs):
        for line in pdf_text(hmm, pdf).splitlines()[1:]:
            match = re.fullmatch(r"  (.*), state (\d): left (.*); right (.*)", line)
            assert match
            for phone in read(match[1]):
                for left in read(match[3]):
                    for right in read(match[4]):
                        assert reached.setdefault((left, phone, right, int(match[2])), pdf) == pdf
    assert len(reached) == 10 * 10 * sum(STATES)
    assert all(tree.pdf(*context) == pdf for context, pdf in reached.items())


def test_monophones_are_short() -> None:
    hmm = monophone_model(("SIL", "AH0", "AH1", "B"), states=2, share_stress=True)
    assert tree_text(hmm) == """\
SIL: pdfs 0 1
AH: pdfs 2 3
B: pdfs 4 5

6 pdfs of monophones: no questions about neighbours"""
    assert tree_text(hmm, "AH1").splitlines()[0] == "AH: pdfs 2 3" and "SIL" not in tree_text(hmm, "AH1")
    assert pdf_text(hmm, 3) == "pdf 3\n  AH0, state 1: any neighbours\n  AH1, state 1: any neighbours"


def run(directory: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    tree_command.add_arguments(parser)
    return tree_command.run(parser.parse_args([str(directory), *options]))


def test_the_command_prints_a_models_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MODEL.save(tmp_path)
    assert run(tmp_path, "--phone", "AH", "--state", "0") == 0
    assert capsys.readouterr().out == tree_text(MODEL, "AH", 0) + "\n"
    assert run(tmp_path, "--pdf", "1") == 0
    assert capsys.readouterr().out == pdf_text(MODEL, 1) + "\n"


@pytest.mark.parametrize(("options", "message"), [
    (["--phone", "AX"], "no phone 'AX'"), (["--phone", "AH0"], r"did you mean 'AH"), (["--state", "1"], "from 0 to 0"),
    (["--state", "-1"], "from 0 to 0"), (["--pdf", "6"], "from 0 to 5"),
    (["--pdf", "1", "--phone", "AH"], "--pdf goes")])
def test_what_the_model_lacks_is_refused(tmp_path: Path, options: list[str], message: str) -> None:
    MODEL.save(tmp_path)
    with pytest.raises(UserError, match=message):
        run(tmp_path, *options)
    with pytest.raises(UserError, match=r"hmm\.json: no such file"):
        run(tmp_path / "absent")
