"""What Prometheus sees of a gateway. No user id and no query is ever a label."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from crops.arms import ARMS, NONE
from crops.long_play import LONG_PLAY_S

PHASES = ("encode", "retrieve", "total")
# Seconds; the SLO's bound of 0.2 s is one of the edges.
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one gateway, in a registry of their own: two gateways in one process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter(
            "crops_search_requests_total", "Searches by arm and outcome", ["arm", "outcome"], registry=own
        )
        self.seconds = Histogram(
            "crops_search_seconds",
            "Seconds of a search's phases",
            ["arm", "phase"],
            buckets=BUCKETS,
            registry=own,
        )
        self.impressions = Counter("crops_impressions_total", "Exposed results", ["arm"], registry=own)
        self.clicks = Counter("crops_clicks_total", "Clicks taken", ["arm"], registry=own)
        self.long_plays = Counter(
            "crops_long_plays_total",
            f"Plays of {LONG_PLAY_S:g} s, or whole if shorter",
            ["arm"],
            registry=own,
        )
        self.searches = Counter("crops_searches_total", "Searches answered", ["arm"], registry=own)
        self.reformulations = Counter(
            "crops_reformulations_total", "Searches that another query followed", ["arm"], registry=own
        )
        self.empty = Counter(
            "crops_empty_results_total", "Searches answered without any result", ["arm"], registry=own
        )
        self.events_lost = Counter(
            "crops_events_lost_total", "Events that could not be made durable", registry=own
        )
        self.event_lag = Gauge(
            "crops_event_log_lag_seconds", "How long the oldest waiting event has waited", registry=own
        )
        self.release = Gauge(
            "crops_release_info", "1 for what each arm serves", ["arm", "release", "index"], registry=own
        )
        self.rejected = Counter(
            "crops_release_rejected_total", "Releases that were refused", ["reason"], registry=own
        )
        self.generation = Gauge(
            "crops_manifest_generation", "Generation of the manifest that is served", registry=own
        )
        self.index_age = Gauge(
            "crops_index_built_timestamp_seconds",
            "When the index of an arm was written",
            ["arm"],
            registry=own,
        )
        self.in_flight = Gauge("crops_searches_in_flight", "Searches being answered", registry=own)
        self.breaker = Gauge("crops_encoder_breaker_open", "1 while Triton is left alone", registry=own)
        self.cache_hits = Counter(
            "crops_embedding_cache_hits_total", "Queries whose embedding was known", ["arm"], registry=own
        )
        self.query_chars = Histogram(
            "crops_query_characters",
            "Length of queries, characters",
            ["arm"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
            registry=own,
        )
        self.top_score = Histogram(
            "crops_top_score",
            "Best score of a search: how near the query is to the catalogue",
            ["arm"],
            buckets=tuple(x / 20 for x in range(-4, 21)),
            registry=own,
        )
        self.words = Counter("crops_query_words_total", "Words of queries", ["arm"], registry=own)
        self.unknown_words = Counter(
            "crops_query_words_unknown_total",
            "Words of queries that no document and no training query has",
            ["arm"],
            registry=own,
        )
        self.vector_norm = Histogram(
            "crops_query_vector_norm",
            "Length of query vectors; anything but 1 is a broken encoder",
            ["arm"],
            buckets=(0.5, 0.9, 0.99, 1.01, 1.1, 2.0),
            registry=own,
        )
        self.centroid = Gauge(
            "crops_query_centroid_cosine",
            "Cosine of the mean query vector with that of the release's own queries",
            ["arm"],
            registry=own,
        )
        self.probe_recall = Gauge(
            "crops_probe_recall",
            "Share of what the index found for its probes at load that it finds now",
            ["arm"],
            registry=own,
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
            ):
                counter.labels(arm)

    def serve(self, served: dict[str, tuple[str, str, float]], generation: int) -> None:
        """served: arm -> release, index checksum, when it was written (Unix seconds)."""
        self.release.clear()
        self.index_age.clear()
        for arm, (release, index, built_s) in served.items():
            self.release.labels(arm, release, index[:12]).set(1)
            self.index_age.labels(arm).set(built_s)
        self.generation.set(generation)
