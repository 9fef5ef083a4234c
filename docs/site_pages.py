"""What of the site lies outside docs/: README, CONTRIBUTING, the notebooks, and links between all of them.

MkDocs calls on_files and on_page_markdown by their names (mkdocs.yml, hooks).
"""

import base64
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
# Python-Markdown wants four spaces for what belongs to an item of a list, where GitHub is content with three,
# and a file's name on a fence as its title.
LISTED = re.compile(r"^(?=(?: {4})* {3}\S)", re.MULTILINE)
FENCE = re.compile(r"^( *```\w+) (\S+)$", re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds what lies outside docs/."""
    for name, page in OUTSIDE.items():
        text = LISTED.sub(" ", (ROOT / name).read_text(encoding="utf-8"))
        text = FENCE.sub(r'\1 title="\2"', text)
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        page, pictures = as_markdown(nbformat.read(path, as_version=4), path.stem)
        files.append(File.generated(config, f"examples/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"examples/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Links as they are in the repository become links of the site; those to no page become plain text."""
    own = page.file.src_uri
    home = next((name for name, target in OUTSIDE.items() if target == own), f"docs/{own}")

    def on_site(link: re.Match[str]) -> str:
        picture, text, path, anchor = link[1], link[2], link[3], link[4] or ""
        if path.startswith("examples/") and own.startswith("examples/"):
            return link[0]
        inside = os.path.normpath(PurePosixPath(home).parent / path)
        target = _page(inside)
        if files.get_file_from_path(target) is None:
            return text
        return f"{picture}[{text}]({os.path.relpath(target, PurePosixPath(own).parent)}{anchor})"

    if own == "reference/settings.md":
        markdown += _settings()
    return markdown if own.startswith("examples/") else LINK.sub(on_site, markdown)


def _page(path: str) -> str:
    """Where the site has a file of the repository."""
    if path.startswith("examples/"):
        return path.replace(".ipynb", ".md")
    return OUTSIDE.get(path, path.removeprefix("docs/"))


def as_markdown(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """The cells in their order, and by file name the pictures that stand beside the page."""
    parts, pictures = [], dict[str, bytes]()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures)}.png"
                pictures[picture] = base64.b64decode(data["image/png"])
                parts.append(f"![Chart]({picture})")
            elif "text/html" in data:
                html = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.DOTALL)
                parts.append(re.sub(r"\s*\n\s*", "\n", html).strip())
            else:
                text = output.get("text") or data.get("text/plain", "")
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _settings() -> str:
    from crops.config import all as configs

    return "".join(f"\n## {name}\n\n{settings_table(name)}\n" for name in configs.SECTIONS)


def settings_table(section: str) -> str:
    """Markdown table of one section's settings, from the descriptions in crops/config."""
    from crops.config import all as configs

    rows = ["| setting | default | what it does |", "|---|---|---|"]
    kind = configs.section_class(section)
    for name, default in kind():
        simple = default is None or isinstance(default, str | int | float | bool)
        shown = f"`{'null' if default is None else default}`" if simple else "see `crops config`"
        text = (kind.model_fields[name].description or "").replace("|", "\\|").replace("<", "&lt;")
        rows.append(f"| `{name}` | {shown} | {text} |")
    return "\n".join(rows)
