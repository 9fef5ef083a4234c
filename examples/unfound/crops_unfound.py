"""P4: queries that an LLM wrote for documents that nobody found, a perspective by the recipe in CONTRIBUTING.

`python -m crops_unfound` writes the table (crops_unfound_writer).
"""

from typing import Any

from crops.perspectives import Perspective, register
from crops.tables.records import table

NAME = "unfound"
# ts: when the pair may be learnt from first, the last training day of the log that it was written for.
COLUMNS = "query string, video_id string, ts timestamp, model string"
UNFOUND = table(NAME, COLUMNS, key="query video_id model", partitioned=True)


def unfound(searches: Any, rows: Any) -> Any:  # noqa: ARG001
    """in: searches (not read: nobody searched for these), unfound(query, video_id, ts, model); out: (query,
    video_id, event_id, ts). A model is an event: two that write the same query say it twice.
    """
    return rows.select("query", "video_id", "ts", event_id="model")


def install() -> None:
    """Registers the perspective. θ decides, because a model's word is no click; it is not shifted, because
    the log judges next to none of these pairs.
    """
    register(Perspective(name=NAME, label=4, gated=True), mine=unfound, log=UNFOUND)


if __name__ == "__main__":
    import crops_unfound_writer

    crops_unfound_writer.program()
