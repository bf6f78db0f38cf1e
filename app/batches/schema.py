"""What routes of batches take and answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator

from app.batches.batch import BatchStatus, StoredBatch
from app.schemas.common import WireModel

MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512


class OutputExpiry(WireModel):
    """When the files of a batch expire."""

    anchor: Literal["created_at"] = Field(description="Always so: from the creation of the file on.")
    seconds: int = Field(ge=3600, le=2592000, description="An hour to 30 days.")


class BatchRequest(WireModel):
    """A batch to be made."""

    input_file_id: str = Field(description="A file that was uploaded with `purpose=batch`.")
    endpoint: str = Field(
        description="The path that every line of the file is for, such as `/v1/embeddings`."
    )
    completion_window: str = Field(
        "24h", description="The time after which what is not answered is given up; 1m to 720h."
    )
    metadata: dict[str, str] | None = Field(
        None, description=f"Up to {MOST_PAIRS} pairs of your own, which the batch is told with."
    )
    output_expires_after: OutputExpiry | None = Field(
        None, description="When the batch's files expire, counted from their creation; else `FILE_RETENTION`."
    )

    @field_validator("metadata")
    @classmethod
    def _bounded(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for key, text in (value or {}).items():
            if len(key) > LONGEST_KEY or len(text) > LONGEST_VALUE:
                raise ValueError(f"keys have {LONGEST_KEY} characters at most, values {LONGEST_VALUE}")
        if value is not None and len(value) > MOST_PAIRS:
            raise ValueError(f"there may be {MOST_PAIRS} pairs at most")
        return value


class BatchInputError(BaseModel):
    code: str
    line: int | None = None
    message: str
    param: str | None = None


class BatchInputErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchInputError]


class BatchRequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch, as OpenAI's API tells of it."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = Field(None, description="The model of its requests, if it is the same for all.")
    errors: BatchInputErrors | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: BatchRequestCounts
    usage: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None

    @classmethod
    def of(cls, batch: StoredBatch) -> BatchObject:
        own = {name: getattr(batch, name) for name in cls.model_fields if hasattr(batch, name)}
        own["errors"] = {"data": batch.errors} if batch.errors else None
        counts = {"total": batch.total, "completed": batch.completed, "failed": batch.failed}
        return cls.model_validate({**own, "request_counts": counts})


class BatchList(BaseModel):
    """A page of batches; the next one begins ``after`` `last_id`."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, batches: list[StoredBatch], has_more: bool) -> BatchList:
        data = [BatchObject.of(each) for each in batches]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)
