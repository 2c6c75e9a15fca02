"""The one exception for mistakes that a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """An input file or option is wrong.

    The message is one sentence that names the file, the line or the id, what is wrong
    with it, and what to do. Entrypoints turn it into exit status 2 without a traceback.
    """
