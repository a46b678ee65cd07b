"""What papers that are made again share: what a paper declares, and how its tables and figures are made.

A paper is a module with a `Paper`, listed in `bidsfit.laboratory.PAPERS`. What it trains and computes goes through a
`Bench`, which keeps it in a folder, so that the same command goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bidsfit.exceptions import UnknownNameError
from bidsfit.laboratory.bench import Bench, say
from bidsfit.laboratory.gallery import Gallery
from bidsfit.reports.laboratory import LaboratorySection, Table, write_laboratory_report

#: A quick run has so many times fewer noise realisations, but not fewer than these.
QUICK, FEWEST = 100, 50


@dataclass(frozen=True)
class Options:
    """What decides a run beside the paper.

    Parameters
    ----------
    folder : Path
        Receives files; what was trained and computed is kept in it.
    quick : bool
        A preview: short trainings, and a hundredth of the noise realisations, but at least 50.
    data : Path, optional
        BIDS dataset whose participants join those that are simulated.
    device : str
        torch device of network training.
    """

    folder: Path
    quick: bool = False
    data: Path | None = None
    threads: int = 1
    device: str = "cpu"
    seed: int = 0

    def bench(self, **more: Any) -> Bench:
        """A bench in the folder; ``more`` are further arguments of `Bench`."""
        return Bench(self.folder, threads=self.threads, device=self.device, seed=self.seed, **more)


@dataclass
class Reproduction:
    """A run: the bench that trains and computes, and the tables and figures made so far.

    ``points`` and ``realisations`` are those of the `Paper`, and ``data`` that of the `Options`.
    """

    bench: Bench
    gallery: Gallery
    quick: bool = False
    points: int | Sequence[int] = 21
    realisations: int = 10_000
    data: Path | None = None
    tables: list[Table] = field(default_factory=list)

    @property
    def repeats(self) -> int:
        """Number of noise realisations of every truth."""
        return max(self.realisations // QUICK, FEWEST) if self.quick else self.realisations

    def table(self, name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table as CSV and show it on the page."""
        say(str(self.gallery.table(name, columns, rows)))
        self.tables.append(Table(caption, columns, rows))


#: Makes a table or one picture of a figure, whose files get this name.
Make = Callable[[Reproduction, str], None]


@dataclass(frozen=True)
class Exhibit:
    """A table or figure of a paper.

    Parameters
    ----------
    caption : str
        What it shows.
    parts : mapping of letter to callable
        Parts as the paper letters them; one without letters has the key "".
    costly : bool
        Whether it takes days, and is made only where it is named.
    """

    caption: str
    parts: Mapping[str, Make]
    costly: bool = False


@dataclass(frozen=True)
class Paper:
    """A paper that is made again.

    Parameters
    ----------
    title : str
        Of the page.
    lead : str
        Of the page: the reference, and what holds for all of it.
    bench : callable
        Builds the bench of a run.
    tables, figures : mapping of number to Exhibit
        Numbered as in the paper; exhibits that the paper does not have are named in words.
    points : int or sequence of int
        True parameters on which estimators are evaluated, as of `bidsfit.evaluation.experiments.true_points`.
    realisations : int
        Noise realisations of each.
    """

    title: str
    lead: str
    bench: Callable[[Options], Bench]
    tables: Mapping[str, Exhibit]
    figures: Mapping[str, Exhibit]
    points: int | Sequence[int] = 21
    realisations: int = 10_000

    def chosen(self, tables: Iterable[str] = (), figures: Iterable[str] = ()) -> dict[str, Exhibit]:
        """Exhibits by the name of their files; if none is named, all but those that are costly.

        Raises
        ------
        UnknownNameError
            If the paper has no such table or figure.
        """
        found = dict(self._named("table", tables, self.tables)) | dict(self._named("figure", figures, self.figures))
        return found or {name: made for name, made in self.chosen(self.tables, self.figures).items() if not made.costly}

    def _named(self, kind: str, names: Iterable[str], known: Mapping[str, Exhibit]) -> Iterator[tuple[str, Exhibit]]:
        keys = {key.casefold(): key for key in known}
        for name in names:
            if name.casefold() not in keys:
                raise UnknownNameError(f"{kind} of the paper:", name, known)
            key = keys[name.casefold()]
            yield f"{kind}-{key}", known[key]


def reproduce(paper: Paper, options: Options, exhibits: Mapping[str, Exhibit], about: Mapping[str, Any]) -> Path:
    """Make tables and figures of a paper, and a page with them.

    Parameters
    ----------
    exhibits : mapping of name to Exhibit
        As of `Paper.chosen`.
    about : mapping
        Facts for the foot of the page.

    Returns
    -------
    Path
        The page.
    """
    bench = paper.bench(options)
    sections = []
    for name, exhibit in exhibits.items():
        run = Reproduction(
            bench, Gallery(options.folder), options.quick, paper.points, paper.realisations, options.data
        )
        for letter, make in exhibit.parts.items():
            made = len(run.gallery.figures)
            make(run, name + letter)
            if letter:
                drawn = run.gallery.figures
                drawn[made:] = [replace(figure, title=f"{letter}: {figure.title}") for figure in drawn[made:]]
        title = name.replace("-", " ").capitalize()
        sections.append(LaboratorySection(title, exhibit.caption, run.tables, run.gallery.figures))
    quick = " A quick run: short trainings, and fewer noise realisations." if options.quick else ""
    return write_laboratory_report(
        options.folder / "report.html", title=paper.title, lead=paper.lead + quick, sections=sections, about=about
    )
