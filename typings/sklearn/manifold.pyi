# scikit-learn ships no types. This stub has what convscope calls.
import numpy as np

class TSNE:
    def __init__(
        self,
        n_components: int = ...,
        *,
        perplexity: float = ...,
        init: str = ...,
        random_state: int | None = ...,
        max_iter: int | None = ...,
        n_jobs: int | None = ...,
    ) -> None: ...
    def fit_transform(self, X: np.ndarray) -> np.ndarray: ...
