"""The incumbent search engine: a lexical and a dense path, popularity and click feedback. It decides what is
exposed.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from scipy import sparse
from scipy.sparse.linalg import svds

from crops.text import document_text, pieces, words
from crops.world.catalogue import Catalogue
from crops.world.settings import Settings

# Query rows scored at once: bounds the dense score matrix at 512 x videos floats.
CHUNK = 512
BM25_K1, BM25_B = 1.2, 0.75
PATHS = ("lexical", "dense", "popular")


def _words(text: str) -> list[str]:
    """As an engine of its time cuts them: at white space, and where a script has none into characters and
    pairs.
    """
    if any(unspaced for _piece, unspaced in pieces(text)):
        return words(text)
    return re.findall(r"[^\s:|;]+", text)


def _counts(texts: Sequence[str], vocabulary: dict[str, int]) -> sparse.csr_matrix:
    """How often each text holds each word; new words get the next columns."""
    rows, columns = np.array(
        [
            (row, vocabulary.setdefault(word, len(vocabulary)))
            for row, text in enumerate(texts)
            for word in _words(text)
        ]
    ).T
    shape = (len(texts), len(vocabulary))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)


class Engine:
    """State that changes from day to day: what was clicked for a query, what is popular, what words came to
    mean.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        query_texts: Sequence[str],
        incumbent: str,
        settings: Settings,
        rng: Generator,
    ):
        self.settings, self.dense, self.chance = settings, incumbent == "paths", rng
        parts = zip(catalogue.captions, catalogue.keywords, catalogue.covers, catalogue.related, strict=True)
        vocabulary: dict[str, int] = {}
        documents = _counts([document_text(*p) for p in parts], vocabulary)
        self.queries = _counts(query_texts, vocabulary)
        documents.resize(documents.shape[0], len(vocabulary))
        self.bm25 = _bm25(documents).T.tocsr()
        self.popularity = np.zeros(documents.shape[0])
        self.clicks = sparse.csr_matrix((len(query_texts), documents.shape[0]))
        self.documents, self.words = _lsa(documents, settings, rng)
        self.release: tuple[ndarray, ndarray] | None = None

    def serve(self, queries: ndarray, documents: ndarray) -> None:
        """From now on the dense path goes by a release's vectors of length 1: float [T, H] of every query
        text, [V, H] of every video; what words it has learnt by itself no longer counts.
        """
        self.release = queries, documents

    def search(self, queries: ndarray) -> tuple[ndarray, ndarray]:
        """For query ids [N]: videos int [N, pool] best first, and bit masks of the PATHS that brought them
        [N, pool].
        """
        distinct, back = np.unique(queries, return_inverse=True)
        parts = [self._search(distinct[start : start + CHUNK]) for start in range(0, len(distinct), CHUNK)]
        videos, paths = map(np.concatenate, zip(*parts, strict=True))
        return videos[back], paths[back]

    def _search(self, queries: ndarray) -> tuple[ndarray, ndarray]:
        pool = self.settings.exposed + self.settings.ranked + self.settings.filtered
        terms = self.queries[queries]
        lexical = (terms @ self.bm25).toarray()
        lexical /= np.maximum(lexical.max(axis=1, keepdims=True), 1e-9)
        popular = self.popularity / max(1e-9, self.popularity.max())
        popular = popular + np.arange(len(popular))[::-1] * 1e-9
        score = lexical + self.settings.popularity_weight * popular
        score += self.settings.click_feedback_weight * np.log1p(self.clicks[queries].toarray())
        brought = np.where(lexical > 0, 1, 0)
        if self.dense:
            near = self._near(queries, terms)
            score += near
            # The dense path brings as many as fill the pool's half; the rest of it is lexical.
            cut = np.partition(near, -(pool // 2), axis=1)[:, -(pool // 2)][:, None]
            brought |= np.where((near >= cut) & (near > 0), 2, 0)
        score = np.where(brought > 0, score + 10.0, score)  # popular ones only fill up
        top = np.argpartition(-score, pool, axis=1)[:, :pool]
        order = np.argsort(-np.take_along_axis(score, top, axis=1), axis=1, kind="stable")
        videos = np.take_along_axis(top, order, axis=1)
        paths = np.take_along_axis(brought, videos, axis=1)
        return videos, np.where(paths == 0, 4, paths)

    def _near(self, queries: ndarray, terms: sparse.csr_matrix) -> ndarray:
        if self.release is not None:
            texts, videos = self.release
            return texts[queries] @ videos.T
        return _unit(np.asarray(terms @ self.words)) @ self.documents.T

    def learn(self, queries: ndarray, videos: ndarray) -> None:
        """The nightly update from the day's clicks (query ids [C], videos [C]): popularity, click memory,
        word meanings.
        """
        if len(queries) == 0:
            return
        decay = self.settings.daily_decay
        clicks = sparse.csr_matrix((np.ones(len(queries)), (queries, videos)), shape=self.clicks.shape)
        self.clicks = (decay * self.clicks + clicks).tocsr()
        self.popularity = decay * self.popularity + np.bincount(videos, minlength=len(self.popularity))
        if self.dense:
            # A word comes to mean what was clicked for queries that hold it.
            self.words = self.words + self.settings.word_learning * np.asarray(
                self.queries.T @ (clicks @ self.documents)
            )


def _bm25(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    length = counts.sum(axis=1).A1
    frequency = (counts > 0).sum(axis=0).A1
    idf = np.log1p((counts.shape[0] - frequency + 0.5) / (frequency + 0.5))
    weights = counts.tocoo()
    norm = BM25_K1 * (1 - BM25_B + BM25_B * length / length.mean())
    data = idf[weights.col] * weights.data * (BM25_K1 + 1) / (weights.data + norm[weights.row])
    return sparse.csr_matrix((data, (weights.row, weights.col)), shape=counts.shape)


def _lsa(counts: sparse.csr_matrix, settings: Settings, rng: Generator) -> tuple[ndarray, ndarray]:
    """Unit document vectors [V, H] with noise and word vectors [W, H] from a truncated SVD of the weighted
    counts.
    """
    weighted = _bm25(counts)
    width = min(settings.dense_width, min(weighted.shape) - 1)
    _, _, words = svds(weighted, k=width, v0=np.ones(min(weighted.shape)))
    # An SVD leaves the signs open: fix them, so that the same seed gives the same bytes everywhere.
    words *= np.sign(words[np.arange(width), np.abs(words).argmax(axis=1)])[:, None]
    documents = _unit(weighted @ words.T)
    documents = documents + settings.dense_noise / np.sqrt(width) * rng.standard_normal(documents.shape)
    return _unit(documents), words.T.copy()


def _unit(vectors: ndarray) -> ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
