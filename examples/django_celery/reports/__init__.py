"""Reports that take long to build: Celery builds them, Django's cache keeps them.

The project talks to one server, Redis or whatever stands at REDIS_URL, in four ways: as the broker and the store of
results of Celery, as Django's cache, and as the store of sessions.
"""

from reports.celery import app as celery_app

__all__ = ["celery_app"]
