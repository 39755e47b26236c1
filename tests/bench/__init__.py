"""`make bench`: how fast it is, beside what it is compared with. Prints; nothing in here is asserted."""
