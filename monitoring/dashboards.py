"""The five dashboards, as code: `make monitoring` writes dashboards/*.json, and the same into the chart.

Each answers one question. A panel's title is what it shows in words; its description says what to do when it
looks wrong.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from crops.long_play import LONG_PLAY_S
from crops.reformulation import WINDOW_S

RUNBOOKS = "monitoring/runbooks"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# A series of ours or Triton's, with its matchers: the namespace chosen on top is added to each.
SERIES = re.compile(r"\b((?:crops|slo)[_:][\w:]+|nv_\w+|up)\b(?:\{(.*?)\})?(?=[^\w\"(])")
NAMESPACE = 'namespace=~"$namespace"'
HEIGHT, WIDTHS = 8, {"third": 8, "half": 12, "whole": 24}


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `queries`: legend -> PromQL; `limit`: where the line turns red (from the SLOs or the
    alerts).
    """

    title: str
    queries: dict[str, str]
    unit: str = "short"
    about: str = ""
    limit: float | None = None
    below: bool = False  # red below the limit instead of above
    width: str = "half"
    single: bool = False  # the present value, large


def _per_second(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[5m]))"


def _share(numerator: str, denominator: str, by: str = "arm") -> str:
    return f"{_per_second(numerator, by)} / ({_per_second(denominator, by)} > 0)"


def _quantile(q: float, by: str, phase: str = "total") -> str:
    return (
        f"histogram_quantile({q}, sum by (le, {by}) "
        f'(rate(crops_search_seconds_bucket{{phase="{phase}"}}[5m])))'
    )


def _queue(kind: str) -> str:
    return _share(f"nv_inference_{kind}_duration_us", "nv_inference_request_success", "model")


BAD = 'outcome!~"ok|empty"'
SEARCH = (
    Panel(
        title="Gateways that answer",
        queries={"": 'sum(up{job="crops-gateway"})'},
        single=True,
        width="third",
        limit=1,
        below=True,
        about="Runbook GatewayDown.",
    ),
    Panel(
        title="Searches per second",
        queries={"": "sum(rate(crops_search_requests_total[5m]))"},
        single=True,
        width="third",
    ),
    Panel(
        title="Error share",
        unit="percentunit",
        single=True,
        width="third",
        limit=0.001,
        queries={
            "": f"(sum(rate(crops_search_requests_total{{{BAD}}}[5m])) or vector(0)) / "
            "sum(rate(crops_search_requests_total[5m]))"
        },
        about="The SLO allows 0.1 %. Runbook SearchErrorBudgetBurns.",
    ),
    Panel(
        title="Searches per second, by outcome",
        queries={"{{outcome}}": "sum by (outcome) (rate(crops_search_requests_total[5m]))"},
        unit="reqps",
        about="Anything but ok and empty is a failure for somebody. overloaded: more searches than "
        "max_in_flight.",
    ),
    Panel(
        title="Latency of a search",
        unit="s",
        limit=0.2,
        queries={f"p{q * 100:g}": _quantile(q, "job") for q in (0.5, 0.95, 0.99)},
        about="The SLO: 99 % within 0.2 s. Runbook SearchLatencyBudgetBurns.",
    ),
    Panel(
        title="Where the time goes, p99 by phase",
        unit="s",
        queries={phase: _quantile(0.99, "job", phase) for phase in ("encode", "retrieve", "total")},
        about="encode: Triton and the way there. retrieve: the index. total less both: the log's fsync.",
    ),
    Panel(
        title="Error budget spent, times the allowed rate",
        limit=1.0,
        queries={
            "{{slo}} over 1 h": "slo:error:ratio_rate1h / 0.001",
            "{{slo}} over 6 h": "slo:error:ratio_rate6h / 0.001",
        },
        about="1 spends the budget of 30 days in 30 days; 14.4 pages.",
    ),
    Panel(
        title="Searches being answered",
        queries={"{{instance}}": "crops_searches_in_flight"},
        about="max_in_flight answers 429.",
    ),
    Panel(
        title="Encoder left alone (1: breaker open)",
        queries={"{{instance}}": "crops_encoder_breaker_open"},
        limit=0.5,
        about="Runbook EncoderUnavailable.",
    ),
    Panel(
        title="Searches without any result",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_empty_results_total", "crops_searches_total")},
        about="Runbook EmptyResultsUp.",
    ),
    Panel(
        title="Queries whose embedding was cached",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_embedding_cache_hits_total", "crops_searches_total")},
        about="Falls to 0 with each new release; a share that stays low costs Triton.",
    ),
    Panel(
        title="Searches whose re-ranker came too late",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_rerank_kept_total", "crops_searches_total")},
        about="They are answered in the dense order. 0 where the gateway's setting rerank is off.",
    ),
)
EXPERIMENT = (
    Panel(
        title="Click-through rate",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_clicks_total", "crops_impressions_total")},
        about="Guardrail, and primary metric of the readout, which decides: no intervals here. "
        "Runbook TreatmentClicksLess.",
    ),
    Panel(
        title="Long-play rate",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_long_plays_total", "crops_impressions_total")},
        about=f"Plays of {LONG_PLAY_S:g} s, or whole if shorter, per impression.",
    ),
    Panel(
        title="Reformulation rate",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_reformulations_total", "crops_searches_total")},
        about=f"Searches that another query followed within {WINDOW_S} s; lower is better. Runbook "
        "TreatmentReformulatesMore.",
    ),
    Panel(
        title="Share of searches by arm",
        unit="percentunit",
        queries={
            "{{arm}}": "sum by (arm) (rate(crops_searches_total[5m])) / "
            "scalar(sum(rate(crops_searches_total[5m])))"
        },
        about="Control and treatment must stay alike: a mismatch blocks every verdict.",
    ),
    Panel(title="Latency by arm, p99", unit="s", queries={"{{arm}}": _quantile(0.99, "arm")}, limit=0.2),
    Panel(
        title="Errors by arm",
        unit="percentunit",
        queries={"{{arm}}": _share(f"crops_search_requests_total{{{BAD}}}", "crops_search_requests_total")},
    ),
    Panel(
        title="Release of each arm",
        queries={"{{arm}}: {{release}}": "max by (arm, release) (crops_release_info)"},
        width="half",
    ),
    Panel(
        title="Generation of the manifest",
        queries={"{{instance}}": "crops_manifest_generation"},
        about="All gateways must agree. Runbook GatewaysDisagree.",
    ),
)
TRITON = (
    Panel(
        title="Wait in the queue per request",
        unit="µs",
        queries={"{{model}}": _queue("queue")},
        limit=5000,
        about="Rises before latency does; what the chart scales by.",
    ),
    Panel(title="Compute per request", unit="µs", queries={"{{model}}": _queue("compute_infer")}),
    Panel(
        title="Requests per second",
        unit="reqps",
        queries={"{{model}}": "sum by (model) (rate(nv_inference_request_success[5m]))"},
    ),
    Panel(
        title="Failed requests per second",
        unit="reqps",
        limit=0.01,
        queries={"{{model}}": "sum by (model) (rate(nv_inference_request_failure[5m]))"},
    ),
    Panel(
        title="Texts in one execution",
        queries={"{{model}}": _share("nv_inference_count", "nv_inference_exec_count", "model")},
        about="Near 1 the dynamic batcher has nothing to put together; near max_batch more "
        "instances would help.",
    ),
    Panel(
        title="Requests waiting",
        queries={"{{model}}": "sum by (model) (nv_inference_pending_request_count)"},
        about="max_queue_size refuses more.",
    ),
)
EVENTS = (
    Panel(
        title="Wait of the oldest event",
        unit="s",
        queries={"{{instance}}": "crops_event_log_lag_seconds"},
        limit=2,
        width="whole",
        about="Searches and events are acknowledged only when durable, so people feel this. Runbook "
        "EventLogLags.",
    ),
    Panel(
        title="Events refused per second",
        queries={"": "sum(rate(crops_events_lost_total[5m]))"},
        limit=1e-9,
        about="The disk of the event log is full or failing; clients were told. Runbook EventsLost.",
    ),
    Panel(
        title="Damaged bytes found at the last start",
        unit="bytes",
        queries={"{{instance}}": "crops_events_damaged_bytes_total"},
        limit=1e-9,
        about="Acknowledged records that the disk has spoilt. Runbook EventsDamaged.",
    ),
    Panel(
        title="Events taken per second",
        queries={
            "impressions": "sum(rate(crops_impressions_total[5m]))",
            "clicks": "sum(rate(crops_clicks_total[5m]))",
            "long plays": "sum(rate(crops_long_plays_total[5m]))",
        },
        about="Clicks at 0 while impressions come: the client stopped sending, and training would "
        "learn from it.",
    ),
)
METHOD = (
    Panel(
        title="Words that the release never saw",
        unit="percentunit",
        queries={"{{arm}}": _share("crops_query_words_unknown_total", "crops_query_words_total")},
        about="Users ask for something new: retrain. Runbook QueryVocabularyShifts.",
    ),
    Panel(
        title="Where the queries lie: cosine with the release's own",
        queries={"{{arm}}": "avg by (arm) (crops_query_centroid_cosine)"},
        about="A level means little, a move means that queries changed. Runbook QueryCentroidMoves.",
    ),
    Panel(
        title="Length of query vectors",
        queries={"{{arm}}": _share("crops_query_vector_norm_sum", "crops_query_vector_norm_count")},
        about="1, always. Anything else is a broken encoder. Runbook VectorNormOff.",
    ),
    Panel(
        title="What the index still finds of its probes",
        unit="percentunit",
        queries={"{{arm}}": "min by (arm) (crops_probe_recall)"},
        limit=0.95,
        below=True,
        about="Runbook ProbeRecallDrops.",
    ),
    Panel(
        title="Query length, characters",
        queries={
            "median": "histogram_quantile(0.5, sum by (le) (rate(crops_query_characters_bucket[5m])))",
            "p95": "histogram_quantile(0.95, sum by (le) (rate(crops_query_characters_bucket[5m])))",
        },
    ),
    Panel(
        title="Best score of a search, median",
        queries={"{{arm}}": "histogram_quantile(0.5, sum by (le, arm) (rate(crops_top_score_bucket[5m])))"},
        about="How near queries are to the catalogue; falls when users ask for what is not there.",
    ),
    Panel(
        title="Age of the index",
        unit="s",
        queries={"{{arm}}": "time() - max by (arm) (crops_index_built_timestamp_seconds)"},
        limit=259_200,
        about="Older than three days, new videos are missing. Runbook IndexOld.",
    ),
    Panel(
        title="Releases refused",
        queries={"{{reason}}": "sum by (reason) (increase(crops_release_rejected_total[1h]))"},
        limit=0.5,
        about="Runbook ReleaseRejected.",
    ),
    Panel(
        title="Signature 1: reformulations rise",
        unit="percentunit",
        queries={"now": "crops:champion_rqr:ratio1h", "a week ago": "crops:champion_rqr:ratio1h offset 1w"},
        about="People do not find at once what they want. Runbook ReformulationsUp. Signatures 2 "
        "and 3, high recall with low "
        "nDCG@4 and a loss that plateaus early, are in the training report: "
        "RecallHighNdcgDown, LossPlateausEarly.",
    ),
)
DASHBOARDS = {
    "search-health": ("Is search healthy?", SEARCH),
    "experiment": ("How do the arms compare?", EXPERIMENT),
    "triton": ("Do the encoders keep up?", TRITON),
    "event-log": ("Is everything that users do kept?", EVENTS),
    "method": ("Is the model still right for what users ask?", METHOD),
}


def made() -> dict[str, str]:
    """File name -> JSON of every dashboard."""
    return {f"{uid}.json": _json(uid, title, panels) for uid, (title, panels) in DASHBOARDS.items()}


def _json(uid: str, title: str, panels: tuple[Panel, ...]) -> str:
    board = (
        dashboard.Dashboard(f"CroPS: {title}")
        .uid(f"crops-{uid}")
        .tags(["crops"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("namespace")
            .label("Namespace")
            .datasource(SOURCE)
            .query("label_values(crops_manifest_generation, namespace)")
            .include_all(True)
            .all_value(".*")
            .multi(True)
        )
    )
    for other, (name, _) in DASHBOARDS.items():
        if other != uid:
            board = board.link(
                dashboard.DashboardLink(name).type("link").url(f"/d/crops-{other}").keep_time(True)
            )
    for panel in panels:
        board = board.with_panel(_panel(panel))
    return (
        json.dumps(
            json.loads(JSONEncoder(sort_keys=True, indent=1).encode(board.build())), indent=1, sort_keys=True
        )
        + "\n"
    )


def _chosen(query: str) -> str:
    """`query` of the chosen namespaces alone."""

    def within(series: re.Match[str]) -> str:
        name, matchers = series.groups(default="")
        return f"{name}{{{matchers}{',' if matchers else ''}{NAMESPACE}}}"

    return SERIES.sub(within, f"{query} ").rstrip()


def _panel(panel: Panel) -> Any:
    drawn: Any = stat.Panel() if panel.single else timeseries.Panel().line_width(2).fill_opacity(5)
    drawn = (
        drawn.title(panel.title)
        .description(panel.about)
        .unit(panel.unit)
        .height(HEIGHT)
        .span(WIDTHS[panel.width])
        .datasource(SOURCE)
    )
    if panel.limit is not None:
        colours = ("red", "green") if panel.below else ("green", "red")
        steps = [
            models.Threshold(value=None, color=colours[0]),
            models.Threshold(value=panel.limit, color=colours[1]),
        ]
        drawn = drawn.thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        )
        if not panel.single:
            drawn = drawn.thresholds_style(common.GraphThresholdsStyleConfig().mode("dashed"))
    for legend, query in panel.queries.items():
        drawn = drawn.with_target(
            prometheus.Dataquery().expr(_chosen(query)).legend_format(legend or panel.title)
        )
    return drawn
