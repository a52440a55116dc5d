"""ContextGen (ICLR 2026)."""
