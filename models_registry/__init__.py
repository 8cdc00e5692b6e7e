"""What has been learnt: models, bundles, the registry and the gate."""
