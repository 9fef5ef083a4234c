"""The catalogue as the encoder reads it: one text per video."""

from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from crops.text import document_text

_TEXTS = dt.Array(dt.string)


def _text(caption: Any, keywords: Any, cover_text: Any, related_queries: Any) -> Any:
    """DuckDB hands over whole Arrow arrays, Spark's Arrow function one value of each at a time."""
    if isinstance(caption, pa.Array | pa.ChunkedArray):
        columns = (column.to_pylist() for column in (caption, keywords, cover_text, related_queries))
        return pa.array([_text(*row) for row in zip(*columns, strict=True)], pa.string())
    return document_text(caption or "", _filled(keywords), cover_text or "", _filled(related_queries))


def _filled(texts: Any) -> list[str]:
    return [] if texts is None else [text for text in texts if text]


_document_text = ibis.udf.scalar.pyarrow(_text, signature=((dt.string, _TEXTS, dt.string, _TEXTS), dt.string))


def documents(videos: ir.Table) -> ir.Table:
    """in: videos(video_id, caption, keywords, cover_text, related_queries); out: (doc_id, text).

    A video without any text has the text "": the caller materialises the table and leaves those out, and says
    how many.
    """
    # Filled before the call: DuckDB answers null where any argument of a function is null, and the rest would
    # be lost.
    none = ibis.literal([], type=_TEXTS)
    caption, cover_text = videos.caption.fill_null(""), videos.cover_text.fill_null("")
    text = _document_text(
        caption, videos.keywords.fill_null(none), cover_text, videos.related_queries.fill_null(none)
    )
    return videos.select(doc_id="video_id", text=text)
