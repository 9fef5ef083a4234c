"""What an earlier server left behind."""

import os
import subprocess

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
