"""GET /: what this is, which model answers, and where things are."""

from __future__ import annotations

from html import escape
from string import Template

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from app import __version__
from app.first_steps import curl_example
from app.routers.docs import FAVICON_URL, root_of
from app.schemas.system import Welcome
from app.server import Server

router = APIRouter(tags=["System"])

# Nothing but its own style and icon: the page needs no script, and no other host.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Enginehouse</title>
<link rel="icon" href="$root$icon">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
pre { background: #f3f4f6; padding: .8rem; overflow-x: auto; }
dt { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #111827; color: #e5e7eb; } pre { background: #1f2937; } a { color: #fbbf24; }
}
</style>
</head>
<body>
<h1>Enginehouse $version</h1>
<p>An LLM inference server with OpenAI's API. <b>$model</b> answers by default; it is $state.</p>
<p>Point any OpenAI client at the base URL <code>$url/v1</code>, or ask:</p>
<pre>$curl</pre>
<dl>
<dt><a href="$root/docs">$root/docs</a>, <a href="$root/redoc">$root/redoc</a></dt>
<dd>every route, to be tried out, or to be read</dd>
<dt><a href="$root/v1/models">$root/v1/models</a></dt>
<dd>the models that requests may name</dd>
<dt><a href="$root/health">$root/health</a>, <a href="$root/readyz">$root/readyz</a></dt>
<dd>whether it can serve</dd>
<dt><a href="$root/metrics">$root/metrics</a></dt>
<dd>metrics for Prometheus</dd>
</dl>
<p>In a terminal:</p>
<pre>enginehouse chat --url $url   # talk to it
enginehouse ps --url $url     # what is loaded
enginehouse models            # what is on this disk and in the catalog
enginehouse doctor            # what this machine can run</pre>
</body>
</html>
""")


@router.get(
    "/",
    summary="What this server is, and where things are",
    response_model=Welcome,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def home(request: Request) -> Response:
    """A page for people; JSON for programs that ask for it (`Accept: application/json`)."""
    server: Server = request.app.state.server
    default = server.report(server.default)
    accepted = request.headers.get("accept", "")
    if "application/json" in accepted and "text/html" not in accepted:
        return JSONResponse(Welcome(version=__version__, model=default.id, state=default.state).model_dump())
    return HTMLResponse(
        _page(request, default.id, default.state, has_keys=bool(server.settings.api_keys)),
        headers={"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"},
    )


def _page(request: Request, model: str, state: str, *, has_keys: bool) -> str:
    url = str(request.base_url).rstrip("/")
    facts = {
        "version": __version__,
        "model": model,
        "state": state,
        "url": url,
        "root": root_of(request),
        "icon": FAVICON_URL,
        "curl": curl_example(url, model, with_key=has_keys, between=" \\\n  "),
    }
    return _PAGE.substitute({name: escape(value) for name, value in facts.items()})
