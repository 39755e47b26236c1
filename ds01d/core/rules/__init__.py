"""What happens on which event, one module a subject. Rules never import each other."""
