"""The catalog: which models there are to be, and how each is loaded and served."""

from engines.models.catalog.catalog import load_catalog, parse_catalog
from engines.models.catalog.content import Catalog
from engines.models.catalog.durations import FOREVER, parse_duration
from engines.models.catalog.engine_name import EngineName
from engines.models.catalog.errors import CatalogError, Problem
from engines.models.catalog.schema import (
    MAX_RENAMED,
    MAX_WEIGHT,
    AdapterEntry,
    CatalogEntry,
    HubSource,
    ModelSettings,
    SamplingDefaults,
    UpstreamEntry,
    check_name,
)

__all__ = [
    "AdapterEntry",
    "Catalog",
    "CatalogEntry",
    "CatalogError",
    "EngineName",
    "FOREVER",
    "HubSource",
    "MAX_RENAMED",
    "MAX_WEIGHT",
    "ModelSettings",
    "Problem",
    "SamplingDefaults",
    "UpstreamEntry",
    "check_name",
    "load_catalog",
    "parse_catalog",
    "parse_duration",
]
