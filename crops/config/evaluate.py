"""Settings of `crops evaluate`."""

from pydantic import Field

from crops.config.base import StageConfig


class EvaluateConfig(StageConfig):
    """What is measured and how certain it is made."""

    depth: int = Field(100, ge=100)
    """Documents retrieved per query; recall@100 needs 100. Source: paper."""
    max_queries: int = Field(10_000, ge=1)
    """Most queries per test set, a fixed draw. Source: paper's test size."""
    pool_depth: int = Field(10, ge=1)
    """First results of each system that people may be asked about, documents. Source: ours."""
    tops: int = Field(10, ge=1)
    """First results of each system that are kept for every test query, documents: the report shows them side
    by side. Source: ours.
    """
    bootstrap: int = Field(1_000, ge=100)
    """Draws of the paired bootstrap. Source: ours."""
    head_searches: int = Field(20, ge=1)
    """Head query: at least this many searches in the training days. Source: ours."""
    torso_searches: int = Field(4, ge=1)
    """Torso query: at least this many, tail: fewer. Source: ours."""
    foreign_pieces: int = Field(3, ge=2)
    """A word that the base's tokenizer cuts into this many pieces is foreign to it, pieces. Source: ours."""
    foreign_share: float = Field(0.5, gt=0, le=1)
    """A query with this share of foreign words is foreign, share. Source: ours."""
    fusion: bool = False
    """Also measure the challenger's ranking fused with BM25's by reciprocal rank, as a gateway with the
    setting `fusion` answers. Source: Cormack, Clarke and Büttcher 2009; off: ours.
    """
    rerank: int = Field(0, ge=0)
    """Also measure the challenger's ranking with so many of its first documents in the order of θ, which
    reads each of them with the query, as the gateway's setting rerank answers. Source: ours; 0, off: it takes
    as long as reading them, and learnt from the same clicks.
    """
    cold_start: bool = False
    """Also measure on the documents that training had no positive of, for any query, as what is uploaded
    today: for perspectives that write positives for them. Source: ours: off, because a log with a feed may
    hold too few.
    """
    write_beir: bool = False
    """Also write corpus, test sets and rankings for other programs, as a BEIR folder and TREC's files, into
    beir/ of the output. Source: ours: off, because it repeats the catalogue.
    """
    seed: int = Field(0, ge=0)
    """Chance of draws and bootstrap."""
