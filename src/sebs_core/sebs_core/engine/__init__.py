"""What sends invocations and takes their times."""
