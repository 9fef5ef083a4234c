"""What Prometheus sees of a gateway. No user id and no query is ever a label."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from crops.arms import ARMS, NONE
from crops.experiment import reach
from crops.long_play import LONG_PLAY_S
from serving.gateway.errors import OUTCOMES

PHASES = ("encode", "retrieve", "total")
# Seconds; the SLO's bound of 0.2 s is one of the edges.
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)


class Reach:
    """The users that each arm of the running experiments has reached: see crops.experiment.reach."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._ranks: dict[tuple[str, str, int], int] = {}

    def add(self, experiment: str, arm: str, user_id: str) -> None:
        """Most calls change nothing: a user counts once, and few have a higher rank than all before."""
        register, rank = reach.rank(user_id)
        if rank > self._ranks.get((experiment, arm, register), 0):
            self._ranks[experiment, arm, register] = rank
            self._gauge.labels(experiment, arm, register).set(rank)

    def keep(self, experiments: list[str]) -> None:
        """Forgets the users of all others."""
        for key in [key for key in self._ranks if key[0] not in experiments]:
            del self._ranks[key]
            self._gauge.remove(*key)


class Metrics:
    """The metrics of one gateway, in a registry of their own: two gateways in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        count, gauge = partial(Counter, registry=own), partial(Gauge, registry=own)
        histogram = partial(Histogram, registry=own)
        by_arm = ["arm"]
        self.requests = count(
            "crops_search_requests_total", "Searches by arm and outcome", ["arm", "outcome"]
        )
        self.answers = count("crops_http_answers_total", "Answers by route and status", ["route", "status"])
        self.seconds = histogram(
            "crops_search_seconds", "Seconds of a search's phases", ["arm", "phase"], buckets=BUCKETS
        )
        self.impressions = count("crops_impressions_total", "Exposed results", by_arm)
        self.clicks = count("crops_clicks_total", "Clicks taken", by_arm)
        self.long_plays = count(
            "crops_long_plays_total", f"Plays of {LONG_PLAY_S:g} s, or whole if shorter", by_arm
        )
        self.searches = count("crops_searches_total", "Searches answered", by_arm)
        self.reformulations = count(
            "crops_reformulations_total", "Searches that another query followed", by_arm
        )
        self.empty = count("crops_empty_results_total", "Searches answered without any result", by_arm)
        self.rerank_seconds = histogram(
            "crops_rerank_seconds", "Seconds of re-ranking a search", by_arm, buckets=BUCKETS
        )
        self.rerank_kept = count(
            "crops_rerank_kept_total",
            "Searches answered in the dense order: the re-ranker came too late or failed",
            by_arm,
        )
        self.events_lost = count("crops_events_lost_total", "Events that could not be made durable")
        self.events_damaged = count(
            "crops_events_damaged_bytes_total",
            "Bytes that recovery of the event log could not read as records",
        )
        self.event_lag = gauge("crops_event_log_lag_seconds", "How long the oldest waiting event has waited")
        self.release = gauge("crops_release_info", "1 for what each arm serves", ["arm", "release", "index"])
        self.rejected = count(
            "crops_release_rejected_total", "Looks at a manifest whose release is refused", ["reason"]
        )
        self.generation = gauge("crops_manifest_generation", "Generation of the manifest that is served")
        self.index_age = gauge(
            "crops_index_built_timestamp_seconds", "When the index of an arm was written", by_arm
        )
        self.reach = Reach(
            gauge(
                "crops_experiment_users_rank",
                "HyperLogLog registers of the users of an experiment's arm",
                ["experiment", "arm", "register"],
            )
        )
        self.in_flight = gauge("crops_searches_in_flight", "Searches being answered")
        self.breaker = gauge("crops_encoder_breaker_open", "1 while Triton is left alone")
        self.cache_hits = count(
            "crops_embedding_cache_hits_total", "Queries whose embedding was known", by_arm
        )
        self.query_chars = histogram(
            "crops_query_characters",
            "Length of queries, characters",
            by_arm,
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
        )
        self.top_score = histogram(
            "crops_top_score",
            "Best score of a search: how near the query is to the catalogue",
            by_arm,
            buckets=tuple(x / 20 for x in range(-4, 21)),
        )
        self.words = count("crops_query_words_total", "Words of queries", by_arm)
        self.unknown_words = count(
            "crops_query_words_unknown_total",
            "Words of queries that no document and no training query has",
            by_arm,
        )
        self.vector_norm = histogram(
            "crops_query_vector_norm",
            "Length of query vectors; anything but 1 is a broken encoder",
            by_arm,
            buckets=(0.5, 0.9, 0.99, 1.01, 1.1, 2.0),
        )
        self.centroid = gauge(
            "crops_query_centroid_cosine",
            "Cosine of the mean query vector with that of the release's own queries",
            by_arm,
        )
        self.probe_recall = gauge(
            "crops_probe_recall",
            "Share of what the index found for its probes at load that it finds now",
            by_arm,
        )
        for arm in (NONE, *ARMS):  # there from the start: a rate needs a first 0
            for counter in (
                self.impressions,
                self.clicks,
                self.long_plays,
                self.searches,
                self.reformulations,
                self.empty,
                self.words,
                self.unknown_words,
                self.rerank_kept,
            ):
                counter.labels(arm)
            for outcome in OUTCOMES:
                self.requests.labels(arm, outcome)

    def serve(self, served: dict[str, tuple[str, str, float]], generation: int) -> None:
        """served: arm -> release, index checksum, when it was written (Unix seconds)."""
        self.release.clear()
        self.index_age.clear()
        for arm, (release, index, built_s) in served.items():
            self.release.labels(arm, release, index[:12]).set(1)
            self.index_age.labels(arm).set(built_s)
        self.generation.set(generation)
