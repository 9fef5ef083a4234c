"""What an earlier server left behind, and where the next one listens."""

import os
import socket
import subprocess

import pytest

from serving.triton import launch


def test_a_stub_whose_server_is_gone_is_ended_and_no_other(tmp_path):
    """Stubs by their command line, which names their server; sleep adds up what it is given."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    stubs = {
        who: subprocess.Popen([str(stub), "99", "1", "1", "1", str(server)], executable="/bin/sleep")
        for who, stub, server in (
            ("orphan", tmp_path / launch.STUB, ended.pid),
            ("served", tmp_path / launch.STUB, os.getpid()),
            ("another state's", tmp_path / "other" / launch.STUB, ended.pid),
        )
    }
    try:
        launch.end_orphans(tmp_path / launch.STUB)
        assert stubs["orphan"].wait(10) == -9
        assert [stubs[who].poll() for who in ("served", "another state's")] == [None, None]
    finally:
        for process in stubs.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("host", "pod", "addresses"),
    [
        ("127.0.0.1", "", ("127.0.0.1", "127.0.0.1", "127.0.0.1")),
        ("::", "", ("0.0.0.0", "[::]", "127.0.0.1")),
        ("::", "10.0.0.7", ("0.0.0.0", "[::]", "127.0.0.1")),
        ("::", "fd00::7", ("ipv6:::", "[::]", "[::1]")),
        ("::1", "", ("ipv6:::1", "[::1]", "[::1]")),
    ],
)
def test_every_address_is_said_as_http_and_grpc_want_it(monkeypatch, host, pod, addresses):
    """Tried on a real server: HTTP that is told [::] listens nowhere, gRPC that is told :: does not start."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    monkeypatch.setenv(launch.ADDRESS, pod)
    assert launch._addresses(host) == addresses
