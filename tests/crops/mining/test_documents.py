"""The catalogue as the encoder reads it: the same text on every engine as crops.text makes."""

from crops.mining import documents
from crops.tables import records
from crops.text import document_text
from tests.crops.mining.small_logs import arrow, video


def test_texts(house):
    """All fields, empty fields, null fields (Parquet of others), null list items, and no text at all."""
    rows = [
        {
            **video("a", "Sourdough, Day 1"),
            "keywords": ["Bread", "baking"],
            "related_queries": ["how to bake"],
            "cover_text": "ＲＯＬＬＳ",
        },
        {**video("b", "x"), "keywords": ["Bread", None], "cover_text": None, "related_queries": None},
        video("c", ""),
        {**video("d"), "caption": None, "keywords": None, "cover_text": None, "related_queries": None},
    ]
    found = house.fetch(documents.documents(house.put(arrow(records.VIDEOS, rows), "videos")))
    texts = {row["doc_id"]: row["text"] for row in found}
    whole = document_text("Sourdough, Day 1", ["Bread", "baking"], "ＲＯＬＬＳ", ["how to bake"])
    assert whole == "sourdough, day 1 | bread baking | rolls | how to bake"
    assert texts == {"a": whole, "b": "x | bread", "c": "", "d": ""}
