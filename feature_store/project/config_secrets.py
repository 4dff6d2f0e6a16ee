"""Which values of feature_store.yaml are secret: hidden in errors, and in what is shown of the configuration."""

from __future__ import annotations

import os
import re
from typing import Any

from feature_store._redaction import HIDDEN, hide, hide_password, hide_url, without_secrets
from feature_store.project.config_variables import SCHEME, VARIABLE

_SECRET_NAME = re.compile(
    r"(?i)pass|pwd|secret|token|credential|jaas|private|pem$|auth$|signature|[._]sas|[._-]key$|account[._-]?key|oauth"
)
# Settings of Spark and Kafka that hold sizes, durations, counts or places. The text of all others is hidden: passwords
# have many names (`spark.hadoop.fs.azure.sas…`, `-Dpassword=…` among Java's options).
_HARMLESS_SETTING = re.compile(
    r"bootstrap\.servers|group\.id|client\.id|security\.protocol|sasl\.mechanisms?|auto\.offset\.reset|acks|debug"
    r"|compression\.(type|codec)|isolation\.level|partition\.assignment\.strategy"
    r"|spark\.(master|app\.name|submit\.deployMode|serializer|ui\.port|jars\.packages)"
    r"|spark\.(executor|driver)\.(memory|memoryOverhead|cores|instances|host|bindAddress)"
    r"|spark\.sql\.(shuffle\.partitions|session\.timeZone)|kafka\.group\.id"
)
_QUANTITY = re.compile(r"(?i)\d{1,12}(\.\d{1,6})?\s?([kmgt]i?b?|b|ms|us|s|min|h|d)?|true|false")

# The sections in which a value from the environment may be secret. The names of project and engine are not.
_MAY_BE_SECRET = ("registry", "online_store", "spark", "kafka", "streaming", "connections")


def hide_secrets(value: Any, written: Any, path: tuple[str, ...] = ()) -> None:
    """Hide in all errors the values of environment variables and the passwords of the file.

    Args:
        value: with its variables filled in.
        written: the same as the file has it.
        path: the keys that lead to it.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            hide_secrets(item, written[key], (*path, str(key)))
        return
    if not isinstance(value, str) or not path or path[0] not in _MAY_BE_SECRET:
        return
    variables = list(VARIABLE.finditer(written))
    for variable in variables:
        if content := os.environ.get(variable[1] or ""):
            (hide_url if SCHEME.match(content) else hide)(content, f"${{{variable[1]}}}")
    if not variables and _SECRET_NAME.search(path[-1]):
        hide(value)
    if SCHEME.match(value) and "@" in value:
        hide_password(value)


def shown(value: Any, written: Any, path: tuple[str, ...]) -> Any:
    """A value, or the values of a mapping, without secrets.

    Args:
        value: with its variables filled in.
        written: the same as the file has it.
        path: the keys that lead to it.
    """
    if isinstance(value, dict):
        within = written if isinstance(written, dict) else {}
        return {key: shown(item, within.get(key), (*path, str(key))) for key, item in value.items()}
    if isinstance(written, str) and VARIABLE.search(written):
        written = VARIABLE.sub(lambda variable: f"${{{variable[1]}}}", written)
        return HIDDEN if _is_secret(path, written) else without_secrets(written)
    if value in (None, "") or isinstance(value, bool):
        return value
    if _is_secret(path, value):
        return HIDDEN
    return without_secrets(value) if isinstance(value, str) else value


def _is_secret(path: tuple[str, ...], value: str | float) -> bool:
    if _HARMLESS_SETTING.fullmatch(path[-1]):
        return False
    if _SECRET_NAME.search(path[-1]):
        return True
    return len(path) > 1 and path[0] in ("spark", "kafka") and not _QUANTITY.fullmatch(str(value))
