"""The table of docs/bases.md: every family and precision, what was asked of it and what came out.

.venv/bin/python -m tests.crops.retriever.bases_table            # writes it anew, in some minutes
.venv/bin/python -m tests.crops.retriever.bases_table BERT T5\\ encoder      # the rows of these
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from crops.release.encoder import OnnxEncoder
from serving.triton import install, launch
from tests.crops.retriever import bases
from tests.serving import releases as toys

PAGE = Path(__file__).resolve().parents[3] / "docs/bases.md"
HEAD = ("base", "stored in", "trains", "ONNX", "sentence-transformers", "Triton")
YES, NOT_RUN = "yes", "not run"
TEXTS = 100
ROW = re.compile(r"^\| " + r" \| ".join([r"([^|]+?)"] * len(HEAD)) + r" \|$", re.MULTILINE)


def committed() -> dict[tuple[str, str], tuple[str, ...]]:
    """What the page says, by family and precision."""
    found = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {(row[0], row[1]): row[2:] for row in found if row[1] in bases.PRECISIONS}


def answers_of(root: Path, family: str, precision: str, server: launch.Server | None) -> list[str]:
    """Whether every matrix moves, and whether three others give the vectors of the trained encoder."""
    encoder = bases.encoder_of(root / "base", family, bases.PRECISIONS[precision])
    share, folder = bases.moved(encoder), bases.exported(encoder, root)
    asked = bases.texts(TEXTS)
    expected = encoder.eval().encode(asked, kind="query")

    def same(vectors: np.ndarray) -> str:
        cosine = bases.least_cosine(vectors, expected)
        return YES if cosine >= bases.LEAST_COSINE else f"no: cosine {cosine:.4f}"

    return [
        YES if share > bases.LEAST_MOVED else f"no: {share:.0%} of a matrix",
        same(OnnxEncoder(folder).encode(asked)),
        same(bases.library(folder, asked)),
        NOT_RUN if server is None else same(toys.encode_export(server, folder, asked)),
    ]


def made(families: Iterable[str] = bases.FAMILIES) -> Iterator[tuple[str, ...]]:
    """The rows of the families anew, one by one."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        server = None
        if install.ready():
            server = toys.triton(root / "triton")
            stack.callback(server.stop)
        for family in families:
            for precision in bases.PRECISIONS:
                folder = root / f"{family}-{precision}"
                folder.mkdir()
                yield family, precision, *answers_of(folder, family, precision, server)


def main(families: Sequence[str]) -> None:
    """Puts each row on the page when it is made, in the order of the families: all of them, or those told."""
    for family, precision, *answers in made(families or bases.FAMILIES):
        page, said = PAGE.read_text(encoding="utf-8"), committed()
        said[family, precision] = tuple(answers)
        every = [(f, p) for f in bases.FAMILIES for p in bases.PRECISIONS if (f, p) in said]
        rows = [HEAD, ["---"] * len(HEAD), *((*key, *said[key]) for key in every)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        before, _, rest = page.partition(f"| {HEAD[0]} | {HEAD[1]} |")
        after = rest.partition("\n\n")[2]
        PAGE.write_text(f"{before}{table}\n\n{after}".rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
