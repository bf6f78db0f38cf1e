"""The hubs: each lists a repository's files and says where they are. Errors are translated here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from engines.machine.job_process import JobFailed

LISTING_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. ``sha256`` is of its content; ``git_sha1`` is the id that git gives it."""

    path: str
    size: int
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    sha256: str | None = None
    git_sha1: str | None = None


# Variables with what it may take to reach a hub: tokens, and proxies, whose URLs may hold passwords.
CREDENTIALS = frozenset(
    {"HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"}
    | {"MODELSCOPE_API_TOKEN", "MODELSCOPE_ENDPOINT"}
    | {f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO")}
    | {f"{kind}_proxy" for kind in ("http", "https", "all", "no")}
)


class Source(Protocol):
    """A hub. ``access_hint`` says what to do where it refuses access."""

    access_hint: str

    def list_files(self, repo: str, revision: str | None) -> list[RemoteFile]:
        """Raises `JobFailed`."""
        ...


def source_named(name: str) -> Source:
    return ModelScopeSource() if name == "modelscope" else HuggingFaceSource()


class HuggingFaceSource:
    """Hugging Face, or what HF_ENDPOINT names; with the token in HF_TOKEN, if it is set."""

    access_hint = "set HF_TOKEN to a token that may read it"

    def list_files(self, repo: str, revision: str | None) -> list[RemoteFile]:
        from huggingface_hub import HfApi, get_token, hf_hub_url

        api = HfApi()
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=LISTING_TIMEOUT)
        except Exception as error:
            raise self._explain(error, repo, revision, api.endpoint) from error
        token = get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # The commit, not the branch: what is resumed later must be of the same version.
        commit = info.sha or revision
        return [
            RemoteFile(
                path=file.rfilename,
                size=_size(file.size, file.rfilename),
                url=hf_hub_url(repo, file.rfilename, revision=commit),
                headers=headers,
                sha256=file.lfs.sha256 if file.lfs else None,
                git_sha1=None if file.lfs else file.blob_id,
            )
            for file in info.siblings or ()
        ]

    def _explain(self, error: Exception, repo: str, revision: str | None, endpoint: str) -> Exception:
        from huggingface_hub import errors

        if isinstance(error, errors.HFValidationError):
            return JobFailed(f"{repo!r} is no repository's name: it has the form owner/name")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return JobFailed("HF_HUB_OFFLINE forbids downloads: unset it")
        if isinstance(error, errors.RevisionNotFoundError):
            return JobFailed(f"{repo} has no revision {revision!r}")
        if isinstance(error, errors.GatedRepoError):
            return JobFailed(
                f"access to {repo} is restricted: accept its licence at {endpoint}/{repo} and set HF_TOKEN "
                "to a token of the account that did"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return JobFailed(
                f"{endpoint} has no model {repo}, or it is private: check the name, or {self.access_hint}"
            )
        return http_failure(error, endpoint, self.access_hint) or error


class ModelScopeSource:
    """ModelScope, or what MODELSCOPE_ENDPOINT names; with the token in MODELSCOPE_API_TOKEN, if it is set."""

    access_hint = "set MODELSCOPE_API_TOKEN to a token that may read it"

    def list_files(self, repo: str, revision: str | None) -> list[RemoteFile]:
        try:
            from modelscope_hub import HubApi
        except ImportError as error:
            raise JobFailed(
                f"ModelScope's package cannot be imported ({error}): `pip install modelscope` installs it"
            ) from error
        api = HubApi()
        wanted = revision or "master"
        try:
            api = HubApi(endpoint=api.resolve_endpoint_for_read(repo))
            files = api.list_repo_files(repo, "model", revision=wanted)
        except Exception as error:
            raise self._explain(error, repo, wanted) from error
        hub = api.legacy  # its name for the API that serves files
        headers = {"Authorization": f"Bearer {hub.token}", "Cookie": f"m_session_id={hub.token}"}
        return [
            RemoteFile(
                path=file.path,
                size=_size(file.size, file.path),
                url=hub.get_download_url(repo, "model", file.path, wanted),
                headers=headers if hub.token else {},
                sha256=file.sha256 or None,
            )
            for file in files
            if file.type != "tree"
        ]

    def _explain(self, error: Exception, repo: str, revision: str) -> Exception:
        from modelscope_hub import errors

        if isinstance(error, (errors.NotFoundError, errors.NotExistError)):
            return JobFailed(
                f"ModelScope has no model {repo} with revision {revision!r}, or it is private: "
                f"check the names, or {self.access_hint}"
            )
        if isinstance(error, (errors.AuthenticationError, errors.PermissionDeniedError)):
            return JobFailed(f"ModelScope refuses access to {repo} ({error}): {self.access_hint}")
        if isinstance(error, errors.HubError):
            return JobFailed(f"ModelScope: {error}", retryable=error.retryable)
        return error


def http_failure(error: Exception, where: str, access_hint: str) -> JobFailed | None:
    """What an error of the HTTP client means; None if it is not one."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return status_failure(error.response.status_code, where, access_hint)
    # The base of all that huggingface_hub's HTTP client raises; its versions use different clients.
    if isinstance(error, HfHubHTTPError.__bases__[0]):
        return JobFailed(f"{where} cannot be reached ({error!r}): check the network", retryable=True)
    return None


def status_failure(status: int, where: str, access_hint: str) -> JobFailed:
    """What the HTTP status of a refusal means."""
    if status in (401, 403):
        return JobFailed(f"{where} refuses access ({status}): {access_hint}")
    if status in (408, 429) or status >= 500:
        return JobFailed(f"{where} answers with status {status}: try again later", retryable=True)
    return JobFailed(f"{where} answers with status {status}")


def _size(size: Any, path: str) -> int:
    if not isinstance(size, int) or size < 0:
        raise JobFailed(f"the hub does not say how large {path} is")
    return size
