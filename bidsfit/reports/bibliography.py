"""Citations and references: cited keys, formatted references, and the citation files of a run.

Texts cite as in pandoc: ``[@key]`` or ``[@key; @other]``, with keys of ``references.bib``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bidsfit.estimators.estimator import Estimator
from bidsfit.files import write_text

#: One citation, of one work or several.
CITATION = re.compile(r"\[@[\w:-]+(?:;\s*@[\w:-]+)*\]")
KEY = re.compile(r"@([\w:-]+)")


@cache
def entries() -> Mapping[str, Any]:
    """Entries of the bibliography by key, as pybtex objects."""
    from pybtex.database import parse_file

    return parse_file(str(Path(__file__).with_name("references.bib")), bib_format="bibtex").entries


def cited(text: str) -> list[str]:
    """Keys cited in a text, each once, in order of first appearance."""
    return list(dict.fromkeys(key for citation in CITATION.findall(text) for key in KEY.findall(citation)))


def label(key: str) -> str:
    """Short form of a reference, such as ``Le Bihan et al., 1988``; an unknown key is returned unchanged."""
    if key not in entries():
        return key
    entry = entries()[key]
    names = [" ".join(str(part) for part in p.rich_prelast_names + p.rich_last_names) for p in entry.persons["author"]]
    if len(names) > 2 or names[-1] == "others":
        authors = f"{names[0]} et al."
    else:
        authors = " and ".join(names)
    return f"{authors}, {entry.fields['year']}"


def replace_citations(text: str, write: Callable[[list[str]], str]) -> str:
    """The text with each citation replaced by the result of ``write``, which gets its keys."""
    return CITATION.sub(lambda match: write(KEY.findall(match.group())), text)


def reference_list(keys: Iterable[str], markup: Literal["html", "plaintext"] = "html") -> list[tuple[str, str]]:
    """Keys and full references, sorted by author and year.

    Keys that are not in the bibliography (for example of a model from another package) come last, with a note.
    """
    return list(_references(tuple(dict.fromkeys(keys)), markup))


@cache
def _references(keys: tuple[str, ...], markup: str) -> list[tuple[str, str]]:
    """References of different keys; the reports of a run, one a participant, cite the same works."""
    from pybtex.plugin import find_plugin

    style = find_plugin("pybtex.style.formatting", "plain")(abbreviate_names=True, name_style="lastfirst")
    backend = find_plugin("pybtex.backends", markup)()
    known = list(style.format_entries([entries()[key] for key in keys if key in entries()]))
    # pybtex prints BibTeX's "and others" as it stands
    printed = [(e.key, re.sub(r",? and others\.", ", et al.", e.text.render(backend))) for e in known]
    missing = [(key, f"{key}: not in the bibliography of bidsfit.") for key in keys if key not in entries()]
    return printed + missing


def estimation_fields(estimator: Estimator) -> dict[str, str]:
    """``EstimationAlgorithm`` and ``EstimationReference`` (DOIs) of the sidecar of a map, as BIDS has them."""
    found = [entries()[key].fields.get("doi") for key in estimator.references if key in entries()]
    references = "; ".join(f"doi:{doi}" for doi in found if doi)
    return {"EstimationAlgorithm": estimator.title} | ({"EstimationReference": references} if references else {})


def bibtex(keys: Iterable[str]) -> str:
    """The entries of these keys in BibTeX format; unknown keys are left out."""
    from pybtex.database import BibliographyData

    chosen = {key: entries()[key] for key in dict.fromkeys(keys) if key in entries()}
    return str(BibliographyData(chosen).to_string("bibtex"))


def plain_text(methods: str) -> str:
    """The methods text for a manuscript: citations by author and year, and the references at the end."""
    text = replace_citations(methods.strip(), lambda keys: "(" + "; ".join(label(key) for key in keys) + ")")
    keys = cited(methods)
    if not keys:
        return text + "\n"
    references = "\n\n".join(reference for _, reference in reference_list(keys, "plaintext"))
    return f"{text}\n\n## References\n\n{references}\n"


def write_citation(folder: Path, methods: str) -> tuple[Path, Path]:
    """Write ``CITATION.md`` (methods text and references) and ``CITATION.bib`` (the cited entries).

    Parameters
    ----------
    folder : Path
        Created if needed.
    methods : str
        Methods text of the report.

    Returns
    -------
    tuple of Path
        Paths of the two files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text, references = folder / "CITATION.md", folder / "CITATION.bib"
    write_text(text, plain_text(methods))
    write_text(references, bibtex(cited(methods)))
    return text, references
