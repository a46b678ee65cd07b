from __future__ import annotations

import re
from pathlib import Path

import pytest

from bidsfit import models
from bidsfit.estimators.least_squares import LeastSquares
from bidsfit.reports import bibliography

TEXT = "One [@lebihan1988; @kaandorp2021], two [@stejskal1965] and again [@lebihan1988]; not@a.key nor [brackets]."


def test_every_entry_is_complete() -> None:
    for key, entry in bibliography.entries().items():
        assert {"title", "year"} <= set(entry.fields), key
        assert entry.persons["author"], key
        if entry.type == "misc" and "doi" not in entry.fields:  # a collection of code
            assert entry.fields["url"].startswith("https://"), key
            continue
        assert re.fullmatch(r"10\.\d{4,}/\S+", entry.fields["doi"]), key
        assert {"journal", "booktitle", "howpublished"} & set(entry.fields), key
    dois = [entry.fields["doi"].lower() for entry in bibliography.entries().values() if "doi" in entry.fields]
    assert len(set(dois)) == len(dois)


@pytest.mark.parametrize("name", sorted(models.BUILT_IN))
def test_what_models_and_estimators_refer_to_is_there(name: str) -> None:
    assert set(models.get(name).references) | set(LeastSquares.references) <= set(bibliography.entries())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("lebihan1988", "Le Bihan et al., 1988"),
        ("stejskal1965", "Stejskal and Tanner, 1965"),
        ("more1978", "Moré, 1978"),
        ("gorgolewski2016", "Gorgolewski et al., 2016"),
        ("unheard-of", "unheard-of"),
    ],
)
def test_labels(key: str, expected: str) -> None:
    assert bibliography.label(key) == expected


def test_citations_are_found_once_in_their_order() -> None:
    assert bibliography.cited(TEXT) == ["lebihan1988", "kaandorp2021", "stejskal1965"]


def test_references_are_sorted_by_author_and_link_to_their_doi() -> None:
    references = dict(bibliography.reference_list(bibliography.cited(TEXT)))
    assert list(references) == ["kaandorp2021", "lebihan1988", "stejskal1965"]
    assert 'href="https://doi.org/10.1002/mrm.28852"' in references["kaandorp2021"]
    ((_, plain),) = bibliography.reference_list(["gorgolewski2017"], "plaintext")
    assert "et al. BIDS apps" in plain
    assert "others" not in plain


def test_a_key_of_another_package_is_not_lost() -> None:
    assert bibliography.reference_list(["smith2030"]) == [
        ("smith2030", "smith2030: not in the bibliography of bidsfit.")
    ]


def test_citation_files_hold_what_is_used_and_nothing_else(tmp_path: Path) -> None:
    text, references = bibliography.write_citation(tmp_path / "logs", TEXT)
    assert text.name == "CITATION.md"
    written = text.read_text(encoding="utf-8")
    assert "One (Le Bihan et al., 1988; Kaandorp et al., 2021), two (Stejskal and Tanner, 1965)" in written
    assert "doi:10.1063/1.1695690" in written
    entries = re.findall(r"@\w+\{([\w-]+),", references.read_text(encoding="utf-8"))
    assert entries == ["lebihan1988", "kaandorp2021", "stejskal1965"]
    assert sorted(p.name for p in text.parent.iterdir()) == ["CITATION.bib", "CITATION.md"]


def test_methods_without_citations(tmp_path: Path) -> None:
    text, references = bibliography.write_citation(tmp_path, "Nothing was fitted.")
    assert text.read_text() == "Nothing was fitted.\n"
    assert references.read_text() == ""
