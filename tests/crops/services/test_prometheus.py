"""What is asked of a Prometheus and is not answered as one does."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crops.errors import ServiceError
from crops.services import prometheus


@pytest.mark.parametrize("body", ["[]", "null", '"ok"', "{}"])
def test_what_is_no_answer_of_prometheus_is_said(body):
    """A login page's JSON, or another service at the address."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(ServiceError, match="no answer of Prometheus"):
            prometheus.ask(f"http://127.0.0.1:{server.server_port}", "up")
    finally:
        server.shutdown()
    with pytest.raises(ServiceError, match="no answer from Prometheus"):
        prometheus.ask("http://[", "up")
