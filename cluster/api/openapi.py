"""The OpenAPI document of the server API, made of the table of methods.

Source: OpenAPI 3.1, whose schemas are those of JSON Schema 2020-12.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from cluster import __version__
from cluster.api.method_table import (
    API_TABLE,
    ERROR,
    LARGEST_INTEGER,
    ApiMethod,
    Param,
    Schema,
)

_POSITION: Final[Schema] = {
    "type": "object",
    "properties": {
        "offset": {"type": "integer", "minimum": 0, "maximum": LARGEST_INTEGER},
        "epoch": {"type": "string"},
    },
}


def param_schema(param: Param) -> Schema:
    """The schema of one member of a request."""
    string: Schema = {"type": "string"}
    if not param.may_be_empty:
        string["minLength"] = 1
    schemas: dict[str, Schema] = {
        "string": string,
        "boolean": {"type": "boolean"},
        "integer": {"type": "integer", "minimum": param.least, "maximum": LARGEST_INTEGER},
        "strings": {"type": "array", "items": {"type": "string", "minLength": 1}},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
        "position": _POSITION,
        "object": {"type": "object"},
        "json": {},
    }
    return {**schemas[param.kind], "description": param.text}


@cache
def document() -> dict[str, Any]:
    """The whole document; do not change it."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "ws-cluster server API", "version": __version__},
        "security": [{"key": []}, {"authorization": []}],
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "authorization": {"type": "apiKey", "in": "header", "name": "Authorization"},
            },
            "schemas": {"Error": ERROR},
        },
        "paths": {f"/api/{name}": _path(name, method) for name, method in API_TABLE.items()},
    }


def _path(name: str, method: ApiMethod) -> dict[str, Any]:
    body: Schema = {
        "type": "object",
        "properties": {param.name: param_schema(param) for param in method.params},
    }
    required = [param.name for param in method.params if param.is_required]
    if required:
        body["required"] = required
    responses = _responses(name, method)
    content = {"application/json": {"schema": body}}
    path: dict[str, Any] = {
        "post": {
            "operationId": name,
            "summary": method.text,
            "requestBody": {"required": True, "content": content},
            "responses": responses,
        }
    }
    if method.is_readable:
        path["get"] = {
            "operationId": f"get_{name}",
            "summary": method.text,
            "parameters": [
                {
                    "name": param.name,
                    "in": "query",
                    "required": param.is_required,
                    "schema": param_schema(param),
                }
                for param in method.params
            ],
            "responses": responses,
        }
    return path


def _responses(name: str, method: ApiMethod) -> dict[str, Any]:
    error: Schema = {"$ref": "#/components/schemas/Error"}
    answer: Schema = method.result
    if name != "batch":
        answer = {"type": "object", "properties": {"result": method.result}, "required": ["result"]}
    refused = {"type": "object", "properties": {"error": error}, "required": ["error"]}
    statuses = {
        "400": "the body is no JSON object, or an error 107 or 108 as a status",
        "401": "no key, or a wrong one",
        "403": "the key may not do this",
        "404": "an error 102 or 104 as a status",
        "409": "an error 113 as a status",
        "413": "the body is too large",
        "416": "an error 112 as a status",
        "500": "an error 100 as a status",
        "503": "this worker is shutting down",
    }
    return {
        "200": {
            "description": "the result, or an error",
            "content": {"application/json": {"schema": {"anyOf": [answer, refused]}}},
        },
        **{status: {"description": text} for status, text in statuses.items()},
    }
