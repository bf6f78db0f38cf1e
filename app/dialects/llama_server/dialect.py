"""Dialect of llama-server's ``POST /infill``."""

from __future__ import annotations

from typing import Any

from app.dialects.llama_server.schema import InfillRequest
from app.dialects.llama_server.write import WIRE, InfillWriter
from app.dialects.openai.dialect import OpenAI
from app.dialects.openai.sampling import check_min_tokens, with_defaults
from app.inference import pipeline
from app.inference.dialect import AnswerContext, AnswerWriter, Execution, Resolve
from app.inference.task import Task
from app.schemas.unknown_fields import read_body
from balancer.call import Reply
from engines.base import SourceFile


class Infill(OpenAI):
    """``POST /infill``: its errors are OpenAI's."""

    wire = WIRE
    has_default_model = True

    def parse(self, document: Any, resolve: Resolve) -> Task:
        body, unknown = read_body(InfillRequest, document)
        resolved = resolve(body.model)
        resolved.check_purpose("text")
        body, defaults = with_defaults(body, resolved.sampling)
        check_min_tokens(body, body.max_tokens)
        body.check_lists(1)
        adapters = {} if resolved.target.adapter is None else {"adapters": "model"}
        return Task(
            target=resolved.target,
            prompts=(body.input_prefix + body.prompt,),
            suffix=body.input_suffix,
            files=tuple(SourceFile(each.filename, each.text) for each in body.input_extra),
            sampling=body.sampling(),
            max_tokens=body.max_tokens,
            min_tokens=body.min_tokens,
            stop=body.stops,
            stop_token_ids=tuple(body.stop_token_ids or ()),
            ignore_eos=body.ignore_eos,
            needs={"fim": "input_suffix", **adapters, **body.needs()},
            stream=body.stream,
            priority=body.priority,
            keep_alive=body.keep_alive,
            defaults=defaults,
            unknown=unknown,
        )

    async def run(self, task: Task, execution: Execution) -> Reply:
        return await pipeline.generate(task, self, execution)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return InfillWriter(task, context)


INFILL = Infill()
