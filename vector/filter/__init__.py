"""Which records may be hits: the filter grammar, its typed tree, and what of a record it looks at. Pure."""
