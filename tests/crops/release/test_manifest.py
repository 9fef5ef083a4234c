"""Compare-and-set on a disk and in a store that only knows exclusive creation; a writer killed half-way;
strict reading.
"""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops.errors import InputError
from crops.release import manifest
from crops.release.manifest import CONTROL, TREATMENT, Conflict, Manifest, Release


def release(n: int) -> Release:
    return Release(
        uri=f"models:/crops/{n}", model=f"query_encoder-{n}", files=f"/releases/{n}", checksum=f"{n:064x}"
    )


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    return (
        str(tmp_path / "deep/manifest.json")
        if request.param == "file"
        else f"memory://{uuid.uuid4().hex}/manifest.json"
    )


def test_a_manifest_is_read_as_it_was_written(url):
    assert manifest.read(url) == Manifest()
    first = Manifest().with_arm(CONTROL, release(1))
    manifest.write(url, first)
    assert manifest.read(url) == first
    second = first.with_arm(TREATMENT, release(2))
    manifest.write(url, second)
    assert manifest.read(url) == second
    assert manifest.read(url).with_arm(TREATMENT, None).arms == {CONTROL: release(1)}


def test_who_decided_on_an_old_manifest_is_refused(url):
    first = Manifest().with_arm(CONTROL, release(1))
    manifest.write(url, first)
    manifest.write(url, first.with_arm(TREATMENT, release(2)))
    with pytest.raises(Conflict, match="generation is 2, expected 1"):
        manifest.write(url, first.with_arm(TREATMENT, release(3)))
    assert manifest.read(url).arms[TREATMENT] == release(2)


def test_of_many_writers_at_once_exactly_one_wins_each_generation(url):
    def increments(n: int) -> int:
        won = 0
        while won < 5:
            try:
                manifest.write(url, manifest.read(url).with_arm(CONTROL, release(n)))
                won += 1
            except Conflict:
                continue
        return won

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(increments, range(4))) == 20
    assert manifest.read(url).generation == 20, "20 successes, 20 generations: none overwrote another"


def test_a_writer_killed_after_its_claim_has_written(url, monkeypatch):
    manifest.write(url, Manifest().with_arm(CONTROL, release(1)))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(manifest.document, "replace", killed)
        manifest.write(url, manifest.read(url).with_arm(CONTROL, release(2)))
    assert manifest.read(url).arms[CONTROL] == release(2)
    manifest.write(url, manifest.read(url).with_arm(CONTROL, release(3)))
    assert manifest.read(url).generation == 3


def lived(url: str, generations: int, first: int) -> Manifest:
    """Releases first, first + 1, ... in control, a generation each."""
    for n in range(generations):
        manifest.write(url, manifest.read(url).with_arm(CONTROL, release(first + n)))
    return manifest.read(url)


def files(url: str) -> tuple[object, list[str]]:
    filesystem, path = manifest.document.opened(url)
    return filesystem, sorted(filesystem.glob(f"{path}*"))


def test_claims_of_an_earlier_life_are_nobodys_successors(url):
    """70 generations leave claims 7 to 70; a manifest begun anew passes them one by one."""
    lived(url, 70, first=1)
    filesystem, _ = files(url)
    filesystem.rm_file(manifest.document.opened(url)[1])
    for n in range(1, 136):
        found = lived(url, 1, first=1000 + n)
        assert (found.generation, found.arms[CONTROL]) == (n, release(1000 + n))
    assert len(files(url)[1]) <= 1 + manifest.KEPT_CLAIMS, "what is past is removed, of every life"


def test_a_backup_counts_where_its_claims_are_gone(url):
    fifth = lived(url, 5, first=1)
    filesystem, _ = files(url)
    path = manifest.document.opened(url)[1]
    backup = filesystem.cat_file(path)
    newest = lived(url, 5, first=6)
    filesystem.pipe_file(path, backup)
    assert manifest.read(url) == newest, "as after a slow writer: nothing newer is lost"
    for claim in files(url)[1]:
        if not claim.endswith("manifest.json"):
            filesystem.rm_file(claim)
    assert manifest.read(url) == fifth
    assert lived(url, 1, first=77).generation == 6


def test_one_that_is_written_by_hand_starts_a_chain_of_its_own(url):
    lived(url, 10, first=1)
    filesystem, _ = files(url)
    mine = Manifest(generation=5, arms={CONTROL: release(99)})
    filesystem.pipe_file(manifest.document.opened(url)[1], mine.to_json().encode())
    assert manifest.read(url) == mine
    assert lived(url, 1, first=100).arms[CONTROL] == release(100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a release manifest"),
        ("[]", "not a release manifest"),
        ('{"generation": 1}', "arms"),
        ('{"generation": true, "arms": {}}', "generation is True"),
        ('{"generation": -1, "arms": {}}', "generation is -1"),
        ('{"generation": 1, "arms": {"control": {"uri": "x"}}}', "a release needs the texts"),
        (
            json.dumps({"generation": 1, "arms": {"other": vars_}})
            if (vars_ := dict.fromkeys(("uri", "model", "files", "checksum"), "0" * 64))
            else "",
            "arm 'other'",
        ),
        (json.dumps({"generation": 1, "arms": {"treatment": vars_}}), "control has none"),
    ],
)
def test_anything_else_is_refused_and_says_what_it_is(text, says):
    with pytest.raises(InputError, match=says):
        manifest.parse(text, source="here")


@given(st.integers(1, 9), st.sets(st.sampled_from([CONTROL, TREATMENT])))
def test_text_and_value_say_the_same(generation, arms):
    held = {CONTROL: release(1)} | {arm: release(2) for arm in arms}
    value = Manifest(generation=generation, arms=held)
    assert manifest.parse(value.to_json()) == value


def test_what_no_reader_could_read_is_never_written(tmp_path):
    url = str(tmp_path / "manifest.json")
    lonely = Manifest(generation=1, arms={TREATMENT: release(2)})
    with pytest.raises(InputError, match="control has none"):
        manifest.write(url, lonely)
    assert manifest.read(url).generation == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "../../evil"),
        ("model", "a/b"),
        ("model", ".."),
        ("model", "a\\b"),
        ("checksum", "../../evil"),
        ("checksum", "0" * 63 + "/"),
        ("checksum", "0" * 64 + "\n"),
    ],
)
def test_what_becomes_a_folders_name_leads_nowhere_else(field, value):
    held = asdict(release(1)) | {field: value}
    with pytest.raises(InputError, match=f"{field} is ") as refused:
        manifest.parse(json.dumps({"generation": 1, "arms": {"control": held}}))
    assert repr(value) in str(refused.value)
