"""What the runbooks and docs/operations.md tell people to type, as tests read it. No test in here."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNBOOKS = sorted((ROOT / "monitoring/runbooks").glob("*.md"))
OPERATIONS = ROOT / "docs/operations.md"
BLOCK = re.compile(r"^```\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    (\w.*)$", re.MULTILINE)
INLINE = re.compile(r"`((?:crops|kubectl|curl) [^`]+)`")
SHELL = re.compile(r"(?:kubectl|crops|curl|df|ls|dmesg|tail|iostat|jq|python3) ")


def lines_of(page: Path) -> list[str]:
    """Of its blocks, without comments of their own."""
    text = page.read_text(encoding="utf-8")
    inside = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    inside += INDENTED.findall(BLOCK.sub("", text))
    return [line for line in inside if line and not line.startswith("#")]


def queries_of(page: Path) -> list[str]:
    """PromQL."""
    return [line for line in lines_of(page) if not SHELL.match(line)]


def commands_of(page: Path) -> list[str]:
    """For a shell: the lines of blocks, and whole ones in the text; a verb alone is only mentioned."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    inline = [re.sub(r"\s+", " ", one) for one in INLINE.findall(text)]
    whole = [one for one in inline if not one.startswith("crops ") or re.search(r" rollout \w| -\S+ \S", one)]
    return [*(line for line in lines_of(page) if SHELL.match(line)), *whole]
