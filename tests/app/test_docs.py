from __future__ import annotations

import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.routers import docs


class Item(BaseModel):
    name: str


def make_client(root_path: str = "") -> httpx.AsyncClient:
    app = FastAPI(title="House", docs_url=None, redoc_url=None)

    @app.post("/v1/items")
    async def items(item: Item) -> Item:
        return item

    @app.get("/healthz")
    async def healthz() -> str:
        return "ok"

    docs.install(app)
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_client() as client:
        yield client


def references(page: str) -> list[str]:
    """All that the page loads: from its tags, and what its script is told to fetch."""
    found = re.findall(r"""\b(?:src|href|spec-url)=["']([^"']+)["']|\burl:\s*['"]([^'"]+)['"]""", page)
    return [tag or script for tag, script in found]


@pytest.mark.parametrize(("path", "count"), [("/docs", 4), ("/redoc", 3)])
async def test_a_page_loads_only_what_this_server_has(
    client: httpx.AsyncClient, path: str, count: int
) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    urls = references(page.text)
    assert len(urls) == count
    for url in urls:
        assert not urlsplit(url).netloc, f"{url} is on another host"
        answer = await client.get(url)
        assert answer.status_code == 200
        assert len(answer.content) > 100


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_browser_is_kept_from_other_hosts(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy
    assert "http" not in re.sub(r"<!--.*?-->", "", page.text)


async def test_the_validator_of_another_host_is_off(client: httpx.AsyncClient) -> None:
    assert '"validatorUrl": null' in (await client.get("/docs")).text


async def test_files_may_be_kept_because_their_url_has_the_version(client: httpx.AsyncClient) -> None:
    scripts = [url for url in references((await client.get("/docs")).text) if "/static/" in url]
    assert scripts
    for url in scripts:
        assert re.search(r"\?v=\d", url)
        assert "max-age=31536000" in (await client.get(url)).headers["cache-control"]


@pytest.mark.parametrize("path", ["/static/docs/../core.py", "/static/docs/%2e%2e/core.py", "/static/docs/"])
async def test_nothing_else_is_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/favicon.svg", "/favicon.ico"])
async def test_the_icon_is_ours(client: httpx.AsyncClient, path: str) -> None:
    icon = await client.get(path)
    assert icon.headers["content-type"] == "image/svg+xml"
    assert icon.text.startswith("<svg")


async def test_pages_work_below_a_root_path() -> None:
    async with make_client("/api") as client:
        urls = references((await client.get("/api/docs")).text)
        assert urls
        assert all(url.startswith("/api/") for url in urls)
        assert [(await client.get(url)).status_code for url in urls] == [200] * 4


async def test_the_document_describes_errors_and_keys_as_they_are(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/items"]["post"]
    assert set(operation["responses"]) == {"200", "400"}
    assert operation["security"] == [{"bearer": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]
    assert "ValidationError" not in str(document)
    assert document["components"]["schemas"]["Error"]["required"] == ["error"]
    assert (await client.get("/openapi.json")).json() == document
