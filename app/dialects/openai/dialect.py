"""OpenAI's dialects: chat completions, text completions and embeddings; and reranking, in their manner."""

from __future__ import annotations

from typing import Any

from app.dialects.openai.chat import parse as chat
from app.dialects.openai.chat.write import ChatWriter
from app.dialects.openai.completions import parse as completions
from app.dialects.openai.completions.write import CompletionWriter
from app.dialects.openai.embeddings import parse as embeddings
from app.dialects.openai.embeddings.write import pieces as embedding_pieces
from app.dialects.openai.rerank import parse as rerank
from app.dialects.openai.rerank.write import cohere_pieces, score_pieces, tei_pieces
from app.dialects.openai.wire import WIRE
from app.errors import error_body, to_api_error
from app.inference import embedding, pipeline, ranking
from app.inference.dialect import AnswerContext, AnswerWriter, Execution, Resolve
from app.inference.embedding import EmbeddingTask
from app.inference.ranking import RankingTask
from app.inference.task import Task
from app.sse import sse
from balancer.call import Reply, WireFormat


class OpenAI:
    """Base of all: the wire format, and errors in OpenAI's envelope."""

    wire: WireFormat = WIRE
    has_default_model = False

    def error_event(self, error: Exception, sent: bytes) -> bytes:
        """No ``[DONE]`` follows."""
        return sse(error_body(to_api_error(error)))


class ChatCompletions(OpenAI):
    """``POST /v1/chat/completions``."""

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return chat.parse(document, resolve)

    async def run(self, task: Task, execution: Execution) -> Reply:
        return await pipeline.generate(task, self, execution)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return ChatWriter(task, context)


class EmbeddingsOfInputs(OpenAI):
    """``POST /v1/embeddings``."""

    def parse(self, document: Any, resolve: Resolve) -> EmbeddingTask:
        return embeddings.parse(document, resolve)

    async def run(self, task: EmbeddingTask, execution: Execution) -> Reply:
        return await embedding.run(task, embedding_pieces, execution)


class TextCompletions(OpenAI):
    """``POST /v1/completions``."""

    def parse(self, document: Any, resolve: Resolve) -> Task:
        return completions.parse(document, resolve)

    async def run(self, task: Task, execution: Execution) -> Reply:
        return await pipeline.generate(task, self, execution)

    def writer(self, task: Task, context: AnswerContext) -> AnswerWriter:
        return CompletionWriter(task, context)


class Reranking(OpenAI):
    """``POST /v1/rerank``: Cohere's and Jina's shape, or that of text-embeddings-inference."""

    def parse(self, document: Any, resolve: Resolve) -> RankingTask:
        return rerank.parse(document, resolve)

    async def run(self, task: RankingTask, execution: Execution) -> Reply:
        return await ranking.run(task, tei_pieces if task.field == "texts" else cohere_pieces, execution)


class PairScores(OpenAI):
    """``POST /v1/score``, vLLM's."""

    def parse(self, document: Any, resolve: Resolve) -> RankingTask:
        return rerank.parse_scores(document, resolve)

    async def run(self, task: RankingTask, execution: Execution) -> Reply:
        return await ranking.run(task, score_pieces, execution)


CHAT = ChatCompletions()
COMPLETIONS = TextCompletions()
EMBEDDINGS = EmbeddingsOfInputs()
RERANK = Reranking()
SCORES = PairScores()
