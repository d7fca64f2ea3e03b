"""Tables and vectors in: readers, embeddings, public centres."""
