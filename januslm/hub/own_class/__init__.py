"""The two files that an export brings along for `trust_remote_code`; they need no januslm."""
