"""A Kubernetes of one's own, of programs that Go's module registry serves: no image registry, no systemd.

    python -m tests.cluster.local build FOLDER          programs into FOLDER/bin: half an hour, later a minute
    python -m tests.cluster.local run FOLDER [--node]   a cluster until Ctrl-C; it prints its KUBECONFIG

Without --node: etcd, API server and controllers on 127.0.0.1, as anybody, for what the API decides. With it,
as root and in a network namespace: a scheduler, containerd, kubelet, kube-proxy and DNS too. Pods run.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from serving.triton import launch
from tests.cluster import node
from tests.cluster.authority import Authority

SOURCES = Path(__file__).parent / "programs"
KUBERNETES = (
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
)
# Program -> (module under programs/, package), in the order in which they are wanted.
PROGRAMS = {
    "etcd": ("etcd", "go.etcd.io/etcd/server/v3"),
    **{name: ("kubernetes", f"k8s.io/kubernetes/cmd/{name}") for name in KUBERNETES},
    "coredns": ("coredns", "github.com/coredns/coredns"),
    "pause": ("pause", "."),
}
CONTROL = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
SERVICES = "198.19.0.0/16"
START_S = 180.0


def version() -> str:
    """Of Kubernetes, as its go.mod pins it: v1.N.P."""
    found = re.search(r"k8s\.io/kubernetes (v1\.\d+\.\d+)", (SOURCES / "kubernetes/go.mod").read_text())
    assert found is not None
    return found[1]


def build(folder: Path) -> None:
    """All programs into folder/bin; Go's caches make what was built before a matter of linking."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    major, minor, _ = version().removeprefix("v").split(".")
    told = {"gitVersion": version(), "gitMajor": major, "gitMinor": minor}  # else Helm sees v0.0.0-master
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    named = " ".join(f"-X {p}.{key}={value}" for p in packages for key, value in told.items())
    for program, (module, package) in PROGRAMS.items():
        flags = f"-s -w {named}" if module == "kubernetes" else "-s -w"
        command = [
            "go",
            "build",
            "-trimpath",
            "-ldflags",
            flags,
            "-o",
            str((folder / "bin" / program).resolve()),
        ]
        print(f"== {program}", flush=True)
        subprocess.run(
            [*command, package], cwd=SOURCES / module, env={**os.environ, "CGO_ENABLED": "0"}, check=True
        )


@dataclass(kw_only=True)
class Processes:
    """Started one after the other, each with a log of its own; stopped the other way round."""

    folder: Path
    state: Path
    enter: tuple[str, ...] = ()
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, program: str, *arguments: str) -> None:
        """A program of folder/bin, else of the system."""
        path = shutil.which(program, path=f"{self.folder / 'bin'}:{os.environ['PATH']}")
        if path is None:
            raise FileNotFoundError(
                f"{program} is neither in {self.folder / 'bin'} (make cluster) nor on PATH"
            )
        with (self.state / f"{program}.log").open("wb") as log:
            self.running[program] = subprocess.Popen(
                # Killed with this process, should it be killed: nothing outlives a test.
                ["setpriv", "--pdeathsig", "KILL", *self.enter, path, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self, *command: str, until: str = "") -> None:
        """Until the command succeeds and says `until`; an error where a process has ended before."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} has ended: {self.log(name)}")
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0 and until in done.stdout:
                return
            time.sleep(0.3)
        raise TimeoutError(f"{' '.join(command)}: {done.stdout}{done.stderr}; logs in {self.state}")

    def log(self, name: str) -> str:
        """Its last lines."""
        return (self.state / f"{name}.log").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """The API server would wait a minute for its watchers, and nothing here is worth that."""
        for name in reversed([*self.running]):
            process = self.running.pop(name)
            process.send_signal(signal.SIGKILL if name in {"etcd", "kube-apiserver"} else signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


@contextlib.contextmanager
def running(folder: Path, *, with_node: bool = False) -> Iterator[Path]:
    """The administrator's kubeconfig of a new cluster, which is gone afterwards; `folder` has had `build`."""
    state = Path(tempfile.mkdtemp(prefix="crops-cluster-"))
    processes = Processes(folder=folder, state=state, enter=node.ENTER if with_node else ())
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, state, ignore_errors=True)
        if with_node:
            undo.enter_context(node.network())
        undo.callback(processes.stop)
        kubeconfig = _control(processes, node.ADDRESS if with_node else "127.0.0.1")
        if with_node:
            undo.enter_context(node.joined(processes, kubeconfig))
        yield kubeconfig


def _control(processes: Processes, address: str) -> Path:
    state, ports = processes.state, launch.free_ports(3)
    authority, server = Authority(state), f"https://{address}:{ports[2]}"
    service = "kubernetes.default.svc"
    names = [
        address,
        "198.19.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.cluster.local",
    ]
    authority.issue("apiserver", "kube-apiserver", addresses=names)
    authority.issue("admin", "crops-admin", "system:masters")
    authority.issue("accounts", "service-accounts")
    for name in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        authority.issue(name, f"system:{name}")
        authority.kubeconfig(name, server)
    authority.issue("kubelet", f"system:node:{node.NAME}", "system:nodes", [node.ADDRESS])
    authority.kubeconfig("kubelet", server)
    kubeconfig = authority.kubeconfig("admin", server)
    clients, peers = (f"http://127.0.0.1:{port}" for port in ports[:2])
    processes.start(
        "etcd",
        f"--data-dir={state}/etcd",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        "--unsafe-no-fsync",
    )
    processes.start(
        "kube-apiserver",
        f"--etcd-servers={clients}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={ports[2]}",
        "--endpoint-reconciler-type=none" if address == "127.0.0.1" else "--allow-privileged",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={state}/ca.crt",
        f"--tls-cert-file={state}/apiserver.crt",
        f"--tls-private-key-file={state}/apiserver.key",
        f"--kubelet-client-certificate={state}/admin.crt",
        f"--kubelet-client-key={state}/admin.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={state}/accounts.key",
        f"--service-account-signing-key-file={state}/accounts.key",
        f"--cert-dir={state}/apiserver",
    )
    kubectl = (str(processes.folder / "bin/kubectl"), f"--kubeconfig={kubeconfig}")
    processes.wait(*kubectl, "get", "--raw", "/readyz")
    processes.start(
        "kube-controller-manager",
        f"--kubeconfig={state}/kube-controller-manager.conf",
        f"--service-account-private-key-file={state}/accounts.key",
        f"--root-ca-file={state}/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
    )
    processes.wait(*kubectl, "-n", "default", "get", "serviceaccount", "default")
    return kubeconfig


def main() -> None:
    """The command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("verb", choices=["build", "run"])
    asked.add_argument("folder", type=Path)
    asked.add_argument("--node", action="store_true")
    options = asked.parse_args()
    if options.verb == "build":
        build(options.folder)
        return
    with running(options.folder, with_node=options.node) as kubeconfig:
        print(f"export KUBECONFIG={kubeconfig}; Ctrl-C ends the cluster", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
