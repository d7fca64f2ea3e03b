"""Public centres: k-means on public embeddings, and the nearest centre of a record (guarantee 2.1, 2.2)."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plainchant.arrays import Float32Array, IntArray
from plainchant.data.files import atomic_write
from plainchant.data.nearest import nearest_point
from plainchant.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Centres:
    """Points of the embedding space that define the cells. They are public: no private record influences them.

    Attributes:
        vectors: float32 [k, d], finite, read-only; means of unit vectors, therefore shorter than 1.
    """

    vectors: Float32Array

    def __post_init__(self) -> None:
        vectors = np.array(self.vectors, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
            raise ConfigError(f"centres: vectors of shape {vectors.shape} must be [k, d], k and d >= 1, and finite")
        vectors.setflags(write=False)
        object.__setattr__(self, "vectors", vectors)

    def nearest(self, embeddings: Float32Array, among: IntArray | None = None) -> IntArray:
        """The nearest centre of each row by Euclidean distance; among equally near ones the lowest index.

        Each answer depends on its own row only, to the last bit: nothing is normalised or balanced over rows, and the
        arithmetic is exact (see `data.nearest`; guarantee 2.2).

        Args:
            embeddings: float32 [n, d].
            among: indices of the centres that are allowed; None allows all.

        Returns:
            int64 [n], indices into all k centres, even if only some are allowed.

        Raises:
            ConfigError: `among` is empty or out of range, or d is not that of the centres.

        >>> centres = Centres(np.eye(2, dtype=np.float32))
        >>> centres.nearest(np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32))
        array([0, 1])
        """
        k, d = self.vectors.shape
        allowed = np.arange(k) if among is None else np.unique(np.asarray(among, dtype=np.int64))
        if len(allowed) == 0 or allowed[0] < 0 or allowed[-1] >= k:
            raise ConfigError(f"among: needs at least one index, each in 0, ..., {k - 1}")
        if embeddings.ndim != 2 or embeddings.shape[1] != d:
            raise ConfigError(f"centres have {d} dimensions, the embeddings do not: fit both with the same embedder")
        return allowed[nearest_point(embeddings, self.vectors[allowed])]

    def save(self, path: str | Path) -> None:
        """Write an .npz file at exactly this path; whole or not at all."""
        with atomic_write(path) as file:
            np.savez(file, vectors=self.vectors)

    @classmethod
    def load(cls, path: str | Path) -> "Centres":
        """Read what `save` wrote.

        Raises:
            ConfigError: no such file, or not centres.
        """
        try:
            # never unpickle: the file may come from someone else
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                return cls(archive["vectors"])
        except FileNotFoundError as error:
            raise ConfigError(f"centres = {str(path)!r}: no such file") from error
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ConfigError(f"centres = {str(path)!r} is not a file of centres: fit and save them again") from error


def fit_centres(embeddings: Float32Array, k: int) -> Centres:
    """Fit k centres to *public* embeddings by k-means; the same embeddings give the same centres.

    Args:
        embeddings: float32 [m, d] of public texts; equal rows count once.
        k: number of centres.

    Raises:
        ConfigError: k is not in 1, ..., the number of different rows.

    >>> points = np.array([[0, 0], [0, 1], [9, 9], [9, 8]], dtype=np.float32)
    >>> sorted(fit_centres(points, 2).vectors.tolist())
    [[0.0, 0.5], [9.0, 8.5]]
    """
    # sklearn is slow to import
    from sklearn.cluster import KMeans, kmeans_plusplus

    distinct = np.unique(embeddings, axis=0)
    if not 1 <= k <= len(distinct):
        raise ConfigError(
            f"centres = {k}: must be in 1, ..., {len(distinct)}, the number of different public texts; "
            f"ask for fewer centres or give more public texts"
        )
    # A fixed seed is right here, and only here: centres are public, so there is nothing to hide, and anyone who
    # has the corpus can check them. One trial per start: at k = 1000 sklearn's eight take ten times as long and reduce
    # inertia by 1.4 %. MiniBatchKMeans leaves some cells empty and others huge.
    starts, _ = kmeans_plusplus(distinct, k, random_state=0, n_local_trials=1)
    means = KMeans(k, init=starts, n_init=1, random_state=0).fit(distinct)
    return Centres(means.cluster_centers_)
