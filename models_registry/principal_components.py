"""Principal components: the autoencoder's baseline, and where its training starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class PrincipalComponents:
    """The best linear compression of flat rows `[n, D]` to `[n, components]`."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]
    """`[D, components]`, orthonormal, by falling variance."""
    scale: NDArray[np.float64]
    """Standard deviation of the rows along each axis, never zero."""

    @classmethod
    def fit(cls, rows: Float32, components: int) -> PrincipalComponents:
        """Of rows `[n, ...]`, flattened; the sign of each axis is fixed, so that equal rows give equal axes."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        mean = flat.mean(axis=0)
        variance, vectors = np.linalg.eigh(np.cov(flat - mean, rowvar=False))
        axes = vectors[:, ::-1][:, :components]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
        return cls(mean, axes, np.sqrt(np.maximum(variance[::-1][:components], 1e-6)))

    def reconstruction(self, rows: Float32) -> NDArray[np.float64]:
        """Rows `[n, ...]` as the components give them back."""
        centred = rows.reshape(len(rows), -1).astype(np.float64) - self.mean
        return np.asarray((centred @ self.axes) @ self.axes.T + self.mean).reshape(rows.shape)

    def error(self, rows: Float32) -> Float32:
        """Mean squared reconstruction error `[n]` of each row."""
        rest = (rows - self.reconstruction(rows)).reshape(len(rows), -1)
        return np.asarray(np.square(rest).mean(axis=1), dtype=np.float32)
