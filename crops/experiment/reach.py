"""How many different users an arm has reached, as numbers that several gateways can add up without naming
anybody: HyperLogLog.

Each gateway keeps a few small numbers per arm. The greatest of each, over gateways and over time, is what one
gateway would hold that had seen all their users, so Prometheus merges them. Source: Flajolet, Fusy, Gandouet,
Meunier 2007, with their correction for small counts.
"""

import math
from collections.abc import Iterable
from hashlib import blake2b

REGISTERS = 128  # standard error 1.04 / sqrt(128): 9 %
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)
_BITS = 64 - REGISTERS.bit_length() + 1  # of a hash, beside those that choose the register


def rank(user_id: str) -> tuple[int, int]:
    """(register, rank >= 1) of a user: a rank of r stands for about 2 ** r users."""
    hashed = int.from_bytes(blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return hashed % REGISTERS, _BITS + 1 - (hashed // REGISTERS).bit_length()


def users(ranks: Iterable[float]) -> float:
    """The number of users, within some 9 %. ranks: the greatest of each register that holds any."""
    filled = [*ranks]
    empty = REGISTERS - len(filled)
    estimate = _ALPHA * REGISTERS**2 / (empty + sum(2.0**-one for one in filled))
    few = empty > 0 and estimate <= 2.5 * REGISTERS
    return REGISTERS * math.log(REGISTERS / empty) if few else estimate
