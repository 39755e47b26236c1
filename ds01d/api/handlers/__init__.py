"""What each RPC method does, one module a noun."""
