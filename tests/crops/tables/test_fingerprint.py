"""A changed log is another fingerprint."""

import os

import pytest

from crops.tables import fingerprint


@pytest.mark.parametrize("change", ["size", "mtime"])
def test_a_changed_log_is_another_fingerprint(tmp_path, change):
    file = tmp_path / "part-0.parquet"
    file.write_bytes(b"abc")
    first = fingerprint.of(tmp_path)
    assert fingerprint.of(tmp_path) == first
    if change == "size":
        stat = file.stat()
        file.write_bytes(b"abcd")
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        os.utime(file, ns=(1, 1))
    assert fingerprint.of(tmp_path) != first
