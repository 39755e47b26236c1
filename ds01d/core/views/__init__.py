"""What people and programs are shown of the state: pure functions from the tables to plain values."""
