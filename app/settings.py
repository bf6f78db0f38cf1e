"""Configuration. The only module that reads the environment (and ``.env``).

Long because it is one list: what can be set is looked up in one place.
"""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.request import getproxies_environment

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from app.database.address import Address, read_address
from app.env_file import EnvFile, read_env_file
from app.hosts import is_loopback, parse_host, parse_origin
from app.media.addresses import parse_sources
from app.state_folder import default_state_folder
from app.variables import Variables, collect, expanded
from balancer.backends.upstream_config import parse_upstreams
from balancer.policies import Strategy
from balancer.proxy.guard import parse_allowed
from engines.machine.memory import parse_memory
from engines.models.catalog import EngineName, parse_duration

Auto = Literal["auto"]
CommaSeparated = Annotated[frozenset[str], NoDecode]

ENV_FILE = Path(".env")
# Names no file, so that pydantic's own source, which knows UTF-8 only, reads none.
_DEFAULT_FILE = "the .env of the working folder"


class _VariablesSource(PydanticBaseSettingsSource):
    """The settings that variables give. An empty variable gives none: the default counts."""

    def __init__(self, settings: type[BaseSettings], env_file: Path | None) -> None:
        super().__init__(settings)
        self._env_file = env_file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # `__call__` gives all of them

    def __call__(self) -> dict[str, Any]:
        found = read_variables(self._env_file, self.settings_cls).settings
        return {name: variable.value for name, variable in found.items() if variable.value}


class Settings(BaseSettings):
    """One field a variable, named as the variable but in lower case.

    `.env.example` and the README's table list the same names and defaults; a test compares the three.
    """

    # Keys are among the input.
    model_config = SettingsConfigDict(
        env_file=_DEFAULT_FILE, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    inference_engine: EngineName = Field(
        "auto",
        description="Which engine runs models. `auto` picks, for each model, the best one that this "
        "machine and the model's format allow.",
    )
    inference_mode: Literal["single", "multi_instance", "load_balance"] = Field(
        "single",
        description="`single`: one model is loaded; a request for another one switches. "
        "`multi_instance`: up to MAX_CONCURRENT_MODELS stay loaded. `load_balance`: the same, with "
        "CLUSTER_INSTANCES instances of each.",
    )
    max_concurrent_models: int = Field(
        1,
        ge=1,
        description="Models loaded at once in modes `multi_instance` and `load_balance`, as far as memory "
        "allows.",
    )
    cluster_instances: int = Field(
        3,
        ge=1,
        le=100,
        description="Instances of each model in mode `load_balance`; models.yaml can say otherwise for a "
        "model, in every mode.",
    )
    instance_kind: Literal["local", "process"] = Field(
        "local",
        description="`local`: instances are engines in the server's process, and llama.cpp's share their "
        "weights. `process`: each is a child process of its own, so that a crash takes no other with it.",
    )
    instance_port: int = Field(
        8001,
        ge=1,
        le=65535,
        description="Instances of kind `process` listen on this port of the loopback address and those "
        "after it.",
    )
    instance_devices: str = Field(
        "",
        description="GPUs for instances of kind `process`, one group an instance, taken in turn: `0;1` or "
        "`0,1;2,3`. Empty: every instance sees all.",
    )
    load_balance_strategy: Strategy = Field(
        Strategy.ROUND_ROBIN,
        description="How one of a model's instances is chosen for a request: `round_robin`, "
        "`least_connections`, `weighted`, `random`, `response_time` or `prefix_aware`.",
    )
    auto_scaling: bool = Field(
        True,
        description="In mode `load_balance`: start instances while requests wait, and stop those that "
        "nobody needs.",
    )
    min_instances: int = Field(
        1, ge=1, le=100, description="Instances of a model that AUTO_SCALING leaves running."
    )
    max_instances: int = Field(10, ge=1, le=100, description="Instances of a model that AUTO_SCALING starts.")
    scale_target: int = Field(
        16,
        ge=1,
        description="Requests for each instance, running and waiting, that AUTO_SCALING aims at.",
    )
    upstreams: str = Field(
        "",
        description="Comma-separated URLs of other OpenAI-compatible servers that requests may go to, with "
        "options after `#`: `http://gpu1:8000/v1#weight=2&key=...&model=ours:theirs`.",
    )
    allowed_upstreams: str = Field(
        "",
        description="Comma-separated hosts, addresses and networks at which alone upstreams may be: "
        "`gpu1,*.internal,10.0.0.0/8`. Empty: anywhere, but those that are added while the server runs not "
        "at link-local addresses or those of clouds' metadata services.",
    )
    media_urls: str = Field(
        "https",
        description="Where images and audio in requests may be fetched from, comma-separated: `https`, "
        "`http` (any public address), and hosts or networks that may be private: `*.internal,10.0.0.0/8`. "
        "`none`: nowhere.",
    )
    default_model: str = Field(
        "auto",
        description="The model loaded at the start: a name, or the path of a GGUF file or a model folder. "
        "`auto`: the first of models.yaml, then of the model folder, that can run here and chat, else the "
        "bundled small one.",
    )
    model_base_path: Path = Field(
        Path("models"), description="Where models are kept, and the catalog `models.yaml`."
    )
    state_dir: str = Field(
        "auto",
        description="The folder of what outlives a restart: uploaded files, batches, jobs. `auto`: "
        "`enginehouse` in `$XDG_STATE_HOME` or `~/.local/state`; on macOS and Windows in this user's folder "
        "for applications' data.",
    )
    database_url: str = Field(
        "",
        description="The database of it: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`. Empty: "
        "SQLite, in STATE_DIR.",
    )
    stored_responses: int = Field(
        100_000,
        ge=0,
        description="Responses of /v1/responses that are kept, in the database, for requests that follow "
        "them; 0: none.",
    )
    stored_responses_days: int = Field(
        30, ge=1, le=3650, description="Days after its last use that a stored response is kept."
    )
    stored_responses_bytes: int = Field(
        64 * 2**20, ge=2**20, description="Memory that stored responses may take."
    )
    keep_alive: str = Field(
        "-1",
        description="How long an unused model stays loaded: seconds or a duration such as `5m`; -1: until "
        "another needs its room; 0: unloaded after each reply. models.yaml and requests can say otherwise.",
    )
    max_memory: str = Field(
        "auto",
        description="Main memory that loaded models may take together: a share such as `0.8`, or a size such "
        "as `24GB`. `auto`: 0.8 of the machine's.",
    )
    max_gpu_memory: float = Field(
        0.8, gt=0, le=1, description="Share of the GPUs' memory that loaded models may take."
    )
    host: str = Field("0.0.0.0", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=1, description="Must be 1: the engine pool lives in one process.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="`json`: one object a line. `text`: for people. `auto`: `text` where standard error is a "
        "terminal, else `json`.",
    )
    device_type: Literal["auto", "cuda", "mps", "cpu"] = Field(
        "auto", description="Where the model runs. `auto`: a GPU if the engine can use one."
    )
    max_cpu_threads: int | Auto = Field(
        "auto",
        description="Threads for computing. `auto` measures a few counts while loading "
        "and keeps the fastest.",
    )
    context_length: int | Auto = Field(
        "auto",
        description="Longest prompt plus completion, in tokens. `auto`: what the model was trained for, "
        "at most 8192.",
    )
    kv_cache_tokens: int | Auto = Field(
        "auto",
        description="Tokens the KV cache holds, over all sequences. `auto`: a full context for each if "
        "that is cheap (a sixteenth of the free memory), else a pool of two.",
    )
    max_sequences: int = Field(32, ge=1, le=128, description="Sequences that decode at once.")
    max_concurrent_requests: int = Field(50, ge=1, description="Requests served at once; more wait.")
    max_queued_requests: int = Field(
        200, ge=0, description="Requests that may wait; more get 429 queue_full."
    )
    queue_timeout: float = Field(
        120.0, gt=0, description="Seconds a request may wait before it gets 429 queue_full."
    )
    load_timeout: float = Field(
        60.0,
        ge=0,
        description="Seconds a request waits for a model once that is being loaded, "
        "before it gets 503 model_loading.",
    )
    max_request_bytes: int = Field(
        10 * 2**20, ge=1024, description="Largest request body; a larger one gets 413."
    )
    max_file_bytes: int = Field(
        512 * 2**20, ge=1024, description="Largest file that may be uploaded; a larger one gets 413."
    )
    max_stored_bytes: int = Field(
        20 * 2**30, ge=1024, description="Bytes that the files of each key, or of all without keys, may take."
    )
    file_retention: str = Field(
        "720h",
        description="How long files for batches and from batches are kept that do not say it themselves; "
        "-1: until they are deleted.",
    )
    batch_concurrency: int = Field(
        16, ge=1, le=1024, description="Requests of batches that run at once while nobody else asks."
    )
    batch_concurrency_busy: int = Field(
        0,
        ge=0,
        le=1024,
        description="As many run beside other requests, which they slow down: on a GPU with room to spare, "
        "some do no harm. 0: one begins each minute, all go on once the others have ended (docs/batches.md).",
    )
    strict_requests: bool = Field(
        False,
        description="Refuse with 400 what is made to fit otherwise: fields that this server does not know, "
        "which are ignored, and a `max_tokens` beyond the context, which is cut.",
    )
    receive_timeout: float = Field(
        30.0,
        gt=0,
        description="Seconds a client may take to send a request's headers, or 16 KiB of its body, before it "
        "gets 408 request_timeout.",
    )
    send_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds a client may take to read 16 KiB of an answer that waits for it, before it is "
        "cut.",
    )
    http_keep_alive: float = Field(
        75.0,
        gt=0,
        description="Seconds a connection stays open between two requests of a client. Longer than the idle "
        "time-out of a proxy in front, which otherwise sends requests on connections that just closed.",
    )
    enable_caching: bool = Field(
        True, description="Keep finished prompts in the KV cache and reuse equal prefixes."
    )
    deterministic: bool = Field(
        True,
        description="llama.cpp: a greedy or seeded request that runs alone gets the same answer each time, "
        "for which up to 64 cached tokens of its prompt are computed again (docs/repeatability.md). false: "
        "as much as can be is taken from the cache.",
    )
    ngram_draft: int = Field(
        0,
        ge=0,
        le=64,
        description="llama.cpp: most tokens that a step guesses ahead where an answer repeats its prompt or "
        "itself, for a request that runs alone; what is drawn stays the same (docs/drafting.md). 0: none.",
    )
    allow_special_tokens: bool = Field(
        False,
        description="Control tokens written in a chat's messages, such as the end of a turn, count as the "
        "chat template's own, so that whoever writes a message can end it and begin another. Prompts of "
        "/v1/completions may always hold them.",
    )
    health_check_interval: float = Field(
        30.0,
        gt=0,
        description="Seconds between looks at an upstream's or a child process's health; at one that just "
        "failed, every second.",
    )
    first_byte_timeout: float = Field(
        300.0, gt=0, description="Seconds an upstream or a child process may take to begin its answer."
    )
    stall_timeout: float = Field(
        60.0,
        gt=0,
        description="Seconds an answer that has begun may stand still before its backend counts as hung.",
    )
    shutdown_grace: float = Field(
        30.0,
        ge=0,
        description="Seconds in-flight requests get to end when the server stops. It is gone 5 s later, "
        "whatever hangs.",
    )
    api_keys: CommaSeparated = Field(
        frozenset(), description="Comma-separated Bearer keys. Empty: the API is open."
    )
    admin_api_keys: CommaSeparated = Field(
        frozenset(),
        description="Comma-separated Bearer keys that may also load, unload and pull models. Empty: every "
        "client with one of API_KEYS may; without those either, see OPEN_ADMIN.",
    )
    open_admin: bool = Field(
        False,
        description="Without any keys and with HOST beyond this machine: whether everyone who reaches the "
        "server may manage it. If not, only programs on this machine may, through no proxy.",
    )
    user_keep_alive: bool = Field(
        False,
        description="With ADMIN_API_KEYS: whether `keep_alive` in requests of other clients counts. If not, "
        "it is ignored, and a header of the answer says so.",
    )
    user_priority: int = Field(
        0,
        description="With ADMIN_API_KEYS: the lowest `priority` that other clients may give their requests.",
    )
    rate_limit_rpm: int = Field(
        0,
        ge=0,
        description="Requests a minute for each key, or address without keys; as many again that only read. "
        "0: no limit.",
    )
    rate_limit_wrong_keys: int = Field(
        30, ge=0, description="Wrong keys a minute from an address, before it gets 429. 0: no limit."
    )
    trusted_proxies: CommaSeparated = Field(
        frozenset(),
        description="Comma-separated addresses and networks of the proxies in front of this server, whose "
        "X-Forwarded-For and X-Forwarded-Proto are believed: `10.0.0.2,fd00::/8`. Empty: nobody's.",
    )
    allowed_hosts: CommaSeparated = Field(
        frozenset(),
        description="Comma-separated names that clients may address this server by, such as `*.example.com`, "
        "beside this machine's own (`localhost`, 127.0.0.0/8, ::1). Empty: no other if HOST is one of "
        "those, else any.",
    )
    ollama_api: bool = Field(False, description="Serve Ollama's API too, under /api (docs/ollama.md).")
    cors_origins: CommaSeparated = Field(
        frozenset(),
        description="Comma-separated origins of web pages that may use this server, such as "
        "`https://chat.example.com`; `*`: any. Pages from this server always may.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        has_file = dotenv_settings.env_file == _DEFAULT_FILE  # not where `_env_file=None` says so
        return init_settings, _VariablesSource(settings_cls, ENV_FILE if has_file else None)

    @field_validator(
        "inference_mode", "instance_kind", "load_balance_strategy", "device_type", "log_format", mode="before"
    )
    @classmethod
    def _in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _in_upper_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _former_name(cls, value: object) -> object:
        return "text" if value == "console" else value

    @field_validator("model_base_path", "default_model", "state_dir", mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return expanded(value) if isinstance(value, str) else value

    @field_validator("model_base_path")
    @classmethod
    def _folder(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError("is a file, and must be a folder")
        return value

    @field_validator(
        "api_keys", "admin_api_keys", "trusted_proxies", "allowed_hosts", "cors_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: frozenset[str]) -> frozenset[str]:
        return frozenset(str(ip_network(each, strict=False)) for each in value)

    @field_validator("allowed_hosts", "cors_origins")
    @classmethod
    def _names(cls, value: frozenset[str], info: ValidationInfo) -> frozenset[str]:
        parse = parse_host if info.field_name == "allowed_hosts" else parse_origin
        return frozenset(parse(each) for each in value)

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        read_address(value, Path())
        return value

    @field_validator("upstreams")
    @classmethod
    def _upstreams(cls, value: str) -> str:
        parse_upstreams(value)
        return value

    @field_validator("allowed_upstreams")
    @classmethod
    def _allowed(cls, value: str) -> str:
        parse_allowed(value)
        return value

    @field_validator("media_urls")
    @classmethod
    def _sources(cls, value: str) -> str:
        parse_sources(value)
        return value

    @field_validator("keep_alive", "file_retention")
    @classmethod
    def _duration(cls, value: str) -> str:
        parse_duration(value)
        return value

    @field_validator("max_memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        if value != "auto":
            parse_memory(value, 2**40)
        return value

    @field_validator("max_cpu_threads", "context_length", "kv_cache_tokens")
    @classmethod
    def _positive(cls, value: int | Auto) -> int | Auto:
        if value != "auto" and value < 1:
            raise ValueError('must be "auto" or at least 1')
        return value

    @property
    def state_folder(self) -> Path:
        """What STATE_DIR says."""
        return default_state_folder(os.environ) if self.state_dir == "auto" else Path(self.state_dir)

    @property
    def database(self) -> Address:
        """What DATABASE_URL says."""
        return read_address(self.database_url, self.state_folder)

    @property
    def manages_locally(self) -> bool:
        """Whether others can reach this server, and only from this machine it is to be managed."""
        has_keys = bool(self.api_keys or self.admin_api_keys)
        is_reached = not is_loopback(self.host) or bool(self.trusted_proxies)
        return is_reached and not has_keys and not self.open_admin

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError("MIN_INSTANCES must not exceed MAX_INSTANCES")
        return self


def read_variables(env_file: Path | None = ENV_FILE, settings: type[BaseSettings] = Settings) -> Variables:
    """What the environment and ``env_file`` say of ``settings``. Raises `EnvFileError`."""
    file = EnvFile() if env_file is None else read_env_file(env_file)
    return collect(settings.model_fields, os.environ, file)


def adopt_hub_variables(variables: Variables) -> None:
    """Let the hubs' variables in ``.env`` count as if they were in the environment, where they are not.

    Their libraries read them there, once: to be called before those are imported.
    """
    for name, value in variables.hubs.items():
        os.environ.setdefault(name, value)


def forward_proxies() -> dict[str, str]:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, as `balancer.proxy.route.Routes` takes it."""
    return getproxies_environment()
