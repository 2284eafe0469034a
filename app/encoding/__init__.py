"""From image bytes to unit embeddings, the same way in the service and in evaluation."""
