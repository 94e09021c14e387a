"""What ids of tools and MCP servers, and names of security schemes, look like.

Imports nothing: every endpoint checks its path by it, tables or no tables.
"""

TOOL_ID_PATTERN = "^tool@[0-9A-Za-z]{1,27}$"
SERVER_ID_PATTERN = "^mcp@[0-9A-Za-z]{1,28}$"
SCHEME_PATTERN = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
# A document may name any number of schemes; nobody holds credentials for more.
MOST_CREDENTIALS = 20
