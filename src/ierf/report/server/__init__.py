"""`ierf serve`: explanations on a page, computed as they are asked for. Needs the extra "serve"."""

from ierf.report.server.app import address, create_app, listening, run, server
from ierf.report.server.jobs import Jobs
from ierf.report.server.middleware import Access
from ierf.report.server.schemas import Limits
from ierf.report.server.served_model import ServedModel

__all__ = ["Access", "Jobs", "Limits", "ServedModel", "address", "create_app", "listening", "run", "server"]
