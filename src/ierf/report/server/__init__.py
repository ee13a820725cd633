"""`ierf serve`: explanations on a page, computed as they are asked for. Needs the extra "serve"."""

from ierf.report.server.app import create_app
from ierf.report.server.guard import Access
from ierf.report.server.jobs import Jobs
from ierf.report.server.limits import Limits
from ierf.report.server.running import address, listening, run, server
from ierf.report.server.subject import Subject

__all__ = ["Access", "Jobs", "Limits", "Subject", "address", "create_app", "listening", "run", "server"]
