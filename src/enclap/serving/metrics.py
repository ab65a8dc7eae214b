"""Figures of a running server in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

LATENCIES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds

__all__ = ["CONTENT_TYPE_PLAIN_0_0_4", "Metrics"]


class Metrics:
    """The figures, in a registry of their own, so that several servers in one process do not add up."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "enclap_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.latency = Histogram(
            "enclap_request_seconds", "Time to answer.", ("route",), registry=registry, buckets=LATENCIES
        )
        self.audio = Counter("enclap_audio_seconds", "Audio captioned.", registry=registry)
        self.windows = Counter("enclap_windows", "Windows captioned, silent ones included.", registry=registry)
        self.model = Counter("enclap_model_seconds", "Time in the model.", ("stage",), registry=registry)
        self.batch = Histogram(
            "enclap_batch_windows", "Windows in one batch.", registry=registry, buckets=(1, 2, 4, 8, 16, 32)
        )
        self.active = Gauge("enclap_active_requests", "Requests captioned or waiting for it.", registry=registry)
        self.jobs = Gauge("enclap_jobs", "Jobs that wait or run.", registry=registry)
        self.refusals = Summary("enclap_refusal_seconds", "Time to an answer of 429.", registry=registry)
        self.refused = Counter("enclap_refused", "Requests refused because the queue was full.", registry=registry)

    def exposition(self) -> bytes:
        """All figures as text."""
        return generate_latest(self.registry)
