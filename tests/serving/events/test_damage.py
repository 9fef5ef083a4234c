"""The reader's side of one promise: damage costs the records that it hit, names itself, and nothing else."""

import os
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.events import log, segments
from serving.events.records import Interaction, encode
from tests.serving.events.test_event_log import Unsynced, search

RECORDS = [encode(search(n, results=1)) for n in range(4)]


def segment(records):
    """The bytes of a segment, and where each record's frame lies."""
    data, spans = bytearray(segments.MAGIC), []
    for record in records:
        spans.append((len(data), len(data) + segments.HEADER.size + len(record)))
        data += segments.frame(record)
    return bytes(data), spans


def told(data):
    """(payloads, damaged spans) that a reader of a finished segment is told."""
    pieces = list(segments.scan(bytes(data)))
    assert [p.at for p in pieces[1:]] == [p.end for p in pieces[:-1]], "every byte is in one piece"
    assert not pieces or pieces[-1].end == len(data)
    return [p.payload for p in pieces if p.payload], [(p.at, p.end) for p in pieces if p.payload is None]


def test_a_bit_flipped_anywhere_costs_its_record_and_names_it():
    """Each of the eight bits of each byte of a segment of four records."""
    data, spans = segment(RECORDS)
    for place in range(len(data)):
        for bit in range(8):
            hurt = bytearray(data)
            hurt[place] ^= 1 << bit
            span = next(((a, b) for a, b in spans if a <= place < b), (0, len(segments.MAGIC)))
            rest = [r for r, s in zip(RECORDS, spans, strict=True) if s != span]
            assert told(hurt) == (rest, [span]), (place, bit)


def test_a_bit_flipped_anywhere_in_a_segment_left_open_is_neither_cut_nor_unsaid(tmp_path):
    """Recovery after SIGKILL: other records are there, the damaged bytes too, and their number is told."""
    data, spans = segment(RECORDS)
    path = tmp_path / f"a-{0:016d}-000001.open"
    for place in range(len(data)):
        hurt = bytearray(data)
        hurt[place] ^= 1 << place % 8
        path.write_bytes(hurt)
        span = next(((a, b) for a, b in spans if a <= place < b), (0, len(segments.MAGIC)))
        assert segments.recover(path, Unsynced()) == segments.Recovered(0, span[1] - span[0]), place
        (left,) = segments.listed(tmp_path)
        assert left.read_bytes() == hurt
        aside = tmp_path / "damaged" / f"{left.name}@{span[0]}"
        assert aside.read_bytes() == hurt[slice(*span)]
        left.unlink()


@pytest.mark.parametrize("length", [1, 7, 64, 300])
def test_zeros_and_missing_pieces_anywhere_cost_what_they_hit(length):
    """A page of zeros; a truncated middle. What a hole swallows whole leaves nothing to name."""
    data, spans = segment(RECORDS)
    for at in range(0, len(data) - length):
        hit = {s for s in spans if s[0] < at + length and at < s[1]}
        rest = [r for r, s in zip(RECORDS, spans, strict=True) if s not in hit]
        zeros = data[:at] + bytes(length) + data[at + length :]
        payloads, damaged = told(zeros)
        assert payloads == rest if zeros != data else payloads == RECORDS
        assert bool(damaged) == (zeros != data)
        payloads, damaged = told(data[:at] + data[at + length :])
        whole = {(a, b) for a, b in hit if at == a and at + length == b}
        assert [p for p in payloads if p not in rest] == [] or at < len(segments.MAGIC)
        assert set(rest) <= set(payloads)
        assert damaged or whole or at + length < len(segments.MAGIC)


def test_garbage_in_place_of_a_segment_is_damage_as_a_whole_and_cheap():
    data = random.Random(0).randbytes(4 << 20)
    assert told(data) == ([], [(0, len(data))])
    assert told(bytes(1 << 20)) == ([], [(0, 1 << 20)])
    many = segments.START * 50_000
    assert told(many) == ([], [(0, len(many))])


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.integers(0, 10_000), st.integers(1, 255))
def test_no_frame_hides_inside_a_record(text, place, flip):
    """A query that is itself a frame never becomes a record when its own record is hurt."""
    inner = segments.frame(encode(search(99, results=0))).decode("latin-1")
    records = [encode(search(n, query=text + inner + text)) for n in range(3)]
    data = bytearray(segment(records)[0])
    data[place % len(data)] ^= flip
    payloads, damaged = told(data)
    assert set(payloads) <= set(records)
    assert len(payloads) >= 2
    assert damaged


def test_a_growing_segment_is_read_up_to_its_last_whole_record(tmp_path):
    """What stands behind it may be in writing; the same bytes in a finished segment are damage."""
    data, _spans = segment(RECORDS)
    for name, told_damage in (("a-0-1.open", 0), ("a-0-2.seg", 1)):
        (tmp_path / name).write_bytes(data[:-3])
        pieces = list(segments.pieces(tmp_path / name))
        assert [p.payload for p in pieces if p.payload] == RECORDS[:3]
        assert sum(p.payload is None for p in pieces) == told_damage


def test_a_page_that_the_disk_cannot_read_is_damage_and_the_rest_is_read(tmp_path, monkeypatch):
    records = [
        encode(Interaction(search_id=f"s{n}", video_id="v", type="click", play_s=None, ts_us=n))
        for n in range(400)
    ]
    data, spans = segment(records)
    path = tmp_path / "a-0-1.seg"
    path.write_bytes(data)

    class Bad:
        def __init__(self, file):
            self.file, self.name = file, file.name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def read(self):
            raise OSError(5, "Input/output error")

    real = os.pread

    def pread(file, length, at):
        if at <= 8192 < at + length:
            raise OSError(5, "Input/output error")
        return real(file, length, at)

    now = segments._now
    monkeypatch.setattr(segments, "_now", lambda p: Bad(now(p)))
    monkeypatch.setattr(segments.os, "pread", pread)
    pieces = list(segments.pieces(path))
    hit = [s for s in spans if s[0] < 8192 + 4096 and s[1] > 8192]
    assert [(p.at, p.end) for p in pieces if p.payload is None] == [(hit[0][0], hit[-1][1])]
    assert sum(p.payload is not None for p in pieces) == 400 - len(hit)


def test_recovery_that_cannot_set_damage_aside_leaves_the_segment_as_it_is(tmp_path):
    data, _spans = segment(RECORDS)
    path = tmp_path / f"a-{0:016d}-000001.open"
    path.write_bytes(data[:-5])
    (tmp_path / "damaged").write_text("a file is in the way")
    made = log.SegmentLog(tmp_path, replica="a")
    made.submit([search(9)]).result(timeout=10)
    made.stop()
    assert path.read_bytes() == data[:-5]
    (tmp_path / "damaged").unlink()
    log.SegmentLog(tmp_path, replica="a").stop()
    assert not path.exists()
    assert len(list(segments.read(path))) == 3
    shutil.rmtree(tmp_path / "damaged")
