"""BM25 and bags read words as every other part does, in any script."""

import numpy as np

from crops.evaluation import rank
from crops.text import document_text

CAPTIONS = [
    "红烧肉家常做法！",
    "東京の夜景",
    "วิธีทำขนมปัง",
    "Sourdough: #bread",
    "iPhone15拍照",
    "👩🏽‍🍳 vlog",
    "부엌",
]


def best(query):
    ranked = rank.bm25([query], [document_text(text) for text in CAPTIONS], 3)
    return CAPTIONS[ranked[0, 0]] if ranked[0, 0] >= 0 else None


def test_a_query_that_stands_in_a_caption_finds_it_in_any_script():
    found = {
        query: best(query)
        for query in ("红烧肉", "夜景", "ขนมปัง", "sourdough?", "bread", "拍照", "👩", "부엌")
    }
    assert list(found.values()) == [CAPTIONS[n] for n in (0, 1, 2, 3, 3, 4, 5, 6)]
    assert best("zebra") is best("？！") is None


def test_two_characters_in_a_row_say_more_than_the_same_two_apart():
    texts = ["东京铁塔", "京城之东", "西安城墙"]
    assert rank.bm25(["东京"], texts, 3).tolist() == [[0, 1, -1]]


def test_bags_do_not_see_punctuation_and_are_unit_vectors():
    first, second, third = rank.bags(["#bread, rye!", "bread rye", "红烧肉"])
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(np.linalg.norm(third), 1.0, rtol=1e-6)
    assert np.count_nonzero(third) == 5  # three characters and two pairs
