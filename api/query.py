"""What a query may leave out: there is no null in a query, and the OpenAPI document should not promise one."""

from typing import Any

from pydantic import GetJsonSchemaHandler


class _LeftOut:
    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Of the type itself, without None."""
        found = handler(schema)
        choices = [one for one in found["anyOf"] if one != {"type": "null"}]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}


# `Annotated[int | None, LEFT_OUT]`: an integer in the document, None where the query does not name it.
LEFT_OUT = _LeftOut()
