"""Methods of learning without labels that were tried beside the one of the product."""
