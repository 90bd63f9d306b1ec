"""The pages."""

from django.urls import path

from reports.views import recent, report

urlpatterns = [path("reports/<int:year>", report), path("recent", recent)]
