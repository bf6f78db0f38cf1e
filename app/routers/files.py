"""The routes under /v1/files: what batches read and write, and what clients keep here otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import FileResponse, JSONResponse

from app.database.page_query import Order, PageQuery
from app.files.stored import PURPOSES, check_life, check_purpose
from app.files.upload import receive_upload
from app.paths import FORM_BYTES
from app.routers.serving import BareRoute
from app.schemas.common import ERROR_RESPONSES
from app.schemas.files import DeletedFile, FileList, FileObject
from app.server import Server

router = APIRouter(
    tags=["Files and batches"], responses={code: ERROR_RESPONSES[code] for code in (400, 401, 404, 503)}
)
_uploads = APIRouter(
    tags=["Files and batches"],
    route_class=BareRoute,
    responses={code: ERROR_RESPONSES[code] for code in (400, 401, 413, 503)},
)

MOST_FILES = 10_000

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES), "example": PURPOSES[0]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
                    },
                }
            }
        },
    }
}


@_uploads.post("/v1/files", summary="Upload a file", response_model=FileObject, openapi_extra=_FORM)
async def create_file(request: Request) -> Response:
    """`purpose` is `batch` for the input of a batch (docs/batches.md), `user_data` for anything else. A file
    may be as large as `MAX_FILE_BYTES`; it goes to the disk as it comes."""
    server: Server = request.app.state.server
    files = (await server.storage()).files
    owner = request.state.owner
    length = request.headers.get("content-length", "")
    await files.check_room(owner, max(0, int(length) - FORM_BYTES) if length.isdigit() else 0)
    content_type = request.headers.get("content-type", "")
    upload = await receive_upload(request.stream(), content_type, await files.new_part())
    try:
        fields = upload.fields
        purpose = check_purpose(fields.get("purpose"))
        life = check_life(fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]"))
        file = await files.add(owner, purpose, upload, life)
    finally:
        upload.discard()
    return JSONResponse(FileObject.of(file).model_dump())


router.routes.extend(_uploads.routes)


@router.get("/v1/files", summary="List your files")
async def list_files(
    request: Request,
    purpose: Annotated[str | None, Query(description="Only those for this.")] = None,
    after: Annotated[str | None, Query(description="The id behind which the list goes on.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_FILES, description="Files at once.")] = MOST_FILES,
    order: Annotated[Order, Query(description="By their age; `desc`: the newest first.")] = "desc",
) -> FileList:
    server: Server = request.app.state.server
    files = (await server.storage()).files
    found, has_more = await files.page(request.state.owner, PageQuery(limit, after, order), purpose)
    return FileList.of(found, has_more)


@router.get("/v1/files/{file_id}", summary="Look at one file")
async def get_file(file_id: str, request: Request) -> FileObject:
    server: Server = request.app.state.server
    return FileObject.of(await (await server.storage()).files.get(request.state.owner, file_id))


@router.get(
    "/v1/files/{file_id}/content",
    summary="Download a file",
    response_class=FileResponse,
    responses={200: {"description": "The file as it is", "content": {"application/octet-stream": {}}}},
)
async def get_file_content(file_id: str, request: Request) -> Response:
    server: Server = request.app.state.server
    files = (await server.storage()).files
    file = await files.get(request.state.owner, file_id)
    return FileResponse(
        files.path(file),
        media_type="application/octet-stream",
        filename=file.filename,
        headers={"X-Content-Type-Options": "nosniff"},
    )


@router.delete("/v1/files/{file_id}", summary="Delete a file")
async def delete_file(file_id: str, request: Request) -> DeletedFile:
    """Batches that read it go on: they have their own copy."""
    server: Server = request.app.state.server
    await (await server.storage()).files.delete(request.state.owner, file_id)
    return DeletedFile(id=file_id)
