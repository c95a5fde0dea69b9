"""What the provider's Python calls: ``handler(event, request_id)``, JSON text in and out, one call at a time in a process.

Imports are few on purpose: they are part of every cold start.
"""

import os

# The provider names it FUNCTION_GENERATION; `Measured` reads it when it is made, and echoes it in every answer.
os.environ["SEBS_GENERATION"] = os.environ.get("FUNCTION_GENERATION", "")

from sebs_function.measured import Measured

handler = Measured().call
