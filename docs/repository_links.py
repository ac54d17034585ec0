"""A hook of MkDocs: links from a page to a file of the repository work on the site too.

A page of docs/ may link to `../deploy/compose.yaml`, for those who read it in the repository. The file is copied
into the site then, below repository/. A link to a file that is not there stays as it is, and MkDocs warns of it.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

_LINK = re.compile(r"\]\(\.\./(?P<path>[^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to."""
    root = _root(config)
    linked = {
        match["path"]
        for file in files.documentation_pages()
        for match in _LINK.finditer(file.content_string)
        if (root / match["path"]).is_file()
    }
    for path in sorted(linked):
        files.append(File.generated(config, _on_site(path), abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, files: Files, **_: object) -> str:
    """Let links to the repository lead to the copies."""

    def rewritten(match: "re.Match[str]") -> str:
        target = _on_site(match["path"])
        return f"]({target}" if files.get_file_from_path(target) else match[0]

    return _LINK.sub(rewritten, markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def _on_site(path: str) -> str:
    # A page of Markdown is shown as it is written, not as a page of the site that no menu leads to.
    return f"repository/{path}.txt" if path.endswith(".md") else f"repository/{path}"
