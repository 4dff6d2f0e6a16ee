"""Where a Schema Registry is, as formats of messages state it: never with a password."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from feature_store.errors import DefinitionError

# The prefix of the name of an environment variable that has the URL.
VARIABLE = "env:"
_VARIABLE_NAME = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
_URL = re.compile(r"https?://[^\s/@?#]+(/[^\s@?#]*)?")


def _check_registry(given: Any) -> Any:
    if given is None or (isinstance(given, str) and (_VARIABLE_NAME.fullmatch(given) or _URL.fullmatch(given))):
        return given
    # The text is not shown, since it may hold a password.
    raise DefinitionError(
        "registry",
        problem="it is neither env:NAME nor a URL without a user and a password",
        hint='pass "env:SCHEMA_REGISTRY_URL", and set that variable to the URL in every process that reads the topic',
    )


# An attribute with the place of a Schema Registry: `env:NAME`, or a URL without a user. None: there is none.
RegistryText = Annotated[str | None, BeforeValidator(_check_registry)]
