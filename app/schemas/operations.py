"""The bodies of the routes that change the cluster, and what they become: operations and their outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from app.operations.cluster import Rescaled
from app.operations.restarts import Restart
from app.schemas.cluster import UpstreamReport
from app.schemas.common import StrictModel
from balancer.backends.upstream_config import MAX_CONCURRENT, MAX_KEY, MAX_URL, Upstream, upstream_at
from balancer.instances import MOST_INSTANCES
from balancer.policies import Strategy
from balancer.proxy.headers import is_sendable
from engines.errors import RequestError
from engines.models.catalog import MAX_RENAMED, MAX_WEIGHT, check_name


class ScaleRequest(StrictModel):
    action: Literal["scale_up", "scale_down"] = Field(description="Start or stop instances.")
    count: int = Field(1, ge=1, le=MOST_INSTANCES, description="How many instances come or go.")
    model: Annotated[str, Field(min_length=1, max_length=1024)] | None = Field(
        None, description="Default: the model that is loaded at the start."
    )
    kind: Literal["local", "process"] | None = Field(
        None, description="Of the new ones. Default: INSTANCE_KIND's."
    )

    @model_validator(mode="after")
    def _kind_of_new_ones(self) -> Self:
        if self.kind is not None and self.action == "scale_down":
            raise ValueError("kind is for scale_up: what goes is chosen by its state")
        return self

    @property
    def change(self) -> int:
        """Instances that come, or below 0 that go."""
        return self.count if self.action == "scale_up" else -self.count


class Scaled(BaseModel):
    message: str
    model: str
    total_instances: int = Field(description="Of the model, those on their way included.")
    instances: list[str] = Field(description="Their ids.")

    @classmethod
    def of(cls, rescaled: Rescaled) -> Scaled:
        model, total = rescaled.model, len(rescaled.instances)
        return cls(
            message=f"{model} has {total} instead of {rescaled.before} instances",
            model=model,
            total_instances=total,
            instances=list(rescaled.instances),
        )


class StrategyRequest(StrictModel):
    strategy: Annotated[Strategy, Field(strict=False)] = Field(
        description="How an instance is chosen for a request."
    )


class StrategySet(BaseModel):
    message: str
    load_balancer_strategy: Strategy


class RestartRequest(StrictModel):
    instance_id: str = Field(description="Such as `instance_0`; `all`: one after the other.")
    wait: bool = Field(True, description="false: answer 202 at once.")


class RestartedInstance(BaseModel):
    instance_id: str
    seconds: float = Field(description="From the last call that it was sent until it was ready again.")


class Restarted(BaseModel):
    message: str
    restarted: list[RestartedInstance]

    @classmethod
    def of(cls, restarts: Sequence[Restart]) -> Restarted:
        names = ", ".join(each.instance_id for each in restarts) or "nothing"
        restarted = [RestartedInstance(**asdict(each)) for each in restarts]
        return cls(message=f"restarted {names}", restarted=restarted)


class RestartAccepted(BaseModel):
    """The restart goes on; `status_url` says how the instances do."""

    message: str
    instances: list[str]
    status_url: str


def _is_sendable(key: str) -> str:
    if not is_sendable(key):
        raise ValueError("the key has characters that a header cannot have")
    return key


def _address(url: str) -> str:
    if any(character in url for character in "?#@"):
        raise ValueError("give only the address: the key and the options are fields of their own")
    return url


def _same_names(value: object) -> object:
    """A list of names is short for names that both sides use."""
    if isinstance(value, (list, dict)) and len(value) > MAX_NAMES:
        raise ValueError(f"at most {MAX_NAMES} names")
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return {name: name for name in value}
    return value


# Of the models of an upstream.
MAX_NAMES = 1024
Name = Annotated[str, AfterValidator(check_name)]


class NewUpstream(StrictModel):
    url: Annotated[str, Field(min_length=1, max_length=MAX_URL), AfterValidator(_address)] = Field(
        description="Base URL, such as `http://gpu1:8000/v1`."
    )
    name: Name | None = Field(None, description="Default: its host and port.")
    api_key: Annotated[str, Field(min_length=1, max_length=MAX_KEY), AfterValidator(_is_sendable)] | None = (
        Field(None, repr=False, description="Sent to it as a Bearer key; never shown again.")
    )
    weight: float = Field(
        1.0, gt=0, le=MAX_WEIGHT, description="Its share of the calls relative to other backends'."
    )
    models: Annotated[
        dict[Name, Name],
        Field(max_length=MAX_RENAMED),
        BeforeValidator(_same_names, json_schema_input_type=dict[str, str] | list[str]),
    ] = Field({}, description="Our names and its own, or a list of names. Default: all that it lists.")
    max_concurrent: int | None = Field(None, ge=1, le=MAX_CONCURRENT, description="The most calls at once.")

    def upstream(self) -> Upstream:
        """Raises `RequestError`."""
        try:
            return upstream_at(
                self.url,
                name=self.name,
                api_key=self.api_key,
                weight=self.weight,
                models=self.models,
                max_concurrent=self.max_concurrent,
            )
        except ValueError as error:
            raise RequestError(f"url: {error}", param="url") from None


class UpstreamAdded(BaseModel):
    message: str
    name: str
    upstream: UpstreamReport


class UpstreamRemoved(BaseModel):
    message: str
    name: str
    inflight: int = Field(description="Calls that still run there, and go on.")
