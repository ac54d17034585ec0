"""Pages of one HTML file each, which need no other; light or dark as the reader's system is."""

from collections.abc import Iterable
from html import escape

_STYLE = """
:root { color-scheme: light dark; --truth: #8a8f98; --guess: #0b6fb8; --line: #d5d8dc; }
@media (prefers-color-scheme: dark) { :root { --truth: #8a8f98; --guess: #5cb8ff; --line: #3a3f46; } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid var(--line); padding: 0.2rem 0.9rem 0.2rem 0; text-align: left; }
figure { margin: 1rem 0; }
figcaption { max-width: 46rem; }
svg { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; }
.row figure { flex: 1 1 15rem; }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document; parts are HTML."""
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def figure(svg: str, caption: str) -> str:
    """A drawing with what it shows."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(header: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Cells of text; no header: none."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>\n{f'<tr>{head}</tr>' if head else ''}\n{body}\n</table>"
