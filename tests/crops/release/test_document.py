"""Compare-and-set of one document on a disk and at an S3 server: who decided on an old one overwrites
nothing.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from crops.errors import ConfigError, ServiceError
from crops.release import document
from crops.release.document import Conflict, Held


@pytest.fixture(params=["path", "s3"])
def url(request, tmp_path):
    if request.param == "path":
        return str(tmp_path / "deep/state.json")
    return f"{request.getfixturevalue('bucket')}/deep/state.json"


def test_what_is_written_is_read_and_an_old_one_is_refused(url):
    assert document.read(url) == Held()
    first = document.write(url, b"1", Held())
    assert document.read(url) == first == Held(b"1", first.version)
    second = document.write(url, b"2", first)
    for old in (Held(), first):
        with pytest.raises(Conflict, match="another writer changed it"):
            document.write(url, b"3", old)
    assert document.read(url) == second
    document.remove(url)
    document.remove(url)
    with pytest.raises(Conflict):
        document.write(url, b"4", second)
    assert document.read(url) == Held()


def test_a_put_that_was_sent_twice_is_no_conflict(url):
    """A client sends again what was answered too late; the second answer says that something is there: its
    own.
    """
    first = document.write(url, b"1", Held())
    document.write(url, b"2", first)
    if url.startswith("s3"):
        assert document.write(url, b"2", first).content == b"2"


def test_put_asks_nobody(url):
    document.put(url, b"1")
    document.put(url, b"2")
    assert document.read(url).content == b"2"


def test_of_many_writers_on_a_disk_one_wins_each_time(tmp_path):
    url = str(tmp_path / "n")

    def increments(_: int) -> None:
        won = 0
        while won < 5:
            held = document.read(url)
            try:
                document.write(url, str(int(held.content or b"0") + 1).encode(), held)
                won += 1
            except Conflict:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(increments, range(4)))
    assert document.read(url).content == b"20", "none overwrote another"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".n.lock", "n"]


def test_a_writer_that_dies_leaves_the_old_one(tmp_path, monkeypatch):
    url = str(tmp_path / "n")
    held = document.write(url, b"old", Held())

    def dies(path, content):
        path.write_bytes(content[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(document, "durable", dies)
        document.write(url, b"new", held)
    assert document.read(url) == held


def test_a_store_that_does_not_answer_is_said_with_its_url(monkeypatch):
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "k",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ServiceError, match=r"s3://b/state\.json: cannot be read"):
        document.read("s3://b/state.json")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_without_conditional_writes_is_refused():
    with pytest.raises(ConfigError, match="expected a path or s3://"):
        document.read("memory://x/state.json")
