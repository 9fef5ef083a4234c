"""Settings of `crops export`."""

from typing import Literal

from pydantic import Field

from crops.config.base import StageConfig


class ExportConfig(StageConfig):
    """How the query encoder is written as ONNX and checked."""

    opset: int = Field(17, ge=14)
    """ONNX opset. Source: ours: what ONNX Runtime and Triton have supported for years."""
    max_difference: float = Field(1e-4, gt=0)
    """Largest difference of a vector's element to torch. Source: ours."""
    sentence_transformers: bool = True
    """Also write the folder that sentence-transformers, transformers and MLflow open: the weights once more.
    Source: ours."""
    width: int | None = Field(None, ge=1)
    """Width of the release's vectors, numbers: one of train.widths, whose recall is then what the gate asks
    about; null: the whole. What no width was trained for stays whole. Source: ours.
    """
    reranker: bool = False
    """Also write θ's cross-encoder, which the gateway's setting rerank orders the first results by. Source:
    ours, off."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """Of the ONNX file's weights, for documents and queries alike: float16 is half the bytes, int8 a quarter.
    An export that loses more than the next two allow is refused. Source: ours."""
    max_recall_loss: float = Field(0.005, ge=0, le=1)
    """Most recall@100 on the log's test queries that float16 or int8 may cost, share. Source: ours."""
    min_overlap: float = Field(0.95, ge=0, le=1)
    """The same where no test query has a document: least share of float32's first 100 that stays. Source:
    ours."""
    precision_queries: int = Field(2_000, ge=1)
    """Queries that float16 and int8 are tried on, queries. Source: ours."""
    probes: int = Field(32, ge=1)
    """Texts that parity and latency are measured on."""
