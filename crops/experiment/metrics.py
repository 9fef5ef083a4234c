"""The three metrics of an experiment, and the paper's online numbers for them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A ratio of two per-user counts: columns of the table user_days (crops.experiment.sums)."""

    name: str
    numerator: str
    denominator: str
    higher_is_better: bool
    means: str
    paper_lift: float  # arXiv 2511.15443, online A/B: the paper's platform, not yours


METRICS = {
    m.name: m
    for m in (
        Metric(
            name="ctr",
            numerator="clicks",
            denominator="impressions",
            higher_is_better=True,
            means="clicks / impressions",
            paper_lift=0.00869,
        ),
        Metric(
            name="lpr",
            numerator="long_plays",
            denominator="impressions",
            higher_is_better=True,
            means="long plays / impressions",
            paper_lift=0.00483,
        ),
        Metric(
            name="rqr",
            numerator="reformulated",
            denominator="settled",
            higher_is_better=False,
            means="reformulated searches / searches",
            paper_lift=-0.00646,
        ),
    )
}
