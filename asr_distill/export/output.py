"""Where transcripts go: standard output, or a folder with a file for each recording."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from asr_distill.errors import UserError
from asr_distill.export.batch import Outcome
from asr_distill.export.forms import FORMS, Form, ctm_id
from asr_distill.export.recordings import Recording, check_names, shown
from asr_distill.files import write_text


class Output(Protocol):
    def write(self, outcome: Outcome) -> None:
        """Take what came of a recording; of one that failed too."""


class Printed:
    """To standard output; plain text of several recordings begins with the file's path on every line.

    Raises UserError where the form is of one recording alone, or two would have one name in it.
    """

    def __init__(self, form: Form, recordings: Sequence[Recording]):
        self.form, self.several = form, len(recordings) > 1
        if self.several and form.one_file:
            raise UserError(f"several recordings make no one {form.suffix[1:]} file; add --out FOLDER")
        if form is FORMS["ctm"]:  # lines of all files together, told apart by the name
            check_names([Recording(each.path, ctm_id(each.name)) for each in recordings])

    def write(self, outcome: Outcome) -> None:
        path = outcome.recording.path
        if outcome.transcript is None:
            if self.form is FORMS["json"]:
                print(json.dumps({"file": shown(path), "error": shown(str(outcome.error))}, ensure_ascii=False),
                      flush=True)
            return
        text = self.form.write(outcome.transcript, path, outcome.recording.name)
        if self.several and self.form is FORMS["text"]:
            text = "".join(f"{shown(path)}\t{line}\n" for line in text.splitlines())
        print(text, end="", flush=True)


class InFolder:
    """Below `folder`, as the recordings lie below theirs; a file appears whole or not at all.

    Raises UserError where two recordings would be written to one file, or `folder` is a file.
    """

    def __init__(self, form: Form, folder: Path, recordings: Sequence[Recording]):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder}: is a file; name a folder")
        check_names(recordings)
        self.form, self.folder = form, folder

    def path(self, recording: Recording) -> Path:
        return self.folder / f"{recording.name}{self.form.suffix}"

    def unfinished(self, recordings: Sequence[Recording]) -> list[Recording]:
        """Those that are not there yet."""
        return [recording for recording in recordings if not self.path(recording).is_file()]

    def write(self, outcome: Outcome) -> None:
        if outcome.transcript is not None:
            write_text(self.path(outcome.recording), self.form.write(outcome.transcript, outcome.recording.path,
                                                                     outcome.recording.name))
