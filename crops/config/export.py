"""Settings of `crops export`."""

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
    int8: bool = False
    """Also write query_encoder.int8.onnx where its cosine to float stays high, for servers of your own: our
    Triton serves the float one. Source: ours."""
    int8_min_cosine: float = Field(0.98, gt=0, le=1)
    """Least cosine of an int8 vector to its float vector. Source: ours."""
    probes: int = Field(32, ge=1)
    """Texts that parity and latency are measured on."""
