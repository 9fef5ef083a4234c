"""The catalogue as the encoder reads it: one text per video."""

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from crops.text import document_text

_TEXTS = dt.Array(dt.string)


def _texts(caption: pa.Array, keywords: pa.Array, cover_text: pa.Array, related_queries: pa.Array) -> pa.Array:
    columns = (caption.to_pylist(), keywords.to_pylist(), cover_text.to_pylist(), related_queries.to_pylist())
    rows = zip(*columns, strict=True)
    texts = [document_text(c or "", [x for x in k or () if x], t or "", [x for x in r or () if x]) for c, k, t, r in rows]
    return pa.array(texts, pa.string())


_document_text = ibis.udf.scalar.pyarrow(_texts, signature=((dt.string, _TEXTS, dt.string, _TEXTS), dt.string))


def documents(videos: ir.Table) -> ir.Table:
    """in: videos(video_id, caption, keywords, cover_text, related_queries); out: (doc_id, text).

    A video without any text has the text "": the caller materialises the table and leaves those out, and says how many.
    """
    text = _document_text(videos.caption, videos.keywords, videos.cover_text, videos.related_queries)
    return videos.select(doc_id="video_id", text=text)
