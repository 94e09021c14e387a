"""What ids of plugins look like. Imports nothing: every endpoint checks its path by it, tables or no tables."""

PLUGIN_ID_PATTERN = "^plugin_[a-z][a-z0-9_-]{1,63}_[0-9a-z]{6}$"
