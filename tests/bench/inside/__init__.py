"""What is measured inside the box, by the box's own Python: only there a caller has a name, and sockets a peer."""
