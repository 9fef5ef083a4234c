"""Kafka that lets in by SASL over TLS alone: a real broker (Apache Kafka, one node) with a certificate of its
own authority; who has no password or trusts another authority gets nothing in and nothing out.
"""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner

from crops.cli.serve import compact as verb
from crops.errors import ConfigError
from serving.events import kafka, log
from serving.gateway.server import event_log
from serving.gateway.settings import Settings
from tests.serving.events.test_kafka import search

LIBS = os.environ.get("CROPS_KAFKA_LIBS", "")
NOT_RUN = "not run: needs Java, openssl and CROPS_KAFKA_LIBS, Kafka's jars (tests/serving/events/broker)"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=SASL_SSL://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=SASL_SSL
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={plain}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram} required;
ssl.keystore.type=PEM
ssl.keystore.location={place}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={place}/ca.crt
log.dirs={place}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""
MODULES = {
    "plain": "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="search" password="secret" user_search="secret";',  # pragma: allowlist secret
    "scram": "org.apache.kafka.common.security.scram.ScramLoginModule",
}


def certificates(place: Path) -> None:
    """ca.crt, server.pem (key and certificate that ca.crt signed), other.crt (of another authority)."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    for name in ("ca", "other"):
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}")
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.crt")
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker", "-keyout", "s.key", "-out", "s.csr"
    )
    (place / "names").write_text("subjectAltName=IP:127.0.0.1")
    signed = ("x509", "-req", "-in", "s.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    openssl(*signed, "-days", "2", "-extfile", "names", "-out", "s.crt")
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "s.key", "-out", "s.p8")
    (place / "server.pem").write_text((place / "s.p8").read_text() + (place / "s.crt").read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """(address, folder with ca.crt and other.crt). User search, password secret, by PLAIN and SCRAM."""
    if not LIBS or shutil.which("java") is None or shutil.which("openssl") is None:
        pytest.skip(NOT_RUN)
    place, port = tmp_path_factory.mktemp("kafka"), free_port()
    certificates(place)
    told = PROPERTIES.format(place=place, broker=port, controller=free_port(), **MODULES)
    (place / "server.properties").write_text(told)
    java = ["java", "-Xmx300m", "-cp", f"{LIBS}/*"]
    number = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    user = "SCRAM-SHA-512=[name=search,password=secret]"
    storage = ["kafka.tools.StorageTool", "format", "-t", number, "-c", str(place / "server.properties")]
    subprocess.run([*java, *storage, "--add-scram", user], check=True, capture_output=True)
    with (place / "log").open("wb") as output:
        server = subprocess.Popen(
            [*java, "kafka.Kafka", str(place / "server.properties")], stdout=output, stderr=output
        )
    end = time.monotonic() + 60
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.2)
    else:
        pytest.fail((place / "log").read_text()[-2000:])
    yield f"127.0.0.1:{port}", place
    server.terminate()
    server.wait(30)


def login(folder: Path, **changes: str) -> Path:
    """The file as the Secret has it."""
    held = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "search",
        "sasl.password": "secret",  # pragma: allowlist secret
        **{name.replace("_", "."): value for name, value in changes.items()},
    }
    path = folder / f"{uuid.uuid4().hex[:6]}.properties"
    path.write_text("# how Kafka lets us in\n" + "".join(f"{name}={held[name]}\n" for name in held))
    return path


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_who_has_the_password_gets_events_in_and_out(broker, tmp_path, mechanism):
    """The gateway's log by its settings, and the verb as the chart's job calls it."""
    servers, place = broker
    topic = f"events-{uuid.uuid4().hex[:6]}"
    file = login(tmp_path, sasl_mechanism=mechanism, ssl_ca_location=str(place / "ca.crt"))
    settings = Settings(manifest="unused", kafka=servers, kafka_topic=topic, kafka_file=file)

    async def work():
        sink = event_log(settings)
        sink._timeout_s = 30
        await asyncio.gather(*(sink.append([search(n)]) for n in range(20)))
        await sink.close()

    asyncio.run(work())
    arguments = [f"--events={tmp_path}/events", f"--out={tmp_path}/tables", f"--kafka={servers}"]
    done = CliRunner().invoke(verb, [*arguments, f"--topic={topic}", f"--kafka-file={file}"])
    assert done.exit_code == 0, done.output
    assert "20 records from Kafka" in done.output
    assert json.loads((tmp_path / "tables/compact.json").read_text())["searches"] == 20


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sasl_password": "wrong"}, "invalid credentials"),  # pragma: allowlist secret
        ({"ca": "other.crt"}, "certificate verify failed"),
    ],
)
def test_who_is_not_let_in_is_told_why(broker, tmp_path, changes, says):
    servers, place = broker
    ca = str(place / changes.pop("ca", "ca.crt"))
    known = {**kafka.settings_in(login(tmp_path, ssl_ca_location=ca, **changes)), "log_level": 0}

    async def work():
        sink = kafka.KafkaLog(servers, "events", timeout_s=2, settings=known)
        with pytest.raises(log.EventLogError, match=f"Kafka did not take it.*{says}"):
            await sink.append([search(1)])
        await sink.close()

    asyncio.run(work())
    segments = log.SegmentLog(tmp_path / "events", replica="kafka")
    with pytest.raises(log.EventLogError, match=f"no broker gave out events.*{says}"):
        kafka.drain(servers, "events", "g", segments, join_s=2, settings=known)
    segments.stop()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("acks=0\n", ":1: acks: expected name=value"),
        ("security.protocol=SASL_SSL\nsasl.password\n", ":2: no =: expected"),
        ("sasl.jaas.config=secret\n", "Kafka's client refuses it"),
        ("security.protocol=TLS\n", "Kafka's client refuses it"),
    ],
)
def test_what_is_no_way_in_is_refused_with_its_line_and_without_its_value(tmp_path, text, says):
    (tmp_path / "client.properties").write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        kafka.settings_in(tmp_path / "client.properties")
    assert str(tmp_path) in str(refused.value)
    assert "secret" not in str(refused.value)
