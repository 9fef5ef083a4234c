"""What a log says about relevance, as expressions: tables in, a table out, never run here."""

from crops.text import normalise_query as normalise_query
