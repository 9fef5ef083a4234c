"""Settings of one gateway process: strict, frozen, from the command line's JSON."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from crops import cores
from crops.config.base import StageConfig
from crops.reformulation import WINDOW_S

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(StageConfig):
    """What a gateway needs to know; each limit says what it protects."""

    manifest: str = Field(min_length=1, description="fsspec URL of the release manifest.")
    triton: str = Field(
        "127.0.0.1:8001",
        description="Address of Triton's gRPC API, host:port; dns:///NAME:PORT takes turns among all of "
        "a name.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; ::, every one of IPv6 and IPv4.")
    hosts: tuple[str, ...] = Field(
        (),
        description="Names by which it may be called (header Host); none: any, and of one that listens on "
        "loopback alone, loopback's: no web page gets to it under a name of its own.",
    )
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    state: Path = Field(Path("state"), description="Folder for downloaded releases.")
    events: Path | None = Field(None, description="Folder of the event log; none: no event is taken.")
    kafka: str | None = Field(
        None, description="Bootstrap servers of Kafka: events go there instead of to a folder."
    )
    kafka_file: Path | None = Field(
        None,
        description="File of lines name=value that say how Kafka lets us in (security.protocol, sasl.*, "
        "ssl.*), in librdkafka's words.",
    )
    kafka_topic: str = Field("crops-events", min_length=1, description="Topic of the events.")
    features: str | None = Field(
        None, description="GrowthBook features file of the running experiments: a path or an s3:// URL."
    )
    rollout: str | None = Field(
        None,
        description="Folder of the rollout's state, or its s3:// URL, for the page /experiment and its abort "
        "request.",
    )
    readout: Path | None = Field(
        None, description="Folder that `crops experiment` writes, for the page /experiment."
    )
    report: Path | None = Field(None, description="report.html of the training, linked from the console.")
    secret_file: Path | None = Field(
        None, description="File with the secret that signs search ids; all replicas share it."
    )
    admin_token_file: Path | None = Field(
        None, description="File with the token of administrative calls; none: they are refused."
    )
    milvus: str | None = Field(
        None, description="Milvus that holds the indexes (crops deploy fills it); none: FAISS, in memory."
    )
    index_plugin: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function that connects to the engine of the indexes (docs/engines); none: "
        "milvus, or FAISS in memory.",
    )
    fusion: bool = Field(
        False,
        description="Answer with two rankings fused by reciprocal rank: the vectors' and BM25's of the "
        "release's documents, which are then held in memory. Source: Cormack, Clarke and Büttcher 2009.",
    )
    rerank: int = Field(
        0,
        ge=0,
        le=32,
        description="First results that the release's re-ranker orders (export.reranker), in one call of "
        "Triton; 0: none. Not with fusion, whose ranks are no scores.",
    )
    rerank_timeout_s: float = Field(
        0.1, gt=0, description="Seconds for that call; without an answer the dense order stays."
    )
    videos: Path | None = Field(
        None, description="Folder with the table videos: durations, for long plays of short videos."
    )
    alternatives: dict[str, Path] = Field(
        {},
        description="Folders of releases, by name, that the console shows beside what is served; nobody is "
        "served them.",
    )
    replica: str = Field(
        "gateway-0",
        min_length=1,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Name of this replica in the log.",
    )
    hash_users: bool = Field(
        False,
        description="Log keyed hashes instead of user ids; hash the feed's ids alike "
        "(serving.events.records.pseudonym).",
    )
    window_s: float = Field(
        WINDOW_S,
        gt=0,
        description="Seconds within which another query counts as a reformulation. Source: paper.",
    )
    events_within_s: float = Field(
        14_400.0, gt=0, description="Seconds after its search in which an event is taken. Source: ours: 4 h."
    )
    redis: str | None = Field(
        None,
        description="Redis URL for what replicas share to count reformulations, and events once; none: in "
        "process.",
    )

    poll_s: float = Field(1.0, gt=0, description="Seconds between two looks at the manifest.")
    deadline_s: float = Field(1.0, gt=0, description="Seconds after which a search is given up.")
    encode_timeout_s: float = Field(
        0.4, gt=0, description="Seconds for one call of Triton; two fit into the deadline."
    )
    load_timeout_s: float = Field(120.0, gt=0, description="Seconds for Triton to load a model.")
    breaker_failures: int = Field(
        3, ge=1, description="Failed calls in a row after which Triton is left alone."
    )
    breaker_pause_s: float = Field(0.25, gt=0, description="Seconds until the next trial call.")
    drain_s: float = Field(
        0.0, ge=0, description="Seconds between 'not ready' and closing, for load balancers to notice."
    )

    max_in_flight: int = Field(256, ge=1, description="Searches at once; more get 429.")
    max_batch: int = Field(32, ge=1, description="Searches in one call of Triton or FAISS.")
    encode_workers: int = Field(2, ge=1, description="Calls of Triton at once.")
    threads: int = Field(0, ge=0, description="Threads that search the index; 0: one per usable core.")
    cache_queries: int = Field(
        50_000, ge=0, description="Embeddings kept per release; 50 k of width 384 take 77 MB."
    )
    max_body_bytes: int = Field(1 << 20, ge=1024, description="Bytes of a request's body.")
    max_bodies_bytes: int = Field(
        64 << 20, ge=1024, description="Bytes of the bodies of all requests together; more get 429."
    )
    max_head_bytes: int = Field(
        32 << 10, ge=1024, description="Bytes of a request's first line and headers; more get 431."
    )
    max_connections: int = Field(
        2000,
        ge=1,
        description="Open connections, no more than files may be open; for a new one the one that has owed "
        "its request for longest is closed.",
    )
    head_timeout_s: float = Field(
        10.0, gt=0, description="Seconds for a request's head, and for reading its answer."
    )
    body_timeout_s: float = Field(10.0, gt=0, description="Seconds for a request's body.")
    max_query_chars: int = Field(1024, ge=1, description="Characters of a query.")
    max_k: int = Field(100, ge=1, description="Results that one search may ask for.")
    max_events: int = Field(1000, ge=1, description="Events in one list.")
    ranked_extra: int = Field(
        20, ge=0, description="Results beyond k that are retrieved and logged as `ranked`."
    )
    fingerprint_tolerance: float = Field(
        5e-3, gt=0, description="Largest difference of a probe's element; float16 on a GPU fits."
    )
    index_probes: int = Field(
        16, ge=0, description="Documents re-encoded and looked up to see that index and encoder belong."
    )

    @model_validator(mode="after")
    def _one_order(self) -> Self:
        if self.rerank and self.fusion:
            raise ValueError("rerank weighs the dense score, which fusion has not: choose one")
        return self

    @property
    def private(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host in LOOPBACK

    @property
    def called(self) -> frozenset[str] | None:
        """What a request may name as its host; None: anything."""
        return frozenset(self.hosts) | LOOPBACK if self.hosts or self.private else None

    @property
    def search_threads(self) -> int:
        """Threads of the index search."""
        return self.threads or cores.count()
