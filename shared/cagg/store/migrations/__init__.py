"""Changes of the schema, one file each. They only add, so that neighbouring versions can share a store."""
