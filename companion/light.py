"""nbformat and papermill without an import that costs them a second of processor time.

Both check notebooks with jsonschema, which compiles the grammar of internationalised addresses (rfc3987_syntax) as it
is imported, though no notebook's schema asks for one (jsonschema issue 1428). Here that waits for the first address.
"""

import importlib.util
import sys
from types import ModuleType


def _is_valid_syntax(term: str, value: str) -> bool:
    return importlib.import_module("rfc3987_syntax").is_valid_syntax(term, value)


if not {"jsonschema", "rfc3987_syntax"} & sys.modules.keys() and importlib.util.find_spec("rfc3987_syntax"):
    sys.modules["rfc3987_syntax"] = ModuleType("rfc3987_syntax")
    sys.modules["rfc3987_syntax"].is_valid_syntax = _is_valid_syntax
    import jsonschema  # noqa: F401

    del sys.modules["rfc3987_syntax"]

import nbformat  # noqa: E402, F401
import papermill  # noqa: E402, F401
