"""The baseline of the text recipes: cosine of TF-IDF vectors, without any training on pairs.

Source: Salton and Buckley (1988), "Term-weighting approaches in automatic text retrieval"; scikit-learn's
smoothed inverse document frequency, ``log((1 + documents) / (1 + documents with the token)) + 1``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.text import TextPairs, Unit, tokens_of


def tfidf_distances(
    known: Sequence[str], pairs: Sequence[TextPairs], unit: Unit
) -> list[NDArray[np.float64]]:
    """Return the cosine distance of each pair, float64[N] for each list of pairs.

    Args:
        known: Texts that the document frequencies are counted on.
        pairs: Lists of pairs to compare.
        unit: What a token is. Counts of tokens enter by 1 + their logarithm.
    """
    # A second to import; the base install lacks it.
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    fitted = TfidfVectorizer(analyzer=lambda text: tokens_of(text, unit), sublinear_tf=True).fit(known)

    def apart(each: TextPairs) -> NDArray[np.float64]:
        left, right = fitted.transform(each.left), fitted.transform(each.right)
        return 1.0 - np.asarray(left.multiply(right).sum(axis=1), np.float64).ravel()

    return [apart(each) for each in pairs]


def inverse_document_frequency(tokens: NDArray[np.int32], vocabulary: int) -> NDArray[np.float64]:
    """Return float64[vocabulary], the weight of each token; 0 for padding.

    Args:
        tokens: int32[N, T], encoded texts, 0 for padding.
        vocabulary: How many numbers there are.

    >>> inverse_document_frequency(np.array([[1, 1, 0], [1, 2, 0]], np.int32), 3).round(3).tolist()
    [0.0, 1.0, 1.405]
    """
    documents = np.zeros(vocabulary)
    for row in tokens:
        documents[np.unique(row)] += 1.0
    weight = np.log((1.0 + len(tokens)) / (1.0 + documents)) + 1.0
    weight[0] = 0.0
    return np.asarray(weight, np.float64)
