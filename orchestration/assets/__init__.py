"""The assets, one file a domain. Each is short: it asks a package to do the work and says what came of it."""
