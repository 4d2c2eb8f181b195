"""All SQL of the product: one writer, plain functions over a transaction."""
