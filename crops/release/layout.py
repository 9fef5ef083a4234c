"""What lies in a release's folder: the one place that names its files, seals it and checks it.

Every file but checksums.json is listed there with its sha256, and a file that is not listed is refused:
readers take whole folders (documents/) and files that another one refers to (the weights of an ONNX model).
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from crops.errors import InputError
from crops.tables import folders

QUERY_ENCODER, DOCUMENT_ENCODER = "query_encoder.onnx", "document_encoder.onnx"
TOKENIZER = "tokenizer.json"
ENCODER = "encoder.json"  # width, tokens, pooling
LAST_FIT = "last_fit"  # its key: the last day that was learnt from, where held-out days were among them
ENCODER_FILES = (ENCODER, TOKENIZER, QUERY_ENCODER)  # what encoding a query takes
# What orders the first results, where export.reranker asked for it.
RERANKER, RERANKER_TOKENIZER, RERANKER_MODEL = "reranker.json", "reranker_tokenizer.json", "reranker.onnx"
RERANKER_FILES = (RERANKER, RERANKER_TOKENIZER, RERANKER_MODEL)
INDEX, INDEX_FACTS, DOC_IDS = "index.faiss", "index.json", "doc_ids.parquet"
INDEX_FILES = (INDEX, INDEX_FACTS, DOC_IDS)
DOCUMENTS = "documents"  # a folder: the table of that name
FINGERPRINT = "fingerprint.json"  # probe queries and their vectors
TRAINING_PAIRS = "training_pairs.parquet"
CARD = "MODEL_CARD.md"
# For other libraries: a folder that sentence-transformers opens, the documents' tower if there are two, and
# what MLflow loads it by.
HUB, HUB_DOCUMENTS = "sentence_transformers", "sentence_transformers_documents"
MLMODEL, INPUT_EXAMPLE = "MLmodel", "input_example.json"
PYTHON_ENV, REQUIREMENTS = "python_env.yaml", "requirements.txt"
CHECKSUMS = "checksums.json"

PARTIAL = ".partial"  # of a hidden file that is still being fetched
# MLflow leaves this beside what it loads, in a registry on the same disk even in the registry's own copy.
LOADED = "registered_model_meta"


def of_encoder(name: str) -> bool:
    """Whether a query encoder needs this file. An ONNX model of more than 2 GB keeps its weights beside it,
    in a file whose name begins with its own.
    """
    return name.startswith(ENCODER_FILES)


def of_model(name: str) -> bool:
    """Whether Triton needs this file: of the query encoder or of the re-ranker."""
    return of_encoder(name) or name.startswith(RERANKER_FILES)


def of_tower(name: str) -> bool:
    """Whether vectors of documents hang on this file."""
    return of_encoder(name) or name.startswith(DOCUMENT_ENCODER)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tower(folder: Path) -> str:
    """A sha256 over the files of `of_tower`, of a release or of what export wrote."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and of_tower(p.name))
    listed = "".join(f"{name} {sha256(folder / name)}\n" for name in names)
    return hashlib.sha256(listed.encode()).hexdigest()


def checksum(release: Path) -> str:
    """The sha256 of the release's checksums.json, which stands for all of its files."""
    return sha256(release / CHECKSUMS)


def apart(folder: Path, checksum: str) -> Path:
    """A folder beside `folder` for the release of this checksum, where another release has that name."""
    return folder.with_name(f"{folder.name}-{checksum[:12]}")


def is_release(folder: Path) -> bool:
    """Whether a sealed release lies there."""
    return (folder / CHECKSUMS).is_file()


def listed(release: Path) -> dict[str, str]:
    """The sha256 of every file, by its path in the release; an InputError where the list says anything
    else.
    """
    try:
        checksums = json.loads((release / CHECKSUMS).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(release / CHECKSUMS, f"not JSON: {error}") from error
    if not (isinstance(checksums, dict) and all(isinstance(one, str) for one in checksums.values())):
        raise InputError(release / CHECKSUMS, "expected the sha256 of every file by its name")
    return checksums


def files(release: Path) -> list[str]:
    """The paths of the files and links that lie there, sorted, without checksums.json, what a stage leaves
    beside its output and what a killed `fetch` left; nothing of a release is read from those.
    """
    paths = (p.relative_to(release) for p in release.rglob("*") if p.is_symlink() or not p.is_dir())
    return sorted(
        p.as_posix()
        for p in paths
        if str(p) not in (CHECKSUMS, LOADED, folders.TASK, folders.MARK)
        and not (p.name.startswith(".") and p.suffix == PARTIAL)
    )


def seal(release: Path) -> str:
    """Writes checksums.json with every file of the release; returns its own sha256."""
    checksums = {name: sha256(release / name) for name in files(release)}
    (release / CHECKSUMS).write_text(
        json.dumps(checksums, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return checksum(release)


def unlisted(names: Iterable[str], checksums: dict[str, str]) -> str | None:
    """The problem with the first of `names` that `checksums` does not vouch for, or None."""
    return next((f"{name} is not listed in {CHECKSUMS}" for name in names if name not in checksums), None)


def problem(
    release: Path, expected: str | None = None, *, wanted: Callable[[str], bool] = lambda _name: True
) -> str | None:
    """What is wrong with the first bad file of a release, or None: it is missing, is not what was registered,
    lies outside, or is not listed.

    expected: the sha256 of checksums.json, None if nobody knows it. Of the listed files only those that are
    `wanted` are read.
    """
    if not is_release(release) or (expected is not None and checksum(release) != expected):
        return f"{CHECKSUMS} is not what was registered"
    checksums = listed(release)
    for name, digest in sorted(checksums.items()):
        path = release / name
        if wanted(name) and not (inside(release, name) and path.is_file() and sha256(path) == digest):
            return f"{name} is not what was registered"
    return unlisted(files(release), checksums)


def inside(release: Path, name: str) -> bool:
    """Whether the path `name` stays in the release, links followed."""
    return (release / name).resolve().is_relative_to(release.resolve())


def check(release: Path, *, wanted: Callable[[str], bool] = lambda _name: True) -> None:
    """An InputError that names the release and its first bad file, as `problem` finds it."""
    if fault := problem(release, wanted=wanted):
        raise InputError(release, fault)
