"""A toy catalogue of twelve topics with its tables, and an untrained encoder that finds shared words: for the
stages after training. No test in here.
"""

import shutil

import pyarrow as pa

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.discriminator import model
from crops.retriever import encoder as encoders
from crops.stages.release import export, index, register
from crops.tables import artifacts, records
from tests import shared

TOPICS, PER_TOPIC = 12, 15
DOCUMENTS = [
    {"doc_id": f"v{t:02d}x{n:02d}", "text": f"subject{t} about part{n} | keyword{t} clip{t * n % 7}"}
    for t in range(TOPICS)
    for n in range(PER_TOPIC)
]
TEXTS = [row["text"] for row in DOCUMENTS]


def doc(topic, n):
    return f"v{topic:02d}x{n:02d}"


def rows(table, content):
    return pa.Table.from_pylist(content, schema=pa.schema([f.with_nullable(True) for f in table.schema]))


def write(folder, **tables):
    """Each keyword is the name of a table in crops.tables.records, each value its rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tables.items():
        table = getattr(records, name)
        artifacts.write(folder, table, rows(table, content))
    return folder


def queries():
    """Per topic a head query with a click and a tail query without one; "keyword" queries appear on the
    held-out day only.
    """
    out = []
    for t in range(TOPICS):
        out.append({"query": f"subject{t}", "split": "train", "searches": 40 - t, "clicks": 5, "users": 9})
        out.append({"query": f"part{t} subject{t}", "split": "train", "searches": 2, "clicks": 0, "users": 2})
        for name in (f"subject{t}", f"part{t} subject{t}", f"keyword{t}"):
            out.append({"query": name, "split": "test", "searches": 1, "clicks": 1, "users": 1})
    return out


def pairs(*found):
    return [{"query": q, "video_id": v, "later_query": "later"} for q, v in found]


def candidates():
    def row(query, video, perspective):
        return {"query": query, "video_id": video, "perspective": perspective, "first_ts": 0, "support": 1}

    return [
        row(f"subject{t}", doc(t, n), ("click", "exposed", "ranked")[n % 3])
        for t in range(TOPICS)
        for n in range(6)
    ]


def truth():
    """Grade 3 for the topic's first five documents, 2 for the next five, 1 for the rest."""
    names = {row["query"] for row in queries()}
    return [
        {"query": q, "video_id": doc(t, n), "grade": (3, 2, 1)[n // 5]}
        for q in sorted(names)
        for t in range(TOPICS)
        if q.endswith((f"subject{t}", f"keyword{t}"))
        for n in range(PER_TOPIC)
    ]


def mined(folder):
    """What augment writes."""
    qr = [(f"part{t} subject{t}", doc(t, n)) for t in range(TOPICS) for n in (0, 12)]
    return write(
        folder,
        DOCUMENTS=DOCUMENTS,
        QUERIES=queries(),
        CANDIDATES=candidates(),
        TEST_CT=pairs(*((f"subject{t}", doc(t, 0)) for t in range(TOPICS))),
        TEST_QR=pairs(*qr, ("subject0", doc(0, 3))),
        VALID_QR=[],
    )


def gated(folder):
    """What discriminate writes of the test set: one of the two documents is kept."""
    return write(folder, TEST_QR=pairs(*((f"part{t} subject{t}", doc(t, 0)) for t in range(TOPICS))))


def trained(folder, *, seed=0, pooling=None, shared=True, system="crops"):
    encoder = encoders.from_base("small", TEXTS, seed=seed, pooling=pooling, shared=shared)
    (folder / "encoder").mkdir(parents=True)
    encoder.save(folder / "encoder", system=system)
    return folder


def catalogue(folder, texts):
    """A `videos` table whose documents have exactly these texts."""
    rest = {
        "keywords": [],
        "cover_text": "",
        "related_queries": [],
        "author_id": None,
        "duration_s": None,
        "uploaded_at": None,
    }
    return write(folder, VIDEOS=[{"video_id": i, "caption": text, **rest} for i, text in texts.items()])


def champion(root, texts, *, uri=None, cfg=None):
    """Registers a release of these documents as the first champion; the registry's URI. `root`/onnx holds its
    encoder.
    """
    mined = write(
        root / "mined",
        DOCUMENTS=[{"doc_id": i, "text": text} for i, text in texts.items()],
        QUERIES=queries(),
    )
    write(root / "samples", ORIGINS=[{"query": "subject0", "doc_id": doc(0, 0), "perspective": "click"}])
    trained(root / "crops")
    export.run(root / "crops", root / "onnx", ExportConfig())
    index.run(root / "onnx", mined, root / "index", cfg or IndexConfig())
    uri = uri or shared.new_registry(root / "registry")
    parts = (root / "onnx", root / "index", mined, root / "samples")
    register.run(*parts, root / "registered", RegisterConfig(probes=8), registry=uri, alias="champion")
    return uri


def theta(folder, encoder):
    """θ with an untrained cross-encoder, and the trained encoder of the folder `encoder` as its dual one."""
    cross = model.build("small", TEXTS, max_tokens=32, seed=0)
    folder.mkdir(parents=True)
    cross.save(folder)
    source = encoder / "encoder" if (encoder / "encoder").is_dir() else encoder
    shutil.copytree(source, folder / "dual")
    facts = {"weights": {"cross": 30, "dual": 0.2}, "offset": 0.0, "prior": None, "shifts": {}, "chance": {}}
    artifacts.write_json(folder / "theta.json", facts)
    return folder
