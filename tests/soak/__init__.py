"""A storm over the installed product: people at work while the daemon and the engine are killed under them."""
