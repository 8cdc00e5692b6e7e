"""The main job: from klines to a promoted bundle, live signals, and a second bundle learnt from them."""
