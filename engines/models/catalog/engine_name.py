"""The field type for the name of an engine: in the catalog, in settings and in requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from engines.registry import engine_names


class OneOfTheEngines:
    """Annotation of a text that must be "auto" or the name of an engine that is registered when it is read.

    What pydantic says of other values is what it would say of a ``Literal``.
    """

    @property
    def choices(self) -> tuple[str, ...]:
        return engine_names()

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Mapping[str, Any]:
        return {**handler(schema), "enum": list(self.choices)}

    def _known(self, value: object) -> object:
        if value not in self.choices:
            *others, last = map(repr, self.choices)
            raise PydanticKnownError("literal_error", {"expected": f"{', '.join(others)} or {last}"})
        return value


EngineName = Annotated[str, OneOfTheEngines()]
