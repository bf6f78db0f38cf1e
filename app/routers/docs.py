"""/docs and /redoc that render on a machine without internet.

FastAPI's own pages load their scripts from a CDN. These load them from this server, out of the package
``fastapi_offline``, and a content security policy keeps the browser from asking any other host.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from app.routers import examples

STATIC_URL = "/static/docs"
FAVICON_URL = "/favicon.svg"

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; worker-src 'self' blob:"
)
_FAVICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" '
    'fill="#1f2937"/><path d="M5 17 16 7l11 10h-3v9H8v-9z" fill="#f59e0b"/>'
    '<circle cx="16" cy="19" r="4" fill="#1f2937"/></svg>'
)
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


class _CachedFiles(StaticFiles):
    """Files whose URL changes with the package's version: a browser may keep them for a year."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def install(app: FastAPI, bodies: Sequence[type[BaseModel]] = (), model: str | None = None) -> None:
    """Serve the pages for ``app``, which was made with ``docs_url=None, redoc_url=None``.

    ``bodies`` are the schemas of request bodies that routes read themselves, and refer to by name; ``model``
    is the model that the examples name.
    """
    app.mount(STATIC_URL, _CachedFiles(directory=_static_folder()), name="docs-static")
    app.add_api_route("/docs", _swagger, include_in_schema=False)
    app.add_api_route("/redoc", _redoc, include_in_schema=False)
    for url in (FAVICON_URL, "/favicon.ico"):
        app.add_api_route(url, _favicon, include_in_schema=False)
    _describe(app, bodies, model)


def _static_folder() -> Path:
    # Found, not imported: its code brings a FastAPI subclass that we have no use for.
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("The package fastapi-offline is missing: /docs takes its files from there.")
    return Path(spec.origin).parent / "static"


async def _swagger(request: Request) -> HTMLResponse:
    root, app = root_of(request), request.app
    page = get_swagger_ui_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        swagger_js_url=_asset(root, "swagger-ui-bundle.js"),
        swagger_css_url=_asset(root, "swagger-ui.css"),
        swagger_favicon_url=f"{root}{FAVICON_URL}",
        # Without this, Swagger UI shows a badge that another host draws.
        swagger_ui_parameters={"validatorUrl": None, "persistAuthorization": True},
    )
    return _local_only(page)


async def _redoc(request: Request) -> HTMLResponse:
    root, app = root_of(request), request.app
    page = get_redoc_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        redoc_js_url=_asset(root, "redoc.standalone.js"),
        redoc_favicon_url=f"{root}{FAVICON_URL}",
        with_google_fonts=False,
    )
    return _local_only(page)


async def _favicon() -> Response:
    return Response(_FAVICON, media_type="image/svg+xml", headers={"Cache-Control": "public, max-age=86400"})


def root_of(request: Request) -> str:
    """The path below which a proxy has this server; empty without one."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _asset(root: str, name: str) -> str:
    return f"{root}{STATIC_URL}/{name}?v={version('fastapi-offline')}"


def _local_only(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = _POLICY
    return page


def _describe(app: FastAPI, bodies: Sequence[type[BaseModel]], model: str | None) -> None:
    """Make the OpenAPI document tell the truth: errors come as 400 in the envelope, keys as Bearer, and the
    examples can be sent."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            _correct(document, bodies)
            if model is not None:
                examples.add(document, model)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _correct(document: dict[str, Any], bodies: Sequence[type[BaseModel]]) -> None:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = _ERROR_SCHEMA
    for body in bodies:
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {**schema.pop("$defs", {}), body.__name__: schema}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, item in document["paths"].items():
        for operation in item.values():
            _correct_operation(operation, guarded=path.startswith(("/v1/", "/api/")))


def _correct_operation(operation: MutableMapping[str, Any], *, guarded: bool) -> None:
    if guarded:
        operation["security"] = [{"bearer": []}]
    if operation["responses"].pop("422", None) is not None:
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        operation["responses"].setdefault("400", {"description": "Invalid request", "content": content})
