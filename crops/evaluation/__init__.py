"""Metrics of rankings, and their intervals."""

from crops.evaluation.metrics import ndcg_at_k, recall_at_k

__all__ = ["ndcg_at_k", "recall_at_k"]
