"""Bisecting spherical k-means."""

from ierf.concepts.kmeans.bisecting import BisectingSphericalKMeans

__all__ = ["BisectingSphericalKMeans"]
