"""The same test body on every engine, as where the pairs are mined."""

from tests.crops.mining.conftest import engine, house

__all__ = ["engine", "house"]
