"""Settings of the project: whatever speaks Redis' protocol at REDIS_URL is enough, there is no database."""

import os
from urllib.parse import urlsplit

REDIS_URL = urlsplit(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))._replace(path="").geturl()

SECRET_KEY = "an example has no secrets"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "reports.urls"
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
USE_TZ = True

SESSION_ENGINE = "django.contrib.sessions.backends.cache"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"{REDIS_URL}/0",
        "KEY_PREFIX": "reports",
    }
}

CELERY_BROKER_URL = f"{REDIS_URL}/1"
CELERY_RESULT_BACKEND = f"{REDIS_URL}/2"
CELERY_TASK_ACKS_LATE = True  # a task whose worker dies is run again
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
