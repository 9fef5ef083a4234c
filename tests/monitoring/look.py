"""The dashboards on a page, each panel drawn from a real Prometheus: there is no Grafana to be had without a
registry.

    python tests/monitoring/look.py OUT.html [SECONDS]

The gateway's own metrics are filled by made-up traffic; Triton's are made up by their documented names.
"""

import html
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import yaml
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from serving.gateway.metrics import Metrics  # noqa: E402

# https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html
TRITON = {
    "nv_inference_request_success": "counter",
    "nv_inference_request_failure": "counter",
    "nv_inference_count": "counter",
    "nv_inference_exec_count": "counter",
    "nv_inference_queue_duration_us": "counter",
    "nv_inference_compute_infer_duration_us": "counter",
    "nv_inference_pending_request_count": "gauge",
}
ARMS = ("none", "control", "treatment")
COLOURS = ("#3274d9", "#e0752d", "#56a64b", "#8f3bb8", "#e02f44", "#b877d9")


class Traffic:
    """Exports a gateway and a Triton on one port, busier and slower as time goes on."""

    def __init__(self) -> None:
        self.gateway, self.triton = Metrics(), CollectorRegistry()
        kinds = {"counter": Counter, "gauge": Gauge}
        # prometheus_client puts `_total` behind counters, Triton does not: both are gauges here.
        self.of_triton = {
            name: kinds["gauge"](name, name, ["model", "version"], registry=self.triton) for name in TRITON
        }
        self.random = random.Random(0)
        traffic = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry = traffic.triton if self.path == "/triton" else traffic.gateway.registry
                body = generate_latest(registry)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        gateway = self.gateway
        gateway.serve(
            {
                arm: (f"models:/crops/{1 + (arm == 'treatment')}", "f" * 64, time.time() - 9000)
                for arm in ARMS
            },
            3,
        )
        for reason in ("checksum", "index"):
            gateway.rejected.labels(reason).inc(0)
        while True:
            for arm in ARMS:
                for _ in range(20):
                    self._search(arm)
                gateway.centroid.labels(arm).set(0.9 + self.random.gauss(0, 0.01))
                gateway.probe_recall.labels(arm).set(1.0)
            gateway.event_lag.set(abs(self.random.gauss(0.01, 0.01)))
            gateway.in_flight.set(self.random.randint(0, 9))
            for name, metric in self.of_triton.items():
                metric.labels("query_encoder-crops-1", "1").inc(
                    self.random.uniform(10, 30) * (900 if name.endswith("_us") else 1)
                )
            self.of_triton["nv_inference_pending_request_count"].labels("query_encoder-crops-1", "1").set(
                self.random.randint(0, 4)
            )
            time.sleep(0.1)

    def _search(self, arm: str) -> None:
        chance, gateway = self.random, self.gateway
        outcome = chance.choices(("ok", "empty", "deadline"), (990, 8, 2))[0]
        gateway.requests.labels(arm, outcome).inc()
        for phase, mean in (("encode", 0.003), ("retrieve", 0.002), ("total", 0.007)):
            gateway.seconds.labels(arm, phase).observe(chance.expovariate(1 / mean))
        gateway.searches.labels(arm).inc()
        gateway.impressions.labels(arm).inc(10)
        gateway.clicks.labels(arm).inc(chance.random() < 0.4 + 0.05 * (arm == "treatment"))
        gateway.long_plays.labels(arm).inc(chance.random() < 0.2)
        gateway.reformulations.labels(arm).inc(chance.random() < 0.15)
        gateway.empty.labels(arm).inc(outcome == "empty")
        gateway.cache_hits.labels(arm).inc(chance.random() < 0.6)
        gateway.words.labels(arm).inc(4)
        gateway.unknown_words.labels(arm).inc(chance.random() < 0.1)
        gateway.vector_norm.labels(arm).observe(1.0)
        gateway.query_chars.labels(arm).observe(chance.randint(4, 40))
        gateway.top_score.labels(arm).observe(chance.uniform(0.4, 0.9))


class Prometheus:
    """A real one that scrapes the traffic every second and has our rules."""

    def __init__(self, traffic: Traffic, folder: Path) -> None:
        (folder / "rules").mkdir(parents=True)
        for path in (ROOT / "monitoring/rules").glob("*.yaml"):
            (folder / "rules" / path.name).write_text(path.read_text())
        target = f"127.0.0.1:{traffic.server.server_port}"
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules/*.yaml"],
            "scrape_configs": [
                {"job_name": "crops-gateway", "static_configs": [{"targets": [target]}]},
                {
                    "job_name": "crops-triton",
                    "metrics_path": "/triton",
                    "static_configs": [{"targets": [target]}],
                },
            ],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        spare = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.url = f"http://127.0.0.1:{spare.server_port}"
        spare.server_close()
        command = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb")
        )

    def ask(self, query: str, seconds: float) -> list[dict]:
        """Series of the last `seconds`, a value a second."""
        now = time.time()
        given = {"query": query, "start": now - seconds, "end": now, "step": 1}
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=given, timeout=20)
        answer.raise_for_status()
        return answer.json()["data"]["result"]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)


def panels() -> list[tuple[str, dict]]:
    """(dashboard, panel) of all that is committed, for all namespaces."""
    found = []
    for path in sorted((ROOT / "monitoring/dashboards").glob("*.json")):
        board = json.loads(path.read_text().replace("$namespace", ".*"))
        found += [(board["title"], panel) for panel in board["panels"]]
    return found


def drawn(panel: dict, prometheus: Prometheus, seconds: float) -> str:
    """One panel as SVG in a box."""
    lines = [
        (target["legendFormat"], series)
        for target in panel["targets"]
        for series in prometheus.ask(target["expr"].replace("offset 1w", ""), seconds)
    ]
    values = [float(v) for _, series in lines for _, v in series["values"] if v != "NaN"]
    low, high = min([0.0, *values]), max([*values, 1e-9]) * 1.1
    paths, names = "", []
    for n, (legend, series) in enumerate(lines):
        for key, value in series["metric"].items():
            legend = legend.replace("{{" + key + "}}", value)
        names.append(f'<span style="color:{COLOURS[n % 6]}">{html.escape(legend)}</span>')
        start = series["values"][0][0]
        points = " ".join(
            f"{(at - start) / seconds * 380:.1f},{120 - (float(v) - low) / (high - low) * 110:.1f}"
            for at, v in series["values"]
            if v != "NaN"
        )
        paths += f'<polyline points="{points}" fill="none" stroke="{COLOURS[n % 6]}" stroke-width="2"/>'
    value = f"<b>{values[-1]:.4g}</b>" if values and panel["type"] == "stat" else ""
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    return (
        f'<figure><h3>{html.escape(panel["title"])}</h3>{value}<svg viewBox="0 0 400 130">{paths}</svg>'
        f"<small>{low:.3g} to {high:.3g} {unit} · {' '.join(names) or 'NO DATA'}</small>"
        f"<p>{html.escape(panel.get('description', ''))}</p></figure>"
    )


STYLE = """body{font:14px system-ui;background:#f4f5f5;margin:20px}
figure{background:#fff;border:1px solid #ddd;margin:0;padding:10px}
section{display:grid;grid-template-columns:repeat(3,1fr);gap:12px}
h3{margin:0;font-size:14px}p{color:#666;margin:4px 0}b{font-size:28px}"""


def page(out: Path, seconds: float = 25.0) -> None:
    """Lives for `seconds`, then draws every dashboard."""
    with tempfile.TemporaryDirectory() as place:
        prometheus = Prometheus(Traffic(), Path(place) / "prometheus")
        try:
            time.sleep(seconds)
            body, last = "", ""
            for board, panel in panels():
                if board != last:
                    body += f"{'</section>' if last else ''}<h2>{html.escape(board)}</h2><section>"
                    last = board
                body += drawn(panel, prometheus, seconds)
        finally:
            prometheus.stop()
    out.write_text(
        f"<!doctype html><meta charset=utf-8><title>Dashboards</title><style>{STYLE}</style>{body}</section>"
    )


if __name__ == "__main__":
    page(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 25.0)
