"""Conversion of methods texts to HTML: paragraphs, headings, lists, citations and equations.

The texts use a small subset of Markdown, with equations between dollar signs. Equations become MathML, which browsers
show without network or scripts.
"""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

from bidsfit.reports.bibliography import CITATION, KEY, entries, label

INLINE = re.compile(
    rf"\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+?)\$|(?P<citation>{CITATION.pattern})"
    r"|`(?P<code>[^`]+)`|\*\*(?P<strong>.+?)\*\*|\*(?P<emphasis>[^*\s][^*]*)\*",
    re.DOTALL,
)
UPRIGHT = re.compile(r'(?:<mi mathvariant="normal">[^<&]</mi>){2,}')


def mathml(latex: str, display: str = "inline") -> Markup:
    """An equation as MathML, or as LaTeX source if it cannot be converted; ``display``: ``inline`` or ``block``."""
    from latex2mathml.converter import convert

    try:
        markup = convert(latex, display=display)
    except Exception:  # whatever the converter stumbles over: a report is never lost for an equation
        return Markup("<code>{}</code>").format(latex)
    # Letters of a word belong together, and HTML needs no namespace.
    markup = UPRIGHT.sub(lambda match: f"<mi>{re.sub('<[^>]+>', '', match.group())}</mi>", markup)
    return Markup(markup.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', f' alttext="{escape(latex)}"', 1))


def prose(text: str) -> Markup:
    """A text as HTML; special characters are escaped."""
    return Markup("\n").join(_block(block.strip()) for block in re.split(r"\n\s*\n", text.strip()) if block.strip())


def _block(text: str) -> Markup:
    heading = re.match(r"#+\s+(.*)", text)
    if heading and "\n" not in text:
        return Markup("<h3>{}</h3>").format(_inline(heading.group(1)))
    if all(line.startswith("- ") for line in text.splitlines()):
        items = Markup("").join(Markup("<li>{}</li>").format(_inline(line[2:])) for line in text.splitlines())
        return Markup("<ul>{}</ul>").format(items)
    return Markup("<p>{}</p>").format(_inline(text))


def _inline(text: str) -> Markup:
    parts, end = [], 0
    for match in INLINE.finditer(text):
        parts += [Markup(escape(text[end : match.start()], quote=False)), _convert(match)]
        end = match.end()
    return Markup("").join([*parts, Markup(escape(text[end:], quote=False))])


def _convert(match: re.Match[str]) -> Markup:
    content = match.group(str(match.lastgroup))
    if match.lastgroup == "block":
        return mathml(content.strip(), "block")
    if match.lastgroup == "inline":
        return mathml(content.strip())
    if match.lastgroup == "citation":
        links = [_link(key) for key in KEY.findall(content)]
        return Markup("({})").format(Markup("; ").join(links))
    if match.lastgroup == "code":
        return Markup("<code>{}</code>").format(content)
    tag = {"strong": "strong", "emphasis": "em"}[str(match.lastgroup)]
    return Markup(f"<{tag}>{{}}</{tag}>").format(_inline(content))


def _link(key: str) -> Markup:
    if key not in entries():
        return Markup("<strong>{}?</strong>").format(key)
    return Markup('<a href="#ref-{}">{}</a>').format(key, label(key))
