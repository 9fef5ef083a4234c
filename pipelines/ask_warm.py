"""Asks the process of `pipelines.warm` for a task and ends as the task ends. Standard library only: it is
started for every task.
"""

import json
import os
import signal
import socket
import sys


def main() -> None:
    """The arguments: the socket, then those of Python."""
    address, *arguments = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
        except OSError:  # it has ended
            os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606
        socket.send_fds(server, [b"\0"], [0, 1, 2])
        task = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}
        server.sendall(json.dumps(task).encode("utf-8", "surrogateescape"))
        server.shutdown(socket.SHUT_WR)
        code = int(server.recv(16) or b"1")
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


main()
