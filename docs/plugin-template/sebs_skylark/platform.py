"""The stages: `sebs_core.hookspecs` says of each what it must do. An object of this class is one session in one region."""

import base64
import time
from pathlib import Path
from typing import Any

import httpx
import sebs_core as sebs
from sebs_skylark.models import SkylarkFunction, SkylarkSettings

ERRORS = {"timed-out": "timeout", "exited": "crash", "failed": "function_error", "busy": "throttled", "too-large": "too_large"}
Env = dict[str, str]


class SkylarkPlatform:
    def __init__(self, settings: SkylarkSettings, context: sebs.Context) -> None:
        self._context, url = context, f"{settings.endpoint}/v1/{settings.region}"
        headers = {"authorization": f"Bearer {settings.token.get_secret_value()}", "connection": "close"}
        self._api = httpx.Client(base_url=url, headers=headers, timeout=settings.request_timeout_s)  # keeps nothing open

    @sebs.hookimpl
    def sebs_account(self) -> str:
        return "{account}/{region}".format(**self._ask("GET", "account"))

    @sebs.hookimpl
    def sebs_runtime(self) -> sebs.Runtime:
        return sebs.Runtime(files={"handler.py": Path(__file__).parent / "handlers/python/handler.py"}, wheel_platform="linux")

    @sebs.hookimpl
    def sebs_refresh(self, function: SkylarkFunction) -> SkylarkFunction:
        """The function as the provider has it, once no change is under way: so core sees what somebody else changed."""
        path, deadline = f"functions/{function.name}", time.monotonic() + 60
        while (there := self._ask("GET", path, accept=404)).get("state") == "pending" and time.monotonic() < deadline:
            time.sleep(0.1)
        if there.get("state") != "active":
            raise sebs.FunctionGoneError(f"{function.name} cannot be used: {there.get('reason', 'it was removed')}")
        config = function.config.model_copy(update={key: there[key] for key in ("memory_mb", "timeout_s", "environment")})
        found = {"package_digest": there["label"], "generation": there["generation"], "url": there["url"]}
        return function.model_copy(update={"config": config, **found})

    @sebs.hookimpl
    def sebs_deploy(
        self, package: sebs.Package, config: sebs.FunctionConfig, previous: sebs.Function | None, environment: Env, secrets: Env
    ) -> SkylarkFunction:
        try:
            code = base64.b64encode(package.path.read_bytes()).decode()
        except OSError as error:
            raise sebs.DeployError(f"the package {package.path} cannot be read: {error}. Make it again (--rebuild).") from error
        name, tags = config.function_name, {"resources_id": self._context.resources_id}
        role = "sebs-{resources_id}-role".format(**tags)
        with self._context.resource("role", role):
            self._ask("POST", "roles", accept=409, json={"name": role, "tags": tags})  # 409: it is there
        wanted = config.model_dump(include={"language_version", "memory_mb", "timeout_s"}) | {"environment": environment}
        wanted |= {"secrets": secrets, "role": role, "entry_point": package.entry_point, "code": code, "label": package.digest}
        if previous is not None or not self._ask("POST", "functions", accept=409, json={"name": name, "tags": tags, **wanted}):
            self._ask("PATCH", f"functions/{name}", json=wanted, params=tags)  # refused unless it is tagged so: it is ours
        made = {"name": name, "platform": "skylark", "benchmark": package.benchmark, "package_digest": package.digest}
        kinds = {"provider_time_kind": "sandbox", "limits_enforced": {"timeout": True, "memory": False}}
        return self.sebs_refresh(SkylarkFunction.model_validate({**made, **kinds, "config": config}))

    @sebs.hookimpl
    def sebs_create_trigger(self, function: SkylarkFunction, kind: str, asynchronous: bool) -> sebs.Trigger:
        return sebs.Trigger(kind=kind, url=f"{function.url}?async" if asynchronous else function.url, asynchronous=asynchronous)

    @sebs.hookimpl
    def sebs_response(self, response: sebs.Response) -> sebs.Fields:
        request, failure = response.headers.get("x-request-id"), response.headers.get("x-skylark-error")
        if failure is None:
            return sebs.Fields(request) if response.status == 202 else sebs.fields_from_envelope(response.body)
        return sebs.Fields(request, error=ERRORS.get(failure, "refused"), error_detail=response.body.decode(errors="replace"))

    @sebs.hookimpl
    def sebs_enforce_cold_start(self, functions: list[SkylarkFunction]) -> list[SkylarkFunction]:
        for function in functions:
            self._ask("PATCH", f"functions/{function.name}", json={"generation": str(time.time_ns())})
        return [self.sebs_refresh(function) for function in functions]

    @sebs.hookimpl
    def sebs_collect_metrics(self, function: sebs.Function, requests: list[str]) -> sebs.Metrics:
        told = self._ask("POST", f"functions/{function.name}/metrics", sebs.MetricsError, json={"requests": requests})
        missing = tuple(request for request in requests if request not in told)  # they arrive late
        return sebs.Metrics(values=told, missing=missing, sources={"duration_us": "measured", "init_us": "measured"})

    @sebs.hookimpl
    def sebs_logs(self, function: sebs.Function, request_id: str) -> str:
        return str(self._ask("GET", f"functions/{function.name}/logs", sebs.MetricsError, params={"id": request_id})["text"])

    @sebs.hookimpl
    def sebs_resources(self) -> list[sebs.Resource]:
        found, cursor = list[Any](), ""
        while cursor is not None:
            page = self._ask("GET", "resources", params={"tag": "resources_id", "cursor": cursor})
            found, cursor = found + page["items"], page["next"]
        return [sebs.Resource(platform="skylark", resources_id=one["value"], depends_on=one["uses"], **one) for one in found]

    @sebs.hookimpl
    def sebs_remove(self, resource: sebs.Resource) -> bool:
        return bool(self._ask("DELETE", f"{resource.kind}s/{resource.name}", accept=404))

    def _ask(self, method: str, path: str, error: type[sebs.SebsError] = sebs.DeployError, accept: int = 0, **more: Any) -> Any:
        """The answer; {} to a refusal with the status `accept`. Each call can be made twice: it is, where that may help."""
        for wait_s in (0.1, 0.5, 2, None):  # until the next try
            try:
                response = self._api.request(method, path, **more)
                return {} if response.status_code == accept else response.raise_for_status().json()
            except (httpx.HTTPError, ValueError) as cause:
                refusal = cause.response if isinstance(cause, httpx.HTTPStatusError) else httpx.Response(503, text=repr(cause))
                kind = sebs.CredentialsError if refusal.status_code in (401, 403) else error
                if wait_s is None or (refusal.status_code < 500 and refusal.status_code != 429):
                    raise kind(f"skylark: {method} {path}: {refusal.text}. Mend this, or try again later.") from cause
                asked = refusal.headers.get("retry-after", "")
                time.sleep(min(int(asked), 10) if asked.isdigit() else wait_s)
