"""When it is built: Dagster assets, checks, sensors and resources."""
