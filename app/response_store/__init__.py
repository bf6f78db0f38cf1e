"""Stored responses: what `previous_response_id` and GET /v1/responses/{id} find again."""
