"""Redis: addresses, connections, pools, the protocol, and errors."""
