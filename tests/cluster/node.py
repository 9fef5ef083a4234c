"""The node of a cluster of one's own: a network namespace, and in it what runs pods. As root, on Linux.

This machine reaches pods and Services by a pair of virtual interfaces; nothing in there reaches further.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.cluster.local import Processes

NAME, NETWORK, OUTSIDE = "crops-node", "crops", "crops-outside"
# 198.18.0.0/15 is for benchmarks of networks (RFC 2544): nobody's real address.
ADDRESS, HOST, PODS = "198.18.255.1", "198.18.255.254", "198.18.0.0/24"
# Not `ip netns exec`, which mounts /sys anew and so hides /sys/fs/cgroup.
ENTER = ("nsenter", f"--net=/run/netns/{NETWORK}")
TOOLS = ("containerd", "ctr", "runc", "iptables", "conntrack", "nsenter", "ip")
PLUGINS = Path("/usr/lib/cni")
END_S = 60.0

INSIDE = f"""
ip link set lo up
ip addr add {ADDRESS}/24 dev inside
ip link set inside up
sysctl -qw net.ipv4.ip_forward=1
ip link add services type bridge
ip addr add 198.19.255.254/16 dev services
ip link set services up
"""
AROUND = f"""
ip link add {OUTSIDE} type veth peer name inside netns {NETWORK}
ip addr add {HOST}/24 dev {OUTSIDE}
ip link set {OUTSIDE} up
"""
ROUTES = f"""
ip route add {PODS} via {ADDRESS}
ip route add 198.19.0.0/16 via {ADDRESS}
"""
# restrict_oom_score_adj: without the right to lower it (CAP_SYS_RESOURCE) no sandbox would start otherwise.
CONTAINERD = """
version = 2
root = "{store}"
state = "{state}/containerd"
[grpc]
  address = "{state}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{state}/cni"
"""
COREFILE = """
.:53 {{
  bind {address}
  kubernetes cluster.local {{
    kubeconfig {kubeconfig}
  }}
  errors
}}
"""


def missing() -> list[str]:
    """What this machine lacks of what a node needs."""
    plugins = [] if (PLUGINS / "bridge").exists() else [f"{PLUGINS} (containernetworking-plugins)"]
    return [tool for tool in TOOLS if shutil.which(tool) is None] + plugins


@contextlib.contextmanager
def network() -> Iterator[None]:
    """The namespace, and the way into it."""
    if Path(f"/run/netns/{NETWORK}").exists():
        raise RuntimeError(f"a node is there already, or was not ended: ip netns del {NETWORK}")
    _shell(f"ip netns add {NETWORK}")
    try:
        _shell(AROUND)
        _shell(INSIDE, ENTER)
        _shell(ROUTES)
        yield
    finally:
        _shell(f"ip netns del {NETWORK}", check=False)
        _shell(f"ip link del {OUTSIDE}", check=False)


def _shell(script: str, enter: tuple[str, ...] = (), *, check: bool = True) -> None:
    subprocess.run([*enter, "sh", "-ec", script], check=check, stderr=None if check else subprocess.DEVNULL)


def _settings(state: Path, store: Path, kubeconfig: Path) -> None:
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(state / "addresses"),
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(state / "resolv.conf"),
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(state / "ca.crt")},
        },
        "podLogsDir": str(state / "logs"),
        "maxOpenFiles": 20000,
        # A shared disk that is nearly full is not this node's matter.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    }
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": NAME,
        "clientConnection": {"kubeconfig": str(state / "kube-proxy.conf")},
        # Pods of one bridge would answer each other past the Service: bridges need not call iptables here.
        "iptables": {"masqueradeAll": True},
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    (state / "cni").mkdir()
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
    (state / "cni/10-pods.conflist").write_text(json.dumps(network))
    # The kubelet takes a file that begins with a brace for JSON, which these are.
    (state / "kubelet.json").write_text(json.dumps(kubelet))
    (state / "kube-proxy.json").write_text(json.dumps(proxy))
    (state / "resolv.conf").touch()
    (state / "containerd.toml").write_text(CONTAINERD.format(state=state, store=store, plugins=PLUGINS))
    (state / "Corefile").write_text(COREFILE.format(address=ADDRESS, kubeconfig=kubeconfig))


@contextlib.contextmanager
def joined(processes: "Processes", kubeconfig: Path) -> Iterator[None]:
    """A Ready node. Images stay in folder/containerd from one cluster to the next."""
    state, store = processes.state, (processes.folder / "containerd").resolve()
    _settings(state, store, kubeconfig)
    containers = Containers(state)
    kubectl = (str(processes.folder / "bin/kubectl"), f"--kubeconfig={kubeconfig}")
    processes.start(
        "kube-scheduler",
        f"--kubeconfig={state}/kube-scheduler.conf",
        "--leader-elect=false",
        "--secure-port=0",
    )
    processes.start("containerd", "-c", f"{state}/containerd.toml")
    processes.wait(*containers.ctr, "version")  # a kubelet ends where nobody answers
    try:
        containers.load(_pause(processes.folder / "bin/pause", state))
        processes.start(
            "kubelet",
            f"--config={state}/kubelet.json",
            f"--kubeconfig={state}/kubelet.conf",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
            f"--root-dir={state}/kubelet",
            f"--cert-dir={state}/kubelet-pki",
        )
        processes.start("kube-proxy", f"--config={state}/kube-proxy.json")
        processes.start("coredns", "-conf", f"{state}/Corefile")
        ready = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
        processes.wait(*kubectl, "get", "nodes", "-o", ready, until="True")
        yield
    finally:
        # Pods first: they lie in cgroups of their own and would outlive everything here.
        subprocess.run(
            [*kubectl, "delete", "pods", "-A", "--all", "--force", "--wait=false"], capture_output=True
        )
        end = time.monotonic() + END_S
        while containers.tasks() and time.monotonic() < end:
            time.sleep(0.5)
        if kubelet := processes.running.pop("kubelet", None):
            kubelet.terminate()
            kubelet.wait(20)
        containers.clear()
        _shell(f"awk '$2 ~ \"^{state}/\" {{print $2}}' /proc/mounts | sort -r | xargs -r umount", check=False)
        _shell(
            "find /sys/fs/cgroup -depth -type d -path '*kubepods*' -exec rmdir {} + 2>/dev/null", check=False
        )


class Containers:
    """What the node's containerd holds, by its own command line."""

    def __init__(self, state: Path) -> None:
        self.ctr = ("ctr", "-a", f"{state}/containerd.sock", "-n", "k8s.io")

    @classmethod
    def of(cls, kubeconfig: Path) -> "Containers":
        """Of the cluster that runs under this kubeconfig."""
        return cls(kubeconfig.parent)

    def load_from_docker(self, image: str) -> None:
        """An image that Docker holds."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                [*self.ctr, "images", "import", "-"],
                stdin=saved.stdout,
                check=True,
                stdout=subprocess.DEVNULL,
            )

    def load(self, archive: Path) -> None:
        """The images of a file that `docker save` wrote."""
        subprocess.run([*self.ctr, "images", "import", str(archive)], check=True, stdout=subprocess.DEVNULL)

    def images(self) -> set[str]:
        """Names."""
        return set(self._lines("images", "ls", "-q"))

    def tasks(self) -> list[str]:
        """Containers that run."""
        return self._lines("tasks", "ls", "-q")

    def clear(self) -> None:
        """Nothing runs or is left of what ran."""
        for one in self.tasks():
            subprocess.run([*self.ctr, "tasks", "rm", "-f", one], capture_output=True)
        for one in self._lines("containers", "ls", "-q"):
            subprocess.run([*self.ctr, "containers", "rm", one], capture_output=True)

    def _lines(self, *command: str) -> list[str]:
        return subprocess.run([*self.ctr, *command], capture_output=True, text=True).stdout.split()


def _pause(program: Path, state: Path) -> Path:
    """localhost/pause:1, as `docker save` would write it: the program that holds a pod's namespaces open."""
    import hashlib
    import io
    import tarfile

    def packed(path: Path | None, members: dict[str, bytes], mode: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), mode
                archive.addfile(entry, io.BytesIO(content))
        if path is not None:
            path.write_bytes(buffer.getvalue())
        return buffer.getvalue()

    layer = packed(None, {"pause": program.read_bytes()}, 0o755)
    config: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["layer.tar"]}]
    members = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    packed(state / "pause.tar", members, 0o644)
    return state / "pause.tar"
