"""API key 100 as kafka-python messages: their schema compiler encodes and decodes them."""

import logging

from kafka.protocol.api_message import ApiMessage

API_KEY = 100


class VectorSearchRequest(ApiMessage, load_json="senselog_client.schemas"):  # type: ignore[misc, call-arg]
    """The search itself; `senselog_client.request` fills it in."""


class VectorSearchResponse(ApiMessage, load_json="senselog_client.schemas"):  # type: ignore[misc, call-arg]
    """Its answer; `senselog_client.result` makes it pleasant to read."""


logging.getLogger("kafka").addHandler(logging.NullHandler())
