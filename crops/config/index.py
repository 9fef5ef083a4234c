"""Settings of `crops index`."""

from pydantic import Field

from crops.config.base import StageConfig


class IndexConfig(StageConfig):
    """Which FAISS index is built for how many documents."""

    factories: dict[int, str] = Field(
        default_factory=lambda: {
            50_000: "Flat",
            1_000_000: "IVF1024,Flat",
            1_000_000_000: "IVF4096,PQ64x4fs,Refine(SQfp16)",
        }
    )
    """Most documents -> FAISS factory string. Source: ours, from measured recall and speed at 200 k x 256."""
    nprobe: int = Field(64, ge=1)
    """Lists searched in an IVF index. Source: ours: recall 0.99 at 200 k documents."""
    ef_search: int = Field(200, ge=1)
    """Breadth of an HNSW search. Source: ours: recall 0.998 at 200 k documents."""
    refine_factor: int = Field(32, ge=1)
    """Refine, RFlat: this many times k candidates are scored again by their vectors, of 16 bits a number or
    exact. Source: ours: at 100 k x 256 recall@100 is 0.63 at 1, 0.87 at 8 and 0.93 at 16.
    """
    batch: int = Field(1024, ge=1)
    """Documents encoded at once."""
    rebuild_above: float = Field(0.2, ge=0, le=1)
    """`crops refresh`: with more than this share of new documents the index is built anew instead of
    extended. Source: ours; lists and codes were trained on the old ones.
    """
    probes: int = Field(200, ge=1)
    """Document vectors that recall against exact search is measured with."""
