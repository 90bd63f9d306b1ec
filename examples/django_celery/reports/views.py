"""GET /reports/YEAR: 200 with the report, or 202 while it is being built. GET /recent: what this visitor looked at."""

from django.core.cache import cache
from django.http import HttpRequest, JsonResponse

from reports.tasks import start_report


def report(request: HttpRequest, year: int) -> JsonResponse:
    request.session["recent"] = [*request.session.get("recent", []), year][-5:]
    if (found := cache.get(f"report:{year}")) is not None:
        return JsonResponse(found)
    return JsonResponse({"started": start_report(year)}, status=202)


def recent(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"years": request.session.get("recent", [])})
