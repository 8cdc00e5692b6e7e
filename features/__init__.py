"""What the market looks like, and how a trade would have ended: pure numeric code."""
