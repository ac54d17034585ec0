"""Which calls, watches and connections are taken, and how many of one peer."""
