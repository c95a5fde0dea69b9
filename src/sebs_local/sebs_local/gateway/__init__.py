"""The gateway: a process of its own that takes HTTP requests and runs function instances.

``python -m sebs_local.gateway SETTINGS`` (a JSON object; see `sebs_local.models.LocalSettings`) prints one JSON line when it
is ready, or ``{"error": sentence}``, and serves until its standard input ends or SIGTERM comes. No instance of it outlives
it, however it ends: see `reaper`. Its limit: a process that a handler puts into a session of its own (``setsid``) is not in the
instance's group any more, and is not found. It imports neither pydantic nor core, so that it is ready soon and stays small.
"""
