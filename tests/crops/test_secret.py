"""Secrets: an empty one is refused, and a purpose's key is what another HKDF makes of it."""

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crops import secret
from crops.errors import ConfigError


def test_a_purposes_key_is_that_of_another_implementation():
    for given in (b"x", b"s" * 32, b"long" * 100):
        for purpose in ("search ids", "users", "é"):
            other = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(given)
            assert secret.derived(given, purpose) == other
    assert secret.derived(b"s", "a") != secret.derived(b"s", "b")


@pytest.mark.parametrize("content", [b"", b"\n", b"  \r\n\t"])
def test_an_empty_one_is_an_error_wherever_it_is_read(tmp_path, monkeypatch, content):
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match="secret: the secret is empty"):
        secret.given(tmp_path / "secret", "NOT_SET")
    monkeypatch.setenv("A_SECRET", content.decode())
    with pytest.raises(ConfigError, match="A_SECRET: the secret is empty"):
        secret.given(None, "A_SECRET")


def test_one_that_is_no_text_is_an_error_that_names_its_place():
    assert secret.text("é".encode(), "token") == "é"
    with pytest.raises(ConfigError, match="token: the secret is not UTF-8 text"):
        secret.text(b"\xff\xfe", "token")


def test_the_file_comes_first_then_the_environment_then_none(tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(b"of the file\n")
    monkeypatch.setenv("A_SECRET", "of the environment")
    assert secret.given(tmp_path / "secret", "A_SECRET") == b"of the file"
    assert secret.given(None, "A_SECRET") == b"of the environment"
    monkeypatch.delenv("A_SECRET")
    assert secret.given(None, "A_SECRET") is None
    with pytest.raises(ConfigError, match="cannot be read"):
        secret.read(tmp_path / "nothing")
