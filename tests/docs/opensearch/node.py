"""One OpenSearch with its k-NN plug-in, from the jars that pom.xml names: HTTP on loopback, no security."""

import shutil
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.triton import launch

VERSION = "2.19.1"
# What the distribution keeps in folders of their own: how their jars' names begin, and the class to load.
MODULES = {
    "transport-netty4": (("netty-", "transport-netty4-"), "org.opensearch.transport.Netty4Plugin"),
    "lang-painless": (
        ("antlr4-", "asm-", "lang-painless-", "opensearch-scripting-painless-"),
        "org.opensearch.painless.PainlessPlugin",
    ),
}
DESCRIPTOR = """\
description={name}
version={version}
name={name}
classname={plugin}
java.version=11
opensearch.version={version}
"""
SETTINGS = """\
discovery.type: single-node
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
path.data: {home}/data
path.logs: {home}/logs
"""
LOGGING = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""
# JNA without its library: OpenSearch cannot ask who runs it then (it refuses root, which CI may be).
JAVA = ("java", "-Xmx512m", "-Djna.nosys=true", "-Djna.nounpack=true", "-Djava.security.manager=allow")


def lay(libs: Path, home: Path) -> None:
    """The folders of a distribution in `home`, from the jars in `libs`."""
    (home / "config").mkdir(parents=True)
    (home / "config/log4j2.properties").write_text(LOGGING)
    shutil.copytree(libs, home / "lib", ignore=shutil.ignore_patterns("*.zip"))
    for name, (prefixes, plugin) in MODULES.items():
        module = home / "modules" / name
        module.mkdir(parents=True)
        for jar in (jar for jar in sorted((home / "lib").iterdir()) if jar.name.startswith(prefixes)):
            jar.rename(module / jar.name)
        told = DESCRIPTOR.format(name=name, plugin=plugin, version=VERSION)
        (module / "plugin-descriptor.properties").write_text(told)
        (module / "plugin-security.policy").write_text("grant { permission java.security.AllPermission; };")
    (archive,) = libs.glob("opensearch-knn-*.zip")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(home / "plugins/opensearch-knn")


@contextmanager
def running(libs: Path, home: Path) -> Iterator[str]:
    """The address of an empty node that ends with the block."""
    lay(libs, home)
    http, transport = launch.free_ports(2)
    settings = SETTINGS.format(http=http, transport=transport, home=home)
    (home / "config/opensearch.yml").write_text(settings)
    paths = (f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={home}/config")
    with (home / "log").open("wb") as output:
        node = subprocess.Popen(
            [*JAVA, *paths, "-cp", f"{home}/lib/*", "org.opensearch.bootstrap.OpenSearch"],
            stdout=output,
            stderr=output,
        )
    address, end = f"http://127.0.0.1:{http}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                if node.poll() is not None or time.monotonic() > end:
                    pytest.fail((home / "log").read_text()[-2000:])
                time.sleep(0.5)
        yield address
    finally:
        node.kill()
        node.wait()
