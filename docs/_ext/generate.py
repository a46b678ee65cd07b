"""Parts of the pages written from the code: models, estimators, status and exit codes, outputs and command lines.

Each function returns Markdown. It stands in a page of ``docs`` between two comments that name it, so that the pages can
be read where nothing builds them; the Boutiques descriptor of the app lies beside them. Run as a program (``make
format`` does), this module renews them; the build of the documentation fails where one is out of date.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from bidsfit import estimators, models
from bidsfit.bids import outputs
from bidsfit.bids.units import FILE_UNITS, REPORT_UNITS
from bidsfit.exceptions import ExitCode
from bidsfit.models.organs import ORGANS
from bidsfit.models.priors import priors_of
from bidsfit.models.signal_model import Parameter, SignalModel
from bidsfit.models.space import bounds_of
from bidsfit.reports import bibliography
from bidsfit.reports.bibliography import label
from bidsfit.trust import companions
from bidsfit.trust.disagreement import REFERENCES, disagreement_with
from bidsfit.trust.flags import FLAGS, Flag

#: Characters that fit into a block of code.
WIDTH = 86

UNITS = {
    "um^2/ms": "µm²/ms",
    "um^4/ms^2": "µm⁴/ms²",
    "1": "1",
    "ms": "ms",
    "us": "µs",
    "1/s": "1/s",
    "Hz": "Hz",
    "rad": "rad",
    "arbitrary": "as the image",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """A bound as text."""
    return "∞" if math.isinf(value) else f"{value:g}"


def model_heading(model: SignalModel) -> str:
    """Heading of the section of a model."""
    return f"`{model.name}`: {model.title}"


def anchor(heading: str) -> str:
    """What a link to a heading of the same page is, by the rule that code hosts and MyST share."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def model_section(model: SignalModel) -> str:
    """One model: equation, parameters, what it needs, references."""

    def row(parameter: Parameter) -> tuple[str, ...]:
        lower, upper = parameter.bounds
        return (
            f"${parameter.latex}$",
            f"`{parameter.name}`",
            f"`{parameter.label}`",
            escape(parameter.description),
            UNITS[parameter.unit],
            f"{number(lower)} to {number(upper)}",
        )

    parts = [
        f"## {model_heading(model)}",
        escape(model.description),
        f"$$\n{model.latex}\n$$",
        table(("Symbol", "Python", "`param-`", "Meaning", "Unit", "Bounds"), map(row, model.parameters)),
    ]
    if model.derived:
        derived = [
            (
                f"${q.latex}$",
                f"`{q.name}`",
                f"`{q.label}`",
                escape(q.description),
                "unit vector" if q.axis else UNITS[q.unit],
            )
            for q in model.derived
        ]
        parts += ["Derived from these:", table(("Symbol", "Python", "`param-`", "Meaning", "Unit"), derived)]
    if model.variant_of:
        principal = f"[`{model.variant_of}`]({anchor(model_heading(models.get(model.variant_of)))})"
        parts.append(f"A variant of {principal}: it is fitted only where `--model` names it.")
    if model.constraints:
        symbols = {parameter.symbol: parameter.latex for parameter in model.parameters}
        shown = ", ".join(f"${latex(relation, symbols)}$" for relation in model.constraints)
        parts.append(f"At every estimate: {shown}.")
    for name, value in model.constants.items():
        parts.append(f"Constant, in the units of files: `{name}` = {value:g}.")
    needs = [f"- {requirement}: {requirement.reason}." for requirement in model.requirements]
    parts.append("What the protocol must hold:\n\n" + "\n".join(needs))
    if math.isfinite(model.maximum_b):
        parts.append(
            f"Measurements above b = {model.maximum_b:g} s/mm² are not described by this model; they are left out "
            "of the fit."
        )
    if model.excluded_b is not None:
        low, high = model.excluded_b
        parts.append(f"Those between b = {low:g} and {high:g} s/mm² are left out as well.")
    if model.averaging:
        parts.append(
            "The equation describes the average of the signal over all directions of a shell: the measurements are "
            "weighted to be even ([directions](estimators.md#directions))."
        )
    parts.append("References:\n\n" + "\n".join(f"- {text}" for text in references(model.references)))
    return "\n\n".join(parts)


def latex(expression: Any, symbols: dict[Any, str]) -> str:
    """LaTeX of a SymPy expression with the symbols as the model prints them."""
    import sympy as sp

    return sp.latex(expression, symbol_names=symbols)


def references(keys: Sequence[str]) -> list[str]:
    """Entries of the bibliography that reports use, as HTML, which Markdown may hold."""
    missing = sorted(set(keys) - set(bibliography.entries()))
    if missing:
        raise ValueError(f"Not in the bibliography: {', '.join(missing)}.")
    return [" ".join(text.split()) for _, text in bibliography.reference_list(keys, "html")]


def models_page() -> str:
    """All models, first as a list, then one section each."""
    found = [models.get(name) for name in models.BUILT_IN]
    summary = table(
        ("Model", "What it is", "Parameters"),
        (
            (
                f"[`{model.name}`]({anchor(model_heading(model))})",
                model.title,
                ", ".join(f"${quantity.latex}$" for quantity in model.reported),
            )
            for model in found
        ),
    )
    return "\n\n".join([summary, *map(model_section, found)])


def organs_page() -> str:
    """Presets of organs, the published values behind them, and where these stand."""

    def preset(title: str, words: Sequence[str], model: SignalModel) -> tuple[str, ...]:
        priors = priors_of(model, bounds_of(model))
        name = f"`{model.organ}`"
        return (name, title, ", ".join(words), *(str(priors[parameter]) for parameter in ("f", "D", "Dstar")))

    def value(found: float | None) -> str:
        return "" if found is None else f"{found:g}"

    presets = [preset("any organ", (), models.get("ivim"))]
    presets += [preset(organ.title, organ.words, models.get("ivim", name)) for name, organ in ORGANS.items()]
    published = [
        (f"`{name}`", tissue.name, value(tissue.D), value(tissue.f), value(tissue.Dstar), label(tissue.reference))
        for name, organ in ORGANS.items()
        for tissue in organ.tissues
    ]
    keys = dict.fromkeys(key for organ in ORGANS.values() for key in organ.references)
    return "\n\n".join(
        [
            table(("`--organ`", "For", "Words of BodyPart", "$f$", "$D$, µm²/ms", "$D^{*}$, µm²/ms"), presets),
            "The values behind them:",
            table(("`--organ`", "Tissue", "$D$", "$f$", "$D^{*}$", "Published by"), published),
            "\n".join(f"- {text}" for text in references(list(keys))),
        ]
    )


def estimators_page() -> str:
    """All estimators."""
    from bidsfit.training.recipe import available, description

    rows = []
    for name in estimators.BUILT_IN:
        found: Any = estimators.get(name)
        estimator = getattr(found, "func", found)  # of a name with a distribution: the class
        trained_on = estimators.DISTRIBUTIONS.get(getattr(found, "keywords", {}).get("distribution", ""))
        trained_on = "as --distribution says" if name in estimators.TRAINED else trained_on
        title = estimator.title if trained_on is None else f"{estimator.title}; training parameters {trained_on}"
        if name in estimators.RECIPES:
            title = f"{estimator.title}. {description(available()[name])}"
        rows.append((f"`{name}`", title, f"`{estimator.__module__}.{estimator.__qualname__}`"))
    return table(("`--estimators`", "Method", "Class"), rows)


def status_page() -> str:
    """All status codes."""
    from bidsfit.estimators.estimator import Status

    rows = ((status.value, f"`{status.name}`", status.message) for status in Status)
    return table(("Code", "Name", "What happened, and what to do"), rows)


def exit_codes_page() -> str:
    """All exit codes."""
    return table(("Code", "Meaning"), ((code.value, code.message) for code in ExitCode))


def flags_page() -> str:
    """Bits of the flags."""
    rows = ((int(flag), f"`{str(flag.name).lower()}`", escape(flag.message)) for flag in Flag)
    return table(("Bit", "Name", "Reason for doubt, and what to do"), rows)


def outputs_page() -> str:
    """All maps and files, from the table that names them."""
    declared = outputs.table()
    shown = {
        "folder": "sub-<label>/[ses-<label>/]dwi",
        "image": "<image>",
        "participant": "sub-<label>",
        "model": "<model>",
        "estimator": "<estimator>",
        "parameter": "_param-<parameter>",
        "suffix": "dwimap",
        "regions": "seg-<segmentation>",
    }
    folder, name = declared["map"].format(**shown, statistic="").rsplit("/", 1)
    maps = [
        (
            f"`{model.name}`",
            f"`{p.label}`",
            escape(p.description),
            FILE_UNITS[p.unit].name,
            REPORT_UNITS[p.unit].name or "1",
        )
        for model in map(models.get, models.BUILT_IN)
        for p in model.mapped
    ]
    quantities = [companions.get(key).quantity for key in companions.BUILT_IN]
    quantities += map(disagreement_with, REFERENCES)
    statistics = [(f"`{quantity.key}`", plain_text(quantity.description)) for quantity in quantities]
    quality = [
        (f"`{quantity.key}`", plain_text(quantity.description), FILE_UNITS[quantity.unit or "1"].name)
        for quantity in (*outputs.quality_quantities(), FLAGS)
    ]
    files = [
        (f"`{entry['name'].format(**shown)}`", escape(entry["description"]))
        for entry in (*declared["files"].values(), *declared["regions"].values())
    ]
    return "\n\n".join(
        [
            f"## Maps of the parameters\n\n```text\n{folder}/\n    {name}\n```",
            "Maps of series of `anat/` lie in `anat/`, and have the suffix that BIDS has for the parameter instead of "
            f"`param-` ({', '.join(f'`{label}map`' for label in declared['official'])}), or `anatmap`.",
            table(("Model", "`param-`", "Map", "Unit in files", "Unit in reports"), maps),
            "## Statistics of the parameters\n\nAs `param-<parameter>_stat-<statistic>`, in the unit of the parameter; "
            "responses and disagreements have none.",
            table(("`stat-`", "Map"), statistics),
            "## Maps of the quality of the fit\n\nEvery fit has these beside the maps of its parameters; flags where "
            "its errors are simulated.",
            table(("`param-`", "Map", "Unit in files"), quality),
            "## Other files",
            table(("File", "What it is"), files),
        ]
    )


def plain_text(description: str) -> str:
    """The text of a sidecar without what is filled in for each parameter, model and estimator."""
    words = {
        "{parameter.label}": "the parameter",
        "{estimator.surroundings}": " (and surroundings, if it reads neighbours)",
    }
    for name, text in words.items():
        description = description.replace(name, text)
    return escape(re.sub(r" \([^()]*\{[^()]*\)", "", description))


def options_of(parser: argparse.ArgumentParser) -> str:
    """Usage and options of one command, group by group."""
    formatter = parser.formatter_class(parser.prog, width=WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    parts = [f"```text\n{formatter.format_help().strip()}\n```"]
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if not actions or any(isinstance(action, argparse._SubParsersAction) for action in actions):
            continue
        parts.append(f"**{(group.title or 'Options').capitalize()}**")
        if group.description:
            parts.append(group.description)
        lines = []
        for action in actions:
            help_text = " ".join(formatter._expand_help(action).split()) if action.help else ""
            lines.append(f"- `{invocation(formatter, action)}`: {escape(help_text)}")
        parts.append("\n".join(lines))
    if parser.epilog:
        parts.append(f"```text\n{wrap(parser.epilog)}\n```")
    return "\n\n".join(parts)


def invocation(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    """An option with its spellings and its arguments, as it is typed."""
    if not action.option_strings:
        return formatter._format_args(action, action.dest)
    arguments = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    spellings = [option for option in action.option_strings if "_" not in option]
    return f"{', '.join(spellings)} {arguments}".strip()


def wrap(text: str) -> str:
    """Preformatted text with its long paragraphs broken; indented lines stay as they are."""
    lines: list[str] = []
    for line in text.strip().splitlines():
        if lines and lines[-1] and line and not line.startswith(" ") and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join(part for line in lines for part in (textwrap.wrap(line, WIDTH) if line[:1].strip() else [line]))


def escape(text: str) -> str:
    """Text of a help message as Markdown."""
    for character in "\\`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text


def app_page() -> str:
    """The command line of `bidsfit`."""
    from bidsfit.cli.parser import build_parser

    return options_of(build_parser())


def lab_page() -> str:
    """The command line of `bidsfit-lab`, one section a command."""
    from bidsfit.cli.lab import COMMANDS

    parser = argparse.ArgumentParser(prog="bidsfit-lab")
    commands = parser.add_subparsers()
    for add in COMMANDS:
        add(commands)
    return "\n\n".join(
        f"### `bidsfit-lab {name}`\n\n{command.description}\n\n{options_of(command)}"
        for name, command in commands.choices.items()
    )


def example(path: Path) -> str:
    """A program of the examples."""
    return f"```python\n{path.read_text('utf-8').rstrip()}\n```"


PARTS = {
    "models": models_page,
    "organs": organs_page,
    "estimators": estimators_page,
    "status": status_page,
    "exit_codes": exit_codes_page,
    "flags": flags_page,
    "outputs": outputs_page,
    "app": app_page,
    "lab": lab_page,
    **{path.stem: partial(example, path) for path in Path(__file__).parents[1].glob("examples/*.py")},
}

#: A part in a page: between comments that name it.
PART = re.compile(r"<!-- begin (\w+)[^\n]*-->\n.*?<!-- end \1 -->", re.DOTALL)


def renewed(page: str) -> str:
    """A page with the parts that it holds written anew."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        begin = f"<!-- begin {name}: written from the code, see _ext/generate.py -->"
        return f"{begin}\n\n{PARTS[name]()}\n\n<!-- end {name} -->"

    return PART.sub(part, page)


def stale(folder: Path) -> dict[Path, str]:
    """Files of a folder that are not as the code would write them, and how they should be: pages and the descriptor."""
    from bidsfit.cli.boutiques import descriptor
    from bidsfit.cli.platforms import babs_container, nipoppy_pipeline

    wanted = {path: renewed(path.read_text("utf-8")) for path in sorted(folder.glob("*.md"))}
    for name, content in {
        "boutiques.json": descriptor(),
        **{f"nipoppy/{name}": content for name, content in nipoppy_pipeline().items()},
    }.items():
        wanted[folder / name] = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    wanted[folder / "babs.yaml"] = babs_container()
    return {path: new for path, new in wanted.items() if not path.exists() or path.read_text("utf-8") != new}


def check(app: Sphinx) -> None:
    """Refuse to build pages that are out of date."""
    if found := stale(Path(app.srcdir)):
        names = ", ".join(path.name for path in found)
        raise ExtensionError(f"Out of date: {names}. Run `make format`, which writes them anew from the code.")


def setup(app: Sphinx) -> dict[str, Any]:
    """Check the pages before Sphinx reads."""
    app.connect("builder-inited", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for path, text in stale(Path(__file__).parents[1]).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
