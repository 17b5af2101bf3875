"""A page that shows what the server answers and lets one try it: from the package, and nowhere else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

FILES = Path(__file__).parent / "static"
PATHS = {"/docs": "api.html", "/docs/api.css": "api.css", "/docs/api.js": "api.js"}
# whatever stands in an answer, the page asks this server alone and runs no script but its own
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


router = APIRouter(include_in_schema=False)


def _show(path: str, name: str) -> None:
    @router.get(path)
    async def shown() -> FileResponse:
        return FileResponse(FILES / name, headers=HEADERS)


for path, name in PATHS.items():
    _show(path, name)
