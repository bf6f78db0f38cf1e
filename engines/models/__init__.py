"""Models on disk and in the catalog: what there is, what it is, and how it gets here."""
