"""The whole page: one file, no network; only its own script and style sheet may run."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from asr_distill.report.page.examples import Examples
from asr_distill.report.page.experiment import Experiment
from asr_distill.report.page.listening import examples_section
from asr_distill.report.page.markup import Html, raw, tag
from asr_distill.report.page.sections import charts_section, origin_section, results_section, summary

PARTS = {"results": "Systems", "charts": "Charts", "examples": "Examples", "origin": "How it was made"}


def page(experiment: Experiment, examples: Examples) -> str:
    """The experiment's results as an HTML document."""
    style, script = _own("page.css"), _own("page.js")
    results = experiment.results
    # No address may be loaded but the page's own sounds; no script or style but these two, by their digests.
    policy = ("default-src 'none'; media-src data:; img-src data:; base-uri 'none'; form-action 'none'; "
              f"script-src {_digest(script)}; style-src {_digest(style)}")
    head = tag("head", tag("meta", charset="utf-8"),
               tag("meta", http_equiv="Content-Security-Policy", content=policy),
               tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
               tag("meta", name="color-scheme", content="light dark"),
               tag("meta", name="referrer", content="no-referrer"),
               tag("link", rel="icon", href="data:,"),
               tag("title", f"Results: {results.recipe}"), tag("style", style))
    contents = tag("nav", *(tag("a", title, href=f"#{identity}") for identity, title in PARTS.items()),
                   aria_label="Parts of this page")
    main = tag("main", results_section(results), charts_section(experiment), examples_section(examples),
               origin_section(results))
    footer = tag("footer", tag("p", "Written by asr-distill report. This page is one file and loads nothing."))
    body = tag("body", summary(results), contents, main, footer, tag("script", script))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _own(name: str) -> Html:
    return raw((files(__package__) / name).read_text(encoding="utf-8"))


def _digest(source: str) -> str:
    """As a content security policy names a script or style sheet: of the exact text of the element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
