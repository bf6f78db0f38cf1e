"""HTTP to other servers: connections, headers, and bodies that are passed on."""
