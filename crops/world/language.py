"""What searchers type: per intent a pool of wordings, short or long, in their own words, sometimes one
ambiguous word.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from crops.text import normalise_query
from crops.world.lexicon import ENGLISH, Intent, Tongue, pick, words
from crops.world.settings import Settings


@dataclass(frozen=True, slots=True)
class Queries:
    """All wordings. `texts` are distinct normalised queries; wording w of intent i is `text_of[i, w]`, with
    `weight[i, w]`.
    """

    texts: tuple[str, ...]
    text_of: ndarray
    weight: ndarray
    vague: ndarray

    def draw(self, intents: ndarray, rng: Generator, avoid: ndarray | None = None) -> ndarray:
        """A text id per intent [N]; with `avoid` [N] another text than that one, and never the vague ones
        again.
        """
        weight = self.weight[intents].copy()
        if avoid is not None:
            weight[self.text_of[intents] == avoid[:, None]] = 0.0
            weight[self.vague[intents]] *= 0.1
        cumulative = weight.cumsum(axis=1)
        point = rng.random(len(intents)) * cumulative[:, -1]
        chosen = np.minimum((cumulative <= point[:, None]).sum(axis=1), weight.shape[1] - 1)
        return self.text_of[intents, chosen]

    def intent_share(self, popularity: ndarray) -> dict[int, dict[int, float]]:
        """text id -> {intent: share of the people who type it that mean this}."""
        mass: dict[int, dict[int, float]] = {}
        for i, (row, weights) in enumerate(zip(self.text_of, self.weight, strict=True)):
            for text, weight in zip(row, weights, strict=True):
                mass.setdefault(int(text), defaultdict(float))[i] += float(weight * popularity[i])
        return {text: {i: m / sum(meant.values()) for i, m in meant.items()} for text, meant in mass.items()}


def make(
    intents: tuple[Intent, ...], settings: Settings, rng: Generator, tongue: Tongue = ENGLISH
) -> Queries:
    """Draws the wordings of every intent; a wording that comes up twice in one intent gets both weights."""
    ids: dict[str, int] = {}
    shape = (len(intents), settings.wordings)
    text_of, vague = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for i, intent in enumerate(intents):
        for w in range(settings.wordings):
            text, is_vague = wording(intent, settings, rng, tongue)
            text_of[i, w] = ids.setdefault(normalise_query(text), len(ids))
            vague[i, w] = is_vague
    rank = np.arange(1, settings.wordings + 1, dtype=np.float64)
    weight = np.tile(rank**-settings.wording_zipf / (rank**-settings.wording_zipf).sum(), (len(intents), 1))
    return Queries(texts=tuple(ids), text_of=text_of, weight=weight, vague=vague)


def wording(intent: Intent, settings: Settings, rng: Generator, tongue: Tongue = ENGLISH) -> tuple[str, bool]:
    """One way to type an intent, drawn anew, and whether it is too short to tell what is meant."""
    gap = tongue.space
    names, shares = zip(*settings.forms, strict=True)
    form = names[int(rng.choice(len(names), p=shares))]
    own, facet = pick(intent.subject_types, rng), pick(intent.facet_types, rng)
    text = {
        "own full": f"{own}{gap}{facet}" if rng.random() < 0.6 else f"{facet}{gap}{own}",
        "own subject": own,
        "own subject, video facet": f"{own}{gap}{intent.facet}",
        "video words": f"{intent.subject}{gap}{intent.facet}"
        if rng.random() < 0.5
        else f"{intent.subject}{gap}{facet}",
        "head facet": f"{pick(intent.head, rng)}{gap}{facet}",
        "head": pick(intent.head, rng),
    }[form]
    if rng.random() < settings.modifier_share and not form.startswith("head"):
        modifier = pick(words(tongue.modifiers), rng)
        text = f"{modifier}{gap}{text}" if rng.random() < 0.5 else f"{text}{gap}{modifier}"
    if rng.random() < settings.slip_share:  # a slip: two neighbouring letters swapped
        at = int(rng.integers(max(1, len(text) - 1)))
        text = text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    return text, form.startswith("head")
