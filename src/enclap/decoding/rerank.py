"""Which of several candidate sentences is the best: by the caption model, by CLAP, or by both; in numpy.

Source of reranking by CLAP and likelihood: EnCLAP++ (arXiv 2409.01201). How `both` weighs them is ours: each score is
standardised over a clip's candidates, so that neither outweighs the other by its scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enclap.types import Candidate, FloatArray


def rank(candidates: Sequence[Candidate], likeness: FloatArray, by: str) -> list[Candidate]:
    """The candidates of one clip, best first; of equals the one that stood first stays first.

    likeness: float [N], cosine between the clip's CLAP embedding and each sentence's. by: "likelihood", the mean
    log-probability; "clap", the likeness; "both", the sum of the two, each standardised.
    """
    likelihood = np.array([candidate.score for candidate in candidates], dtype=np.float64)
    values = {
        "likelihood": likelihood,
        "clap": likeness.astype(np.float64),
        "both": standardised(likelihood) + standardised(likeness.astype(np.float64)),
    }[by]
    return [candidates[place] for place in np.argsort(-values, kind="stable")]


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [N] with mean 0 and deviation 1; zeros when all are equal."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)
