"""The Celery application; its options are those of settings.py that begin with CELERY_."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "reports.settings")

app = Celery("reports", include=["reports.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
