"""The families of features, one module each: formula, state layout, step, names, versions, warm-ups."""
