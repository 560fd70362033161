"""Settings: TOML files as checked models, vendor profiles, and what editors need to know of them."""
